"""Rules over the paths and the declaration of a model: what trains, what decays, which optimizer is whose."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import optax

from fdl.core import Layer, Param, Tree
from fdl.errors import InputError, did_you_mean

COPIES = ("layers", "members")  # axes that count copies of an array and are no dimension of it
T = TypeVar("T")
Rules = Sequence[tuple[str, T]]
"""`[(regex over paths such as "encoder/0/kernel", value), ...]`: the first whose regex is found in the path decides."""


def decay_mask(layer: Layer) -> Tree:
    """A tree of booleans like `params`: True for matrices and kernels, False for biases, scales and other vectors.

    An array that is no "bias" decays where it has two axes or more, those that count the copies of a `Stack` or
    `Ensemble` aside: the scale of a stacked norm is [layers, features] and still a vector. It is for
    `optax.adamw(..., mask=fdl.decay_mask(model))`.

    >>> from fdl import nn
    >>> decay_mask(nn.Stack(nn.Linear(3, 3), 4))
    {'kernel': True, 'bias': False}
    """
    return _decays(layer.specs())


def _decays(specs: Tree) -> Any:
    mask = {}
    for name, spec in specs.items():
        if not isinstance(spec, Param):
            mask[name] = _decays(spec)
        elif spec.kind == "param":
            copies = sum(axis in COPIES for axis in spec.axes or ())
            mask[name] = name != "bias" and len(spec.shape) - copies >= 2
    return mask


def by_path(
    rules: Rules[optax.GradientTransformation] | Mapping[str, tuple[str, optax.GradientTransformation]],
) -> optax.GradientTransformationExtraArgs:
    """An optimizer for each group of parameters, by path: other learning rates, other decay, or none at all.

    Args:
      rules: every parameter goes to the first transformation whose regex is found in its path. `optax.set_to_zero()`
        keeps a group as it is; `Experiment(trainable=...)` does that without the work of its gradients. As a dict, name
        -> (regex, transformation), the groups have names: {"head": ("head/", optax.sgd(schedule)), ...} records
        `train/head/learning_rate`; without, the name is the rule's number and regex, `train/0: head//learning_rate`.

    Raises:
      InputError: rules of another form; when the parameters are known, a rule that no path is left for, or a path
        without a rule.

    >>> rules = {"head": ("head/", optax.sgd(0.1)), "rest": ("", optax.sgd(0.01))}
    >>> params = {"body": {"kernel": jax.numpy.ones(1)}, "head": {"kernel": jax.numpy.ones(1)}}
    >>> optimizer = by_path(rules)
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> jax.tree.map(lambda x: round(float(x[0]), 3), updates)
    {'body': {'kernel': -0.01}, 'head': {'kernel': -0.1}}
    """
    pairs: Any = list(rules.values() if isinstance(rules, Mapping) else rules)
    for pair in pairs:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and _transforms(pair[1])):
            raise InputError(
                "by_path: expected [(regex, transformation), ...], or {name: (regex, transformation), ...} for groups "
                f"with names, got {pair!r}"
            )
    names = (
        list(rules) if isinstance(rules, Mapping) else [f"{number}: {regex}" for number, (regex, _) in enumerate(pairs)]
    )
    for name in names:
        if not (isinstance(name, str) and name.strip()):
            raise InputError(f"by_path: expected names of text, got {name!r}")
    named = [(regex, name) for (regex, _), name in zip(pairs, names, strict=True)]
    transforms = {name: transform for (_, transform), name in zip(pairs, names, strict=True)}
    return optax.partition(transforms, lambda params: match("by_path", named, params))  # pyright: ignore


def _transforms(value: Any) -> bool:
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def split(rules: Rules[bool], params: Any) -> tuple[Any, Any, Callable[[Any, Any], Any]]:
    """`(trained, frozen, join)`: two trees like params, each with `optax.MaskedNode()`, an empty node, for the other's.

    Raises:
      InputError: see `match`; a parameter without a rule is trained.
    """
    trained = match("trainable", rules, params, default=True)
    empty = optax.MaskedNode()
    pick = lambda wanted: jax.tree.map(lambda mine, x: x if mine is wanted else empty, trained, params)  # noqa: E731
    join = lambda a, b: jax.tree.map(lambda mine, x, y: x if mine else y, trained, a, b)  # noqa: E731
    return pick(True), pick(False), join


def match(what: str, rules: Rules[T], tree: Any, default: T | None = None) -> Any:
    """A tree like `tree` with the value of the first rule whose regex is found in each leaf's path.

    Raises:
      InputError: an invalid regex, a rule that decides over no path, a path without a rule and a default.
    """
    patterns = [(_compiled(what, regex), value) for regex, value in rules]
    used: set[int] = set()

    def one(path: str) -> T:
        for number, (pattern, value) in enumerate(patterns):
            if pattern.search(path):
                used.add(number)
                return value
        if default is None:
            raise InputError(f"{what}: no rule for {path!r}; end the rules with ('', ...) to match all that is left")
        return default

    found = jax.tree_util.tree_map_with_path(lambda path, _: one(path_of(path)), tree)
    for number, (regex, _) in enumerate(rules):
        if number not in used:
            paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
            raise InputError(_unused(what, regex, paths))
    return found


def path_of(path: Any) -> str:
    """`"blocks/0/kernel"` for a path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _compiled(what: str, regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except (re.error, TypeError) as error:
        raise InputError(f"{what}: {regex!r} is no regular expression: {error}") from None


def _unused(what: str, regex: str, paths: list[str]) -> str:
    if any(re.search(regex, path) for path in paths):
        return f"{what}: the rule {regex!r} never decides: an earlier rule takes every path that it matches"
    shown = ", ".join(paths[:10]) + (f", and {len(paths) - 10} more" if len(paths) > 10 else "")
    return f"{what}: the rule {regex!r} matches no parameter{did_you_mean(regex, paths)}; there are {shown}"
