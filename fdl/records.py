"""How frozen records print: as the Python source that makes them, functions by their public names."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

WIDTH = 120  # characters of a line; the source of a record that is longer is broken over several
SHORT = 240  # characters of a record in a message
LONG = 50_000  # a longer one is cut without a look at its brackets
PUBLIC = ("jax.nn", "jax.numpy", "jax.lax")


def record_source(record: Any) -> str:
    """A dataclass as the call that makes it: required fields by position, others by name where not the default."""
    shown = []
    fields = dataclasses.fields(record) if dataclasses.is_dataclass(record) else ()
    for field in filter(lambda field: field.init, fields):
        value = getattr(record, field.name)
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and not field.kw_only:
            shown.append(source(value))
        elif required or not is_default(field, value):
            shown.append(f"{field.name}={source(value)}")
    return f"{type(record).__name__}({', '.join(shown)})"


def source(value: Any) -> str:
    """The value of a field as Python source.

    >>> import jax
    >>> source((1, 2.0, "a", None, jax.nn.relu))
    "(1, 2.0, 'a', None, jax.nn.relu)"
    """
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return "(" + ", ".join(map(source, value)) + ("," if len(value) == 1 else "") + ")"
    if type(value) is dict:
        return "{" + ", ".join(f"{key!r}: {source(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"  # inf is no Python literal
    is_record = dataclasses.is_dataclass(value) or isinstance(value, tuple)
    return _public_name(value) if callable(value) and not is_record else repr(value)


def pretty(text: str, indent: int = 0) -> str:
    """The source of a record, broken after brackets and commas where it is longer than a line.

    >>> print(pretty("Serial(" + ", ".join(["Linear(100, 100)"] * 7) + ")").replace("Linear(100, 100),\\n    " * 5, ""))
    Serial(
        Linear(100, 100),
        Linear(100, 100)
    )
    """
    text = flat(text)
    opening = re.match(r"[\w.=]*[(\[{]", text)
    if len(text) + indent <= WIDTH or opening is None or text[-1] not in ")]}":
        return text
    inside, margin = text[opening.end() : -1], " " * (indent + 4)
    lines = [margin + pretty(part.strip(), indent + 4) for part in split(inside) if part.strip()]
    one = "," if inside.rstrip().endswith(",") else ""  # of a tuple of one
    return opening[0] + "\n" + ",\n".join(lines) + f"{one}\n{' ' * indent}{text[-1]}"


def flat(text: str) -> str:
    """The same source on one line. A text in it has no line breaks, as `repr` spells them."""
    return re.sub(r"\n *", " ", re.sub(r"([(\[{])\n *", r"\1", re.sub(r"\n *([)\]}])", r"\1", text)))


def short(value: Any) -> str:
    """A record for a message: on one line, and what is deep in it left out where it would be too long.

    >>> short((1, 2))
    '(1, 2)'
    """
    whole = text = flat(repr(value))
    depth = max(depth for _, depth, _ in _scan(whole)) if SHORT < len(whole) < LONG else 0
    while len(text) > SHORT and depth > 1:
        depth -= 1
        text = _shallow(whole, depth)
    return text if len(text) <= SHORT else f"{text[: SHORT - 60]} ... {text[-50:]}"


def split(text: str) -> list[str]:
    """The parts between commas that are in no brackets and no quotes.

    >>> split("(4,),(8, 8)"), split("a,'b,c'")
    (['(4,)', '(8, 8)'], ['a', "'b,c'"])
    """
    parts = [""]
    for character, depth, quoted in _scan(text):
        if character == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _scan(text: str) -> Iterator[tuple[str, int, bool]]:
    """Each character, in how many brackets it is (a bracket itself is in those around it), and whether in quotes."""
    depth, quote, escaped = 0, "", False
    for character in text:
        if quote:
            yield character, depth, True
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
            continue
        depth -= character in ")]}"
        yield character, depth, False
        depth += character in "([{"
        quote = character if character in "'\"" else ""


def _shallow(text: str, most: int) -> str:
    """The text with everything in more than so many brackets replaced by dots."""
    kept = []
    for character, depth, _ in _scan(text):
        if depth <= most:
            kept.append(character)
        elif kept[-1] != "...":
            kept.append("...")
    return "".join(kept)


def listed(title: str, rows: Iterable[tuple[str, Any]], most: int = 12) -> str:
    """A title, and below it indented lines `name: value`, of which at most so many; for the repr of what holds arrays.

    >>> print(listed("Arrays of 2 examples:", [("x", "float32[2, 3]"), ("y", "int32[2]")]))
    Arrays of 2 examples:
      x: float32[2, 3]
      y: int32[2]
    """
    rows = list(rows)
    lines = [f"  {name}: {value}".replace("\n", "\n  ") for name, value in rows[:most]]
    return "\n".join([title, *lines, *([f"  ... and {len(rows) - most} more"] if len(rows) > most else [])])


def figures(metrics: Mapping[str, Any]) -> str:
    """The last values of metrics, for the repr of a result.

    >>> figures({"train/loss": 0.123456, "val/accuracy": 0.5})
    'train/loss 0.1235, val/accuracy 0.5'
    """
    shown = ", ".join(f"{name} {value:.4g}" for name, value in list(metrics.items())[:12])
    return shown + (f" ... and {len(metrics) - 12} more" if len(metrics) > 12 else "")


def sizes(tree: Any) -> str:
    """How much a tree of arrays holds.

    >>> import numpy as np
    >>> sizes({"kernel": np.ones((3, 2)), "bias": np.ones(2)})
    '8 numbers in 2 arrays'
    """
    import jax

    leaves = jax.tree.leaves(tree)
    numbers = sum(math.prod(getattr(leaf, "shape", ())) for leaf in leaves)
    return f"{numbers:,} numbers in {len(leaves)} arrays"


def is_default(field: dataclasses.Field[Any], item: Any) -> bool:
    """Whether a record's field has the value that it would have without being given."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return item is default or (type(item) is type(default) and item == default)


def _public_name(function: Any) -> str:
    """The dotted name under which a function can be imported; its repr where it has none (a lambda)."""
    name = getattr(function, "__qualname__", getattr(function, "__name__", ""))
    for module in (*PUBLIC, getattr(function, "__module__", None) or ""):
        try:
            if getattr(importlib.import_module(module), name, None) is function:
                return f"{module}.{name}"
        except (ImportError, ValueError):
            continue
    return repr(function)
