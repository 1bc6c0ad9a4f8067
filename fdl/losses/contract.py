"""What every loss demands of its arguments, with errors that say which fix is likely.

A compiled program cannot raise on values, so values are checked where they are concrete: in eager code, and in the
rehearsal before a run. Each value that is refused there gives NaN in a trace, never a plausible number: a loss passes
what `in_range`, `class_labels` and the like return to `settle`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fdl.errors import InputError
from fdl.ops.norm import widen
from fdl.shapes import check_range

TOLERANCE = 0.02
"""How far probabilities may be from 0..1 and from a sum of 1: bfloat16 rounds each of them by up to 0.4 %."""
RULES = {
    "above 0": lambda value: (value > 0) & (value < math.inf),
    "at least 0": lambda value: (value >= 0) & (value < math.inf),
    "in 0..1": lambda value: (value >= 0) & (value <= 1),
}


class ClassLabels(NamedTuple):
    """Class numbers made safe to index with.

    Args:
      index: int32, in range everywhere.
      ignored: True where the label is the one to ignore.
      outside: True where the label is neither ignored nor a class.
    """

    index: jax.Array
    ignored: jax.Array
    outside: jax.Array

    def one_hot(self, num_classes: int) -> jax.Array:
        """[..., C] booleans, True at the label."""
        return jax.nn.one_hot(self.index, num_classes, dtype=bool)

    def settle(self, loss: jax.Array) -> jax.Array:
        """The loss, but 0 where the label is ignored and NaN where it is no class."""
        return jnp.where(self.ignored, 0.0, jnp.where(self.outside, jnp.nan, loss))


def same_shape(name: str, **arrays: Any) -> None:
    """Raises unless all arrays have the shape of the first.

    Raises:
      InputError: both names, both shapes and, for (B,) against (B, 1), which axis to drop.
    """
    (first, reference), *others = arrays.items()
    want = list(jnp.shape(reference))
    for other, array in others:
        got = list(jnp.shape(array))
        if got == want:
            continue
        hint = ""
        if want == [*got, 1]:
            hint = f"; drop the last axis of the {first}: y[..., 0]"
        elif got == [*want, 1]:
            hint = f"; drop the last axis of the {other}: y[..., 0]"
        elif sorted(got) == sorted(want):
            hint = "; are the axes in another order?"
        raise InputError(f"{name}: {first} {want} and {other} {got} must have the same shape{hint}")


def settle(loss: jax.Array, valid: jax.Array) -> jax.Array:
    """The loss, but NaN where the target is invalid: the only way to refuse a traced one."""
    return jnp.where(valid, loss, jnp.nan)


def in_range(name: str, what: str, values: Any, low: float, high: float, slack: float = 0.0) -> jax.Array:
    """Where values are finite and in low..high, or by rounding up to `slack` outside: booleans for `settle`.

    Raises:
      InputError: the first concrete value outside low..high, its index and the range.
    """
    check_range(name, what, values, low, high)
    values = widen(jnp.asarray(values))
    return (values >= low - slack) & (values <= high + slack) & jnp.isfinite(values)


def floats(name: str, **arrays: Any) -> tuple[jax.Array, ...]:
    """The arrays in one dtype: that of the first, or float32 where that is narrower.

    Raises:
      InputError: the first is not of floats (logits and labels swapped, most often); another one is complex.
    """
    what, first = next(iter(arrays.items()))
    first = jnp.asarray(first)
    if not jnp.issubdtype(first.dtype, jnp.floating):
        raise InputError(
            f"{name}: expected {what} of floats, got {first.dtype}{list(first.shape)}; are the arguments swapped?"
        )
    for other, array in arrays.items():
        if jnp.iscomplexobj(array):
            raise InputError(f"{name}: expected {other} of real numbers, got {jnp.result_type(array)}")
    dtype = widen(first).dtype
    return tuple(jnp.asarray(array).astype(dtype) for array in arrays.values())


def last_axis(name: str, what: str, array: Any, holds: str) -> int:
    """The size of the last axis.

    Raises:
      InputError: there is none, or it is empty.
    """
    shape = jnp.shape(array)
    if not shape or not shape[-1]:
        raise InputError(f"{name}: the last axis of {what} holds the {holds}, got {what} of shape {list(shape)}")
    return shape[-1]


def option(name: str, what: str, value: Any, rule: str, dtype: Any) -> jax.Array:
    """A hyper-parameter, traced where it is swept, in the dtype of the arrays it meets; NaN where that breaks the rule.

    Raises:
      InputError: a concrete value that breaks the rule, or is no finite real number.
    """
    if isinstance(value, Tracer):
        return jnp.where(RULES[rule](value), value, jnp.nan).astype(dtype)
    given = np.asarray(value)
    if not (np.isrealobj(given) and (jnp.issubdtype(given.dtype, np.number) or given.dtype == bool)):
        raise InputError(f"{name}: {what} must be a real number {rule}, got {value!r}")
    if not np.all(RULES[rule](given)):
        finite = "" if np.all(np.isfinite(given)) else " and finite"
        raise InputError(f"{name}: {what} must be {rule}{finite}, got {value}")
    return jnp.asarray(value).astype(dtype)


def class_labels(name: str, logits: Any, labels: Any, ignore_label: int | None = None) -> tuple[jax.Array, ClassLabels]:
    """Logits [..., C], widened, and the labels [...] that go with them.

    Where a label is ignored the logits are 0, so that not even NaN or infinity there reaches a gradient.

    Raises:
      InputError: shapes that do not fit, no classes, labels that are no integers or concrete and out of range.
    """
    (logits,) = floats(name, logits=logits)
    num_classes = last_axis(name, "logits", logits, "classes")
    _fitting(name, logits.shape, jnp.shape(labels))
    index, ignored, outside = class_numbers(name, labels, num_classes, ignore_label)
    if ignore_label is not None:
        logits = jnp.where(ignored[..., None], 0.0, logits)
    return logits, ClassLabels(index, ignored, outside)


def class_numbers(
    name: str, labels: Any, num_classes: int, ignore_label: int | None = None, what: str = "label"
) -> ClassLabels:
    """Integer labels of any shape as `ClassLabels`; `what` they are in errors.

    Raises:
      InputError: labels that are no integers or concrete and out of range; an ignore_label that is no integer.
    """
    integers(name, labels=labels)
    class_number(name, ignore_label)
    if not isinstance(labels, Tracer):
        seen = np.asarray(labels)
        seen = seen if ignore_label is None else np.where(seen == ignore_label, 0, seen)
        check_range(name, what, seen, 0, num_classes - 1)
    labels = signed(labels)
    ignored = jnp.zeros(labels.shape, bool) if ignore_label is None else labels == int(ignore_label)
    inside = (labels >= 0) & (labels < num_classes)
    return ClassLabels(jnp.where(inside & ~ignored, labels, 0).astype(jnp.int32), ignored, ~inside & ~ignored)


def class_number(name: str, ignore_label: Any) -> None:
    """Raises unless `ignore_label` is a whole number or None.

    Raises:
      InputError: the value.
    """
    if ignore_label is not None and (isinstance(ignore_label, bool) or not isinstance(ignore_label, int | np.integer)):
        raise InputError(f"{name}: ignore_label is a class number such as -1, got {ignore_label!r}")


def signed(numbers: Any) -> jax.Array:
    """Integers as int32, which -1 can be compared with; as int64 where they are that wide, or 2**32 would become 0."""
    numbers = jnp.asarray(numbers)
    return numbers.astype(jnp.int64 if numbers.dtype.itemsize == 8 else jnp.int32)


def integers(name: str, **arrays: Any) -> None:
    """Raises unless all arrays are of integers.

    Raises:
      InputError: the name and the dtype.
    """
    for what, array in arrays.items():
        dtype = jnp.asarray(array).dtype
        if not jnp.issubdtype(dtype, jnp.integer):
            holds = "labels are class numbers" if what == "labels" else f"{what} are counts"
            raise InputError(f"{name}: {holds}, expected integers, got {dtype}")


def _fitting(name: str, logits: tuple[int, ...], labels: tuple[int, ...]) -> None:
    want, got = list(logits[:-1]), list(labels)
    if got == want:
        return
    hint = ""
    if labels == logits:
        hint = (
            "; these look one-hot: take labels.argmax(-1)"
            " (probabilities go to softmax_cross_entropy_with_probabilities)"
        )
    elif got == [*want, 1]:
        hint = "; drop the last axis: labels[..., 0]"
    elif len(logits) > 2 and labels == (logits[0], *logits[2:]):
        hint = "; classes come last here: logits = jnp.moveaxis(logits, 1, -1)"
    raise InputError(f"{name}: logits {list(logits)} need labels {want}, got {got}{hint}")
