"""What can be known to be wrong before anything is compiled.

A compiled program cannot raise on bad data: a label out of range gives NaN or nonsense. So the objective is traced
once on real rows, its targets concrete and everything else abstract: losses and embeddings then see the very labels and
ids, and refuse them. Nothing is computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.core import abstract_key, fold
from fdl.data.auditing import require_finite
from fdl.data.dataset import Dataset
from fdl.errors import InputError
from fdl.training.experiment import Experiment
from fdl.training.reports import check_names, check_outputs
from fdl.training.sums import numbers, reduce

FEW = 1 << 16
PLACE = re.compile(r" at index (?:\(0(?:, )?([\d, ]*)\)|(\d+))")
"""How the errors of losses and layers say where a value is in the batch; here in a batch of one row."""


def rehearse(experiment: Experiment, training: bool = True) -> dict[str, list[str]]:
    """Checks every dataset of the experiment against its objective; without `training`, those to evaluate on.

    Returns:
      For each of those, the names of the metrics of the objective.

    Raises:
      InputError: values that are not finite; whatever the objective, its layers and losses refuse in the real rows,
        which the error names; outputs and reports that do not fit.
    """
    sets = {"train": experiment.dataset} if training else {}
    for name, dataset in (sets | dict(experiment.evaluate)).items():
        require_finite(name, dataset)
    made = jax.eval_shape(experiment.task.init, abstract_key())
    if not isinstance(made, tuple | list) or len(made) != 2:
        got = f"{len(made)} values" if isinstance(made, tuple | list) else f"a {type(made).__name__}"
        raise InputError(f"Task: init: expected it to return (params, state), with {{}} for no state, got {got}")
    params, state = made
    if training and experiment.task.step is None:
        _trace(experiment, "train", experiment.dataset, params, state, train=True)
    return {
        name: _trace(experiment, name, dataset, params, state, train=False)
        for name, dataset in experiment.evaluate.items()
    }


def _trace(experiment: Experiment, name: str, dataset: Dataset, params: Any, state: Any, train: bool) -> list[str]:
    """The names of the metrics of one set."""
    batch, rows = dataset.sample(experiment.batch_size if train else experiment.evaluation_batch_size())
    try:
        return _traced(experiment, batch, len(rows), params, state, train)
    except InputError as error:

        def refused(places: Sequence[int]) -> InputError | None:
            try:
                part = jax.tree.map(lambda leaf: leaf[np.asarray(places)], batch)
                _traced(experiment, part, len(places), params, state, train)
            except InputError as error:
                return error
            except (TypeError, ValueError, IndexError):  # of a model that takes no other size of a batch
                return None
            return None

        placed = bool(rows) and PLACE.search(str(error)) is not None
        found = _culprit(refused, list(range(len(rows)))) if placed else None
        if found is not None:
            refusal = InputError(_renamed(str(found[1]), f"row {rows[found[0]]} of {name!r}"))
            for note in getattr(error, "__notes__", ()):  # the path of the layer, and the shapes up to it
                refusal.add_note(note)
            raise refusal from error
        whose = "the batch of step 0 of" if dataset.streamed else "the set"
        error.add_note(f"in {whose} {name!r}" + (f"; indices 0, 1, ... are its {_listed(rows)}" if placed else ""))
        raise


def _traced(experiment: Experiment, batch: Any, rows: int, params: Any, state: Any, train: bool) -> list[str]:
    flat, tree = jax.tree.flatten(batch)
    # Placed outside the trace, or they would be traced as well.
    placed = [jax.device_put(leaf) if _seen(leaf) else None for leaf in flat]
    abstract = [leaf for leaf, mine in zip(flat, placed, strict=True) if mine is None]

    def objective(params: Any, state: Any, abstract: list[Any], key: jax.Array) -> Any:
        rest = iter(abstract)
        real = tree.unflatten([next(rest) if mine is None else mine for mine in placed])
        if train and experiment.augment is not None:
            real = experiment.augment(real, fold(key, "augment"))
        outcome: Any = experiment.task.objective(params, state, real, key=key, train=train)  # pyright: ignore
        found = numbers(reduce(outcome, jnp.ones(rows, bool) if rows else None))
        if experiment.reports and not train:
            check_outputs(outcome.outputs, rows or None)
            check_names(experiment.reports, found)
        return found

    return list(jax.eval_shape(objective, params, state, abstract, abstract_key()))


def _culprit(refused: Any, places: list[int]) -> tuple[int, InputError] | None:
    """The first row that is refused by itself, and how; None where only several together are."""
    while len(places) > 1:
        half = len(places) // 2
        places = next((part for part in (places[:half], places[half:]) if refused(part) is not None), [])
    error = refused(places) if places else None
    return None if error is None else (places[0], error)


def _renamed(message: str, row: str) -> str:
    """The message with the row of the set in the place of an index into the batch."""

    def said(match: re.Match[str]) -> str:
        inside = match[1] or (match[2] if match[2] != "0" else "")
        return f" in {row}" + (f", at index {inside if ',' not in inside else f'({inside})'} of it" if inside else "")

    return PLACE.sub(said, message)


def _listed(rows: Sequence[int]) -> str:
    return f"rows {', '.join(map(str, rows[:8]))}{', ...' if len(rows) > 8 else ''}"


def _seen(leaf: Any) -> bool:
    """Whether values are looked at: integers, and floats that are few enough to be targets rather than images."""
    return np.issubdtype(leaf.dtype, np.integer) or leaf.size <= FEW
