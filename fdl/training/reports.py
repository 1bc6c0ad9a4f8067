"""Reports: numbers that are no mean over examples, computed on the host from all outputs of an evaluation set."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.dataset import Dataset
from fdl.errors import InputError
from fdl.rules import path_of

Reports = Mapping[str, Callable[[Any], Any]]


def check_outputs(outputs: Any, rows: int | None) -> None:
    """Raises unless every output has a row for each of the `rows` examples of a batch; None = there are none to count.

    Raises:
      InputError: there are no outputs; one without such a leading axis, by its name.
    """
    if outputs is None:
        raise InputError("reports: the objective returns no outputs: Outcome(..., outputs=...)")
    for path, leaf in jax.tree_util.tree_leaves_with_path(outputs) if rows is not None else ():
        shape = list(jnp.shape(leaf))
        if shape[:1] != [rows]:
            name = f" {path_of(path)!r}" if path else ""
            raise InputError(
                f"outputs{name}: expected a row for each example of the batch, [{rows}, ...], got {shape}; "
                "several values of an example go on further axes: x.reshape(B, -1)"
            )


def check_names(reports: Reports, metrics: Container[str]) -> None:
    """Raises where a report has the name of a metric of the objective.

    Raises:
      InputError: the name; "loss" is one.
    """
    for name in reports:
        if name in metrics:
            raise InputError(f"reports: {name!r} is the name of a metric of the objective; give the report another")


def reported(
    reports: Reports, dataset: Dataset, outputs: Any, set_name: str, metrics: Container[str]
) -> Iterator[tuple[str, float] | Exception]:
    """What each report says of the outputs of an evaluation set, [batches, B, ...], without the rows of the padding.

    Yields (name, number); a report that returns {"mug": 0.5} under the name "ap" gives "ap/mug". In the place of a
    report that fails comes its exception, with a note that names report and set: the other reports are still made.
    """
    rows = jax.tree.map(lambda leaf: dataset.join(np.asarray(leaf)), outputs)
    known: set[str] = set()
    for report, function in reports.items():
        try:
            for name, number in list(_numbers(report, function(rows))):
                if name in known or name in metrics:
                    raise InputError(f"reports {name!r}: a metric or another report has this name already")
                known.add(name)
                yield name, number
        except Exception as error:
            error.add_note(f"in the report {report!r} on the evaluation set {set_name!r}")
            yield error


def of_members(
    reports: Sequence[Reports],
    dataset: Dataset,
    outputs: Any,
    set_name: str,
    metrics: Container[str],
    members: tuple[int, ...],
) -> tuple[dict[str, np.ndarray], Exception | None]:
    """`reported` for a run, or for each member of a sweep, whose outputs have a leading axis for them.

    Returns:
      "val/auc" and so on -> [*members, 1], NaN where a member has no such number; the first error.
    """
    columns: dict[str, np.ndarray] = {}
    first: Exception | None = None
    for member, mine in zip(np.ndindex(members), reports, strict=True):
        if not mine:
            continue
        own = jax.tree.map(lambda leaf, member=member: np.asarray(leaf[member]), outputs)
        for each in reported(mine, dataset, own, set_name, metrics):
            if isinstance(each, Exception):
                if member:
                    each.add_note(f"of member {member[0]} of those side by side")
                first = first or each
                continue
            empty = np.full((*members, 1), np.nan)
            columns.setdefault(f"{set_name}/{each[0]}", empty)[member] = each[1]
    return columns, first


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers in what a report returned, each with its name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{name}/{key}", inner)
        return
    yield name, _number(name, value)


def _number(name: str, value: Any) -> float:
    if np.ma.is_masked(value):  # a mean of no values
        return float("nan")
    if isinstance(value, numbers.Real | Decimal):
        return float(value)
    array = None if value is None or isinstance(value, str | bytes) else np.asarray(value)
    if array is None or array.ndim or not _real(array.dtype):
        got = "None" if value is None else f"{type(value).__name__}{list(getattr(array, 'shape', []))}"
        hint = "; a function that prints has to return a number as well" if value is None else ""
        raise InputError(f"reports {name!r}: expected a number, or a dict of numbers, got {got}{hint}")
    return float(array)


def _real(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating))
