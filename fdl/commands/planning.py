"""How much a run takes: its programs compiled at shapes, their memory read off, nothing allocated."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax

from fdl.commands.shapes import abstracted
from fdl.core import abstract_key
from fdl.data.stream import AHEAD, Stream
from fdl.errors import InputError
from fdl.training.compiling import Program, compiled
from fdl.training.executables import Programs
from fdl.training.experiment import Experiment
from fdl.training.programs import evaluated_params, init_carry
from fdl.training.recipe import Recipe, settled

TRIES = 7  # compilations of a search for the largest batch


class Plan(NamedTuple):
    """What a run takes.

    Args:
      kept: what is on the device from the start to the end -> bytes.
      temporaries: program -> bytes while it runs: activations, gradients, what it returns.
      programs: as a run notes them.
      device: where it was compiled for.
    """

    kept: dict[str, int]
    temporaries: dict[str, int]
    programs: tuple[Program, ...]
    device: str

    @property
    def most(self) -> int:
        """Bytes at the worst moment."""
        return sum(self.kept.values()) + max(self.temporaries.values())


class Planned(Programs):
    """The programs of a run, compiled without a single array on the device."""

    def _place(self) -> None:
        sets = {"train": self.recipe.experiment.dataset, **self.recipe.experiment.evaluate}
        self.arrays = {name: abstracted(dataset.arrays) for name, dataset in sets.items() if not dataset.streamed}


def plan(recipe: Recipe) -> Plan:
    """The plan of an experiment: the very programs that a run compiles.

    Raises:
      InputError: whatever is wrong with the experiment's shapes.
    """
    key, experiment = abstract_key(), recipe.experiment
    programs, _ = settled(recipe, lambda recipe: Planned(recipe, key, jax.eval_shape(recipe.values)))
    hyper = jax.eval_shape(programs.recipe.values)
    begin = partial(init_carry, programs.recipe)
    init, record = compiled("init", begin, key, hyper)
    carry = jax.eval_shape(begin, key, hyper)
    executables = {"chunk": programs.chunk} | {f"evaluate/{n}": e for n, (e, _) in programs.evaluations.items()}
    temporaries = {name: _temporaries(executable) for name, executable in executables.items()}
    temporaries["init"] = max(0, _temporaries(init) - _bytes(carry))  # it returns what is kept
    dataset, streamed = experiment.dataset, 0
    if isinstance(dataset, Stream):
        streamed = (AHEAD + 2) * programs.capacity * _bytes(abstracted(dataset.arrays))
    kept = _kept(experiment, carry, _data(experiment) + streamed)
    return Plan(kept, temporaries, (record, *programs.records), jax.devices()[0].device_kind)


class Fit(NamedTuple):
    """The largest batch that was found to fit, whether that is all examples, and the smallest found not to fit."""

    batch: int
    bytes: int
    everything: bool
    beyond: int | None


def largest_batch(recipe: Recipe, limit: int, first: Plan) -> Fit | None:
    """The largest batch whose run stays within `limit` bytes; None where not even one fits.

    Bytes grow nearly linearly in the batch: a line through what is known proposes the next size, which is compiled,
    until a size fits and the next one does not.
    """
    experiment = recipe.experiment
    unit, everything = experiment.accumulate, examples(experiment)
    last = everything // unit
    start = (experiment.batch_size or everything) // unit
    known = {start: first.most}  # bytes by number of units
    low, high = (start, last + 1) if first.most <= limit else (0, start)
    while high - low > 1 and len(known) < TRIES:
        units = min(max(_guess(known, limit, start), low + 1), high - 1)
        other = dataclasses.replace(experiment, batch_size=units * unit)
        known[units] = plan(dataclasses.replace(recipe, experiment=other)).most
        low, high = (units, high) if known[units] <= limit else (low, units)
    if not low:
        return None
    return Fit(low * unit, known[low], low == last, high * unit if high in known else None)


def _guess(known: dict[int, int], limit: int, start: int) -> int:
    """Where the line through the two points nearest to the limit crosses it; with one point, a second one."""
    if len(known) == 1:
        return 2 * start if known[start] <= limit else start // 2
    (a, at_a), (b, at_b) = sorted(known.items(), key=lambda point: abs(point[1] - limit))[:2]
    slope = (at_b - at_a) / (b - a)
    return int(a + (limit - at_a) / slope) if slope > 0 else (2 * max(a, b) if at_a <= limit else min(a, b) // 2)


def examples(experiment: Experiment) -> int:
    """How many there are to make batches of.

    Raises:
      InputError: data that has no batch size.
    """
    dataset: Any = experiment.dataset
    if not hasattr(dataset, "__len__"):
        raise InputError(
            f"--memory: the training data is {type(dataset).__name__}, which has no batch size to choose; "
            "fdl plan without --memory shows what its batches take"
        )
    return len(dataset)


def _kept(experiment: Experiment, carry: Any, data: int) -> dict[str, int]:
    now = carry.train
    best = (jax.eval_shape(partial(evaluated_params, experiment), now), now.state) if experiment.select else ()
    return {
        "parameters": _bytes(now.params),
        "optimizer state": _bytes(now.opt_state),
        "statistics": _bytes(now.state),
        "best so far (select)": _bytes(best),
        "order of the examples": _bytes(carry.order),
        "data": data,
    }


def _data(experiment: Experiment) -> int:
    """Every array once, however many views of it there are, as a run places them."""
    sets = [dataset for dataset in (experiment.dataset, *experiment.evaluate.values()) if not dataset.streamed]
    leaves = {id(leaf): leaf for dataset in sets for leaf in jax.tree.leaves(dataset.arrays)}
    return _bytes(abstracted(list(leaves.values())))


def _temporaries(executable: Any) -> int:
    """Memory of a program beside its arguments; outputs that take the place of donated arguments cost nothing."""
    memory = executable.memory_analysis()
    size = {kind: int(getattr(memory, f"{kind}_size_in_bytes", 0)) for kind in ("temp", "output", "alias")}
    return size["temp"] + size["output"] - size["alias"]


def _bytes(tree: Any) -> int:
    """Of abstract arrays; a key is that of its data."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        total += leaf.size * leaf.dtype.itemsize
    return total
