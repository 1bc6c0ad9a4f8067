"""Weights from elsewhere: a table of rules from the names of a file to a model's paths, read in both directions."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from fdl.core import Layer, Param, Tree, check, leaves
from fdl.errors import InputError
from fdl.pretrained.arrays import as_array, named
from fdl.pretrained.files import read
from fdl.pretrained.rearrange import Rearrange

Names = str | tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """These arrays of a file are those arrays of the model.

    Args:
      source: name in the file; `{i}` in it stands for a number, the same at every place of the rule.
      path: path in the model, such as "blocks/{i}/attention/query/kernel"; () for what a file has and nobody needs.
      change: how one becomes the other, as `Rearrange` says: "o i -> i o" transposes.

    A tuple of names is one array with a leading axis for them: `("q", "k", "v")` as source are stacked, as path they
    are split.

    Raises:
      InputError: names that do not have the same numbers; an invalid pattern.

    >>> linear = Rule("layer.{i}.weight", "blocks/{i}/kernel", "o i -> i o")
    >>> fused = Rule("h.{i}.qkv", ("blocks/{i}/query", "blocks/{i}/key", "blocks/{i}/value"), "(s h k) d -> s d h k")
    >>> Rule("layer.{i}.weight", "kernel")
    Traceback (most recent call last):
    fdl.errors.InputError: Rule: 'layer.{i}.weight' and 'kernel' do not have the same numbers
    """

    source: Names
    path: Names
    change: str = ""

    def __post_init__(self) -> None:
        for names in (self.source, self.path):
            if not isinstance(names, str) and not (isinstance(names, tuple) and all(isinstance(n, str) for n in names)):
                raise InputError(f"Rule: expected a name, or a tuple of names, got {names!r:.80}")
        if not isinstance(self.change, str) or not self.sources:
            raise InputError(
                f"Rule: expected a name and a change such as 'o i -> i o', got {(self.source, self.change)}"
            )
        names = (*self.sources, *self.paths)
        for name in names if self.paths else ():
            if set(_PLACE.findall(name)) != set(_PLACE.findall(names[0])):
                raise InputError(f"Rule: {names[0]!r} and {name!r} do not have the same numbers")
        Rearrange(self.change)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path

    def into(self, arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """The arrays of the model, which have these shapes, from those of the file; ValueError for others."""
        if len(set(shapes)) > 1:
            raise ValueError(f"equal shapes to split into, got {shapes}")
        joined = arrays[0] if isinstance(self.source, str) else np.stack(arrays)
        shape = shapes[0] if isinstance(self.path, str) else (len(shapes), *shapes[0])
        made = Rearrange(self.change)(joined, shape)
        return [made] if isinstance(self.path, str) else list(made)

    def back(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The arrays of the file from those of the model."""
        joined = arrays[0] if isinstance(self.path, str) else np.stack(arrays)
        made = Rearrange(self.change).inverse(joined, None if isinstance(self.source, str) else len(self.sources))
        return [made] if isinstance(self.source, str) else list(made)


Rules = Sequence[Rule]


@dataclass(frozen=True)
class Report:
    """What `load` did with every name of the file and every path of the model.

    `used`, `unused` (no rule, or a rule to no path of this model) and `ignored` (a rule to ()) are names of the file;
    `missing` and `misshapen` are paths of the model, each with what was looked for.
    """

    used: tuple[str, ...]
    unused: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    misshapen: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether nothing is unused, missing or misshapen."""
        return not (self.unused or self.missing or self.misshapen)

    def table(self, most: int | None = None) -> str:
        """A line for each missing (-), misshapen (!) and unused (+) name, at most `most` of them."""
        lines = [f"  - {path}: missing, {why}" for path, why in self.missing.items()]
        lines += [f"  ! {path}: {why}" for path, why in self.misshapen.items()]
        lines += [f"  + {name}: unused" for name in self.unused]
        lines = [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..." for line in lines]
        if most is not None and len(lines) > most:
            lines = [*lines[:most], f"  ... and {len(lines) - most} more"]
        return "\n".join(lines)

    def __str__(self) -> str:
        counts = {name: len(getattr(self, name)) for name in ("used", "unused", "ignored", "missing", "misshapen")}
        head = ", ".join(f"{count} {name}" for name, count in counts.items())
        return "\n".join([head, self.table()]) if not self.complete else head


def load(
    layer: Layer,
    tensors: Mapping[str, Any] | str | os.PathLike[str],
    rules: Rules | None = None,
    *,
    strict: bool = True,
    initial: tuple[Tree, Tree] | None = None,
    dtype: Any = None,
) -> tuple[Tree, Tree, Report]:
    """(params, state, report) of a model from the arrays of a file.

    Args:
      layer: the model; it declares which paths there are and their shapes.
      tensors: name -> array, as `read` gives them, of NumPy, JAX or PyTorch, also nested (names are joined by "/");
        or a path, which is read.
      rules: the first rule that knows a name takes it; None = the names are the paths, as in a file that
        `fdl ckpt export` has written.
      strict: whether anything missing, misshapen or unused is an error.
      initial: params and state to take what is missing from, where not strict: those of `fdl.init`, for a model with a
        new head. Without it the missing paths are missing in the result.
      dtype: of the params; as stored unless given. State is float32.

    Raises:
      InputError: a table of what is missing (-, with the nearest of the unused names), misshapen (!) and unused (+);
        params of whole numbers (quantized weights), or of complex ones unless `dtype` is complex.

    >>> import fdl
    >>> tensors = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32)}
    >>> rules = [Rule("fc.weight", "kernel", "o i -> i o"), Rule("fc.bias", "bias")]
    >>> params, state, report = load(fdl.nn.Linear(3, 2), tensors, rules)
    >>> params["kernel"].shape, str(report)
    ((3, 2), '2 used, 0 unused, 0 ignored, 0 missing, 0 misshapen')
    """
    _check_model("load", layer)
    _check_rules("load", rules)
    _check_options(initial, dtype)
    file, tensors = ("the file", tensors) if not isinstance(tensors, str | os.PathLike) else (tensors, read(tensors))
    tensors = named(tensors)
    specs: dict[str, Param] = dict(leaves(layer.specs()))
    values, report = _values(specs, tensors, rules, dtype)
    if strict and not report.complete:
        raise InputError(f"{file} does not fit the model:\n{report.table(10)}{_hint(report, rules)}")
    for kind, tree in zip(("param", "state"), initial or ({}, {}), strict=True):
        kept = {path: leaf for path, leaf in leaves(tree) if path in specs and specs[path].kind == kind}
        values = kept | values
    params, state = (_tree(layer.specs(), kind, values, dtype) for kind in ("param", "state"))
    return params, state, report


def export(layer: Layer, params: Tree, state: Tree, rules: Rules | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file from those of a model: the inverse of `load` with the same rules (None: names are paths).

    The first rule that knows a path writes it. What `load` ignores is not written, and where several arrays were added
    up the first gets all.

    Raises:
      InputError: params that do not fit the model, a path that no rule knows.
    """
    _check_model("export", layer)
    _check_rules("export", rules)
    check(layer, params, state)
    values = dict(leaves(params)) | dict(leaves(state))
    tensors: dict[str, np.ndarray] = {}
    for path in values:
        rule, numbers = _find(path, rules, "paths")
        if rule is None:
            raise InputError(f"no rule knows the path {path!r}, so that it cannot be exported")
        paths = [_named(pattern, numbers) for pattern in rule.paths]
        if path == paths[0]:  # the others go with it
            absent = [other for other in paths if other not in values]
            if absent:
                raise InputError(f"the rule for {path!r} needs {absent[0]!r} as well, which the model does not have")
            made = rule.back([np.asarray(values[other]) for other in paths])
            tensors |= dict(zip((_named(source, numbers) for source in rule.sources), made, strict=True))
    return tensors


def prefixed(prefix: str, rules: Iterable[Rule]) -> list[Rule]:
    """The rules for a file that puts this before every name ("bert.", "module.")."""

    def longer(names: Names) -> Names:
        return prefix + names if isinstance(names, str) else tuple(prefix + name for name in names)

    rules = list(rules)
    _check_rules("prefixed", rules)
    return [Rule(longer(rule.source), rule.path, rule.change) for rule in rules]


def _check_model(where: str, layer: Any) -> None:
    if not isinstance(layer, Layer):
        raise InputError(
            f"{where}: expected a model, an `fdl.Layer`, got {type(layer).__name__}; the model comes first"
        )


def _check_rules(where: str, rules: Any) -> None:
    if rules is not None and not (isinstance(rules, list | tuple) and all(isinstance(rule, Rule) for rule in rules)):
        raise InputError(f"{where}: rules: expected a list of pretrained.Rule(name, path, change), got {rules!r:.80}")


def _check_options(initial: Any, dtype: Any) -> None:
    pair = isinstance(initial, tuple) and len(initial) == 2 and all(isinstance(tree, Mapping) for tree in initial)
    if initial is not None and not pair:
        raise InputError("load: initial: expected (params, state), as fdl.init returns them")
    try:
        floating = dtype is None or jnp.issubdtype(jnp.dtype(dtype), jnp.inexact)
    except TypeError:
        floating = False
    if not floating:
        raise InputError(f"load: dtype: expected a dtype of floating-point numbers, such as 'bfloat16', got {dtype!r}")


def _hint(report: Report, rules: Rules | None) -> str:
    """What to do about a file of which nothing fits."""
    if any(".lora_" in name for name in report.unused):
        return "\nthese are the arrays of an adapter: `pretrained.with_adapter` adds them to those of its base model"
    if report.used or not report.unused:
        return ""
    for name in report.unused[:5]:
        for cut in (found.end() for found in re.finditer("[./]", name)):
            start, rest = name[:cut], name[cut:]
            if rules is None and rest in report.missing:
                return (
                    f"\nthe names fit without the start {start!r}: "
                    f"pass {{name.removeprefix({start!r}): array for name, array in tensors.items()}}"
                )
            if rules is not None and _find(rest, rules, "sources")[0] is not None:
                return f"\nthe rules fit without the start {start!r}: pass pretrained.prefixed({start!r}, rules)"
    if rules is not None:
        return ""
    if {name.replace(".", "/") for name in report.unused} & report.missing.keys():
        return (
            "\nthe names fit with '/' for '.': pass {name.replace('.', '/'): array for name, array in tensors.items()}"
        )
    path = next(iter(report.missing), "head/kernel")
    start = path.removesuffix(report.unused[0])
    if start != path and start.endswith("/"):
        return (
            f"\nthe names fit the part {start[:-1]!r} of the model: load that part, or put {start!r} before each name"
        )
    return f"\nwithout rules names must be paths, such as {path!r}: pass rules=[pretrained.Rule(name, path), ...]"


def _values(
    specs: Mapping[str, Param], tensors: Mapping[str, Any], rules: Rules | None, dtype: Any
) -> tuple[dict[str, Any], Report]:
    """The value of every path that has one, and the report."""
    used, unused, ignored = [], [], []
    found: dict[tuple[str, ...], tuple[Rule, list[str]]] = {}  # sources -> their rule and paths
    owner: dict[str, tuple[str, ...]] = {}
    for name in tensors:
        rule, numbers = _find(name, rules, "sources")
        if rule is None or not rule.paths:
            (unused if rule is None else ignored).append(name)
            continue
        sources = tuple(_named(source, numbers) for source in rule.sources)
        paths = [_named(path, numbers) for path in rule.paths]
        there = all(source in tensors for source in sources) and all(path in specs for path in paths)
        if there and all(owner.setdefault(path, sources) == sources for path in paths):
            used.append(name)
            found[sources] = rule, paths
        else:
            unused.append(name)
    values, misshapen = _made(specs, tensors, found, dtype)
    missing = {path: _looked_for(path, rules, tensors) for path in specs if path not in owner}
    for path in list(missing)[:_NEAREST]:
        missing[path] += _nearest(path, rules, unused)
    return values, Report(tuple(used), tuple(unused), tuple(ignored), missing, misshapen)


def _made(
    specs: Mapping[str, Param],
    tensors: Mapping[str, Any],
    found: Mapping[tuple[str, ...], tuple[Rule, list[str]]],
    dtype: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The values by path, and why some cannot be made."""
    values: dict[str, Any] = {}
    misshapen: dict[str, str] = {}
    for sources, (rule, paths) in found.items():
        arrays = [as_array(source, tensors[source]) for source in sources]
        shapes = [specs[path].shape for path in paths]
        unfit = {path: [_unfit(specs[path], array, dtype) for array in arrays] for path in paths}
        kinds = {path: next(filter(None, reasons)) for path, reasons in unfit.items() if any(reasons)}
        if kinds:
            misshapen |= {path: f"{kind}, got {sources[0]!r} of {arrays[0].dtype}" for path, kind in kinds.items()}
            continue
        try:
            values |= dict(zip(paths, rule.into(arrays, shapes), strict=True))
        except ValueError:
            got = ", ".join(f"{source!r} {list(a.shape)}" for source, a in zip(sources, arrays, strict=True))
            change = f" by {rule.change!r}" if rule.change else ""
            misshapen |= {path: f"expected {list(specs[path].shape)}, got {got}{change}" for path in paths}
    return values, misshapen


def _unfit(spec: Param, array: np.ndarray, dtype: Any) -> str:
    """What is wrong with the dtype of an array, "" where nothing is."""
    if spec.kind == "param" and not jnp.issubdtype(array.dtype, jnp.inexact):
        return "expected floating-point numbers (are the weights quantized?)"
    complex_param = spec.kind == "param" and dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating)
    if jnp.issubdtype(array.dtype, jnp.complexfloating) and not complex_param:
        return "expected real numbers" + " (or dtype='complex64')" * (spec.kind == "param")
    return ""


def _looked_for(path: str, rules: Rules | None, tensors: Mapping[str, Any]) -> str:
    rule, numbers = _find(path, rules, "paths")
    if rule is None:
        return "no rule knows it"
    absent = [name for name in (_named(source, numbers) for source in rule.sources) if name not in tensors]
    return f"expected {' and '.join(map(repr, absent[:3]))}{' ...' if len(absent) > 3 else ''}"


def _nearest(path: str, rules: Rules | None, unused: Sequence[str]) -> str:
    """The unused name of the file that is most like the one that was looked for."""
    rule, numbers = _find(path, rules, "paths")
    wanted = [_named(source, numbers) for source in rule.sources] if rule else [path]
    names = [name for name in unused[:_COMPARED] if len(name) < _LONGEST_LINE]
    absent = next((name for name in wanted if name not in names), wanted[0])
    close = difflib.get_close_matches(absent, names, n=1, cutoff=0.8)
    return f"; the nearest name is {close[0]!r}" if close else ""


def _find(name: str, rules: Rules | None, side: str) -> tuple[Rule | None, dict[str, str]]:
    """The first rule with a pattern of this name, and what its numbers are; without rules a name is a path."""
    if rules is None:
        return Rule(name, name), {place: f"{{{place}}}" for place in _PLACE.findall(name)}
    for rule in rules:
        for pattern in getattr(rule, side):
            found = _regex(pattern).fullmatch(name)
            if found:
                return rule, found.groupdict()
    return None, {}


def _named(pattern: str, numbers: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: numbers[place[1]], pattern)


@functools.cache
def _regex(pattern: str) -> re.Pattern[str]:
    """`{i}` as a group of digits, everything else as it stands."""
    pieces = _PLACE.split(pattern)  # text, name, text, name, ..., text
    seen: set[str] = set()
    regex = ""
    for k, piece in enumerate(pieces):
        regex += re.escape(piece) if k % 2 == 0 else f"(?P={piece})" if piece in seen else rf"(?P<{piece}>\d+)"
        seen |= {piece} if k % 2 else set()
    return re.compile(regex)


_LONGEST_LINE = 300
_NEAREST, _COMPARED = 10, 500  # missing paths that get a nearest name, and names that are compared
_PLACE = re.compile(r"\{(\w+)\}")


def _tree(specs: Tree, kind: str, values: dict[str, Any], dtype: Any, path: str = "") -> Tree:
    """The values as a nested dict shaped like that of `fdl.init`."""
    return dict(_branches(specs, kind, values, dtype, path))


def _branches(specs: Tree, kind: str, values: dict[str, Any], dtype: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, spec in specs.items():
        here = f"{path}/{name}" if path else name
        if not isinstance(spec, Param):
            branch = _tree(spec, kind, values, dtype, here)
            if branch or kind == "param":
                yield name, branch
        elif spec.kind == kind and here in values:
            # taken out, so that a large model is not in memory twice
            yield name, jnp.asarray(values.pop(here), jnp.float32 if kind == "state" else dtype)
