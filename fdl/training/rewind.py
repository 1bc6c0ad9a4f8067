"""Back to the step that went wrong: as every step is a pure function, the state before it is computed again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdl import data
from fdl.core import fold
from fdl.data.stream import Stream, read_chunk
from fdl.training.executables import Programs
from fdl.training.experiment import Experiment
from fdl.training.programs import Carry, epoch_order
from fdl.training.recipe import Hyper
from fdl.training.snapshot import flat, put
from fdl.training.step import TrainState

Arrays = Mapping[str, np.ndarray]
TRAINED = ("train/params", "train/state")


class Moment(NamedTuple):
    """One step of a run, with all that it is a function of.

    Args:
      step: its number, counted from 1.
      now: the state before it.
      batch: as the dataset gives it, before `augment`.
      key: of the step.
      examples: where the rows of the batch are in the training set; None where there are no such places.
      experiment: the experiment with the values of this run.
      member: of a sweep, its number among those side by side; None for a run.
    """

    step: int
    now: TrainState
    batch: Any
    key: jax.Array
    examples: np.ndarray | None
    experiment: Experiment
    member: int | None = None


class Kept(NamedTuple):
    """The carry after so many steps, on the host, by path."""

    step: int
    arrays: Arrays


def rewound(
    programs: Programs, key: jax.Array, hyper: Hyper, kept: Kept, failed: int, member: tuple[int, ...]
) -> Moment:
    """The step up to `failed` (counted from 1) before which the state of a member was finite for the last time.

    Half of the steps in question are taken again, then half of what is left: fewer than `failed - kept.step` in all.
    The executable is the one that took them first, so that they come out as they did.
    """
    template = programs.begin(key, hyper)[0]
    low, high = kept, failed  # finite after `low`; after `high` the state is not, or the loss of that step was not
    while high - low.step > 1:
        middle = Kept((low.step + high) // 2, {})
        middle = middle._replace(
            arrays=_advanced(programs, key, hyper, put(template, low.arrays, "")[0], low, middle.step)
        )
        if _finite(middle.arrays, kept.arrays, member):
            low = middle
        else:
            high = middle.step
    carry = put(template, low.arrays, "")[0]
    values = {name: value[member].item() for name, value in hyper.items()}
    experiment = programs.recipe.at(values)
    now = jax.tree.map(lambda leaf: leaf[member] if member else leaf, carry.train)
    mine = jax.random.wrap_key_data(jax.random.key_data(key)[member], impl=jax.random.key_impl(key))
    batch, examples = batch_of(experiment, programs.arrays.get("train"), mine, low.step)
    key, number = fold(mine, "step", low.step), member[0] if member else None
    if programs.mesh is not None:  # one member is work for one device
        now, batch, key = jax.device_put((now, batch, key), programs.mesh.devices.flat[0])
    return Moment(low.step + 1, now, batch, key, examples, experiment, number)


def _advanced(programs: Programs, key: jax.Array, hyper: Hyper, carry: Carry, start: Kept, stop: int) -> Arrays:
    """The carry after `stop` steps, as arrays by path."""
    dataset, step = programs.recipe.experiment.dataset, start.step
    going = np.zeros(key.shape, bool)
    while step < stop:
        count = min(stop - step, programs.capacity)
        streamed = isinstance(dataset, Stream)
        arrays = read_chunk(dataset, programs.capacity, step, count) if streamed else programs.arrays["train"]
        carry, _ = programs.chunk(carry, arrays, key, hyper, np.int32(step), np.int32(count), going)
        step += count
    return flat(carry)


def _finite(arrays: Arrays, before: Arrays, member: tuple[int, ...]) -> bool:
    """Whether what a step trains is finite wherever it was at first: a state may hold an infinity on purpose."""
    names = [name for name in arrays if name.startswith(TRAINED) and jnp.issubdtype(arrays[name].dtype, jnp.inexact)]
    return all(np.isfinite(arrays[n][member]).all() for n in names if np.isfinite(before[n][member]).all())


def batch_of(experiment: Experiment, arrays: Any, key: jax.Array, step: int) -> tuple[Any, np.ndarray | None]:
    """The batch of a step (counted from 0), and where its rows are in the training set."""
    dataset, size = experiment.dataset, experiment.batch_size
    if isinstance(dataset, Stream):
        return dataset.read(step), None
    per_epoch = experiment.steps_per_epoch()
    order, position = epoch_order(experiment, key, step // per_epoch), step % per_epoch
    batch = dataset.batch(arrays, order, position, size)
    places = np.asarray(order if size is None else order[position * size : (position + 1) * size])
    if size is None and isinstance(dataset, data.Arrays):  # all of them, for which no order is kept
        places = np.arange(len(dataset))
    return batch, places if len(places) else None
