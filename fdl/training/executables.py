"""The programs of a run, compiled: for one run, or for many side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fdl.data.stream import Stream
from fdl.errors import InputError, did_you_mean
from fdl.training.compiling import Program, compiled, compiled_quickly
from fdl.training.executable_cache import compile_once, later, lower
from fdl.training.experiment import Experiment
from fdl.training.programs import (
    TOGETHER,
    Carry,
    evaluated_params,
    init_carry,
    make_advance,
    make_chunk,
    make_pass,
)
from fdl.training.recipe import Hyper, Recipe
from fdl.training.selection import Selection, halve, select, start
from fdl.training.step import TrainState

CAPACITY = 8192  # most steps of one chunk: its history buffer stays a few hundred KiB
ENOUGH = 1e8  # FLOPs of a step that keep a CPU core busy, so that a call of an operation costs little beside its work


class Programs:
    """Everything compiled, and the data on the device: what runs with other keys and other floats share.

    Args:
      recipe: the experiment.
      key, hyper: those of a run, or of as many members as will train side by side, with a leading axis for them.
      chunk: most steps of a chunk; None = as many as one buffer of history holds.
      members: whether there is that axis.
      mesh: devices that members are divided over, along its axis "members".
      tile: members that take a step together on a device, in turn with the others there; None = all of them.
      stops: whether members may be stopped from outside, as halving does.

    Attributes:
      chunk, names: the program, and what it measures; `capacity` steps at most.
      evaluations: set -> (program, names).
      choose: keeps the best, where the experiment selects.
      arrays: set -> arrays on the device.
      records, seconds: what compiling took.
    """

    def __init__(
        self,
        recipe: Recipe,
        key: jax.Array,
        hyper: Hyper,
        chunk: int | None = None,
        members: bool = False,
        mesh: Mesh | None = None,
        tile: int | None = None,
        stops: bool = False,
    ) -> None:
        started = time.perf_counter()
        self.recipe, self.members, self.mesh, self.tile = recipe, members, mesh, tile
        self.stops = stops or recipe.experiment.patience is not None
        self.records: tuple[Program, ...] = ()
        self._halve: Any = None
        self._evaluated: Any = None
        self._place()
        experiment = recipe.experiment
        dataset, total = experiment.dataset, experiment.total_steps()
        ends = (chunk, experiment.eval_every, experiment.checkpoint_every)  # no chunk goes beyond the first of them
        most = min(CAPACITY, total, *(end for end in ends if end is not None))
        self.capacity = dataset.capacity(most) if isinstance(dataset, Stream) else most
        self._compile(key, hyper, total)
        self.seconds = time.perf_counter() - started

    def begin(self, key: jax.Array, hyper: Hyper) -> tuple[Carry, Selection | None]:
        """The carry before step 0, and the selection before the first evaluation."""
        carry = self._init.result()(key, hyper)
        return carry, None if self.choose is None else self._start(carry.train, hyper)

    def halve(self, best: Selection, keep: int, members: int) -> tuple[Selection, jax.Array]:
        """Stops all members but the `keep` best, see `selection.halve`; and who has stopped."""
        if self._halve is None:
            function = partial(halve, mode=self.recipe.experiment.mode)
            shape = best, np.int32(keep), np.int32(members)
            lowered = lower(function, *shape, donate_argnums=0, out_shardings=self._shared())
            self._halve = compile_once(lowered)[0].call
        best = self._halve(best, np.int32(keep), np.int32(members))
        return best, jnp.copy(best.stopped)

    def finish(self, now: TrainState, hyper: Hyper) -> Any:
        """The parameters that evaluation uses: those of the train state, or an average."""
        recipe = self.recipe
        if recipe.experiment.eval_params is None:
            return now.params
        if self._evaluated is None:
            self._evaluated = self._once(lambda now, hyper: evaluated_params(recipe.at(hyper), now), (0, 0), now, hyper)
        return self._evaluated(now, hyper)

    def _place(self) -> None:
        """Every array on the device once, however many views of it there are."""
        placed: dict[int, jax.Array] = {}

        def place(leaf: Any) -> jax.Array:
            if id(leaf) not in placed:
                placed[id(leaf)] = jax.device_put(leaf, self._everywhere())
            return placed[id(leaf)]

        experiment = self.recipe.experiment
        self.arrays: dict[str, Any] = {}
        for name, dataset in {"train": experiment.dataset, **experiment.evaluate}.items():
            if not dataset.streamed:
                self.arrays[name] = {k: jax.tree.map(place, v) for k, v in dataset.arrays.items()}

    def _everywhere(self) -> Any:
        return None if self.mesh is None else NamedSharding(self.mesh, P())

    def _compile(self, key: jax.Array, hyper: Hyper, total: int) -> None:
        recipe, experiment, zero = self.recipe, self.recipe.experiment, np.int32(0)
        arrays = self.arrays.get("train")
        if experiment.dataset.streamed:
            one = experiment.dataset.arrays
            arrays = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.capacity, *x.shape[1:]), x.dtype), one)
        init = self._lowered(partial(init_carry, recipe), (0, 0), key, hyper)
        self._init = later(partial(compiled_quickly, init))
        carry = init.out_info
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[key.ndim :], x.dtype), carry)
        chunk, self.names = make_chunk(recipe, one, self.capacity, self.members, self.stops)
        stopped = jax.ShapeDtypeStruct(key.shape, bool)
        arguments = (carry, arrays, key, hyper, zero, zero, stopped)
        axes = (0, None, 0, 0, None, None, 0)
        self.chunk = self._compiled("chunk", chunk, axes, *arguments, steps=total, donate_argnums=0)
        self.evaluations: dict[str, tuple[Any, list[str]]] = {}
        for name, dataset in experiment.evaluate.items():
            evaluate, names = make_pass(recipe, one.train, name, dataset)
            arguments = (carry.train, self.arrays[name], key, hyper)
            program = self._compiled(f"evaluate/{name}", evaluate, (0, None, 0, 0), *arguments)
            self.evaluations[name] = (program, names)
        self.choose = None if experiment.select is None else self._selection(carry.train, hyper)

    def _selection(self, now: Any, hyper: Hyper) -> Any:
        at, (set_name, column) = self.recipe.at, self._selected()

        def choose(
            best: Selection, sums: jax.Array, step: jax.Array, now: TrainState, hyper: Hyper
        ) -> tuple[Selection, jax.Array]:
            experiment = at(hyper)
            total, count = sums[:, column].sum(0)
            value = total / jnp.where(count == 0, 1, count)
            params = evaluated_params(experiment, now)
            options = experiment.mode, experiment.patience, experiment.min_delta
            best = select(best, value, step, params, now.state, *options)
            return best, jnp.copy(best.stopped)  # a copy, as the selection is donated to the next choice

        def begin(now: TrainState, hyper: Hyper) -> Selection:
            experiment = at(hyper)
            return start(evaluated_params(experiment, now), now.state, experiment.mode)

        lowered = self._lowered(begin, (0, 0), now, hyper)
        self._start, best = compile_once(lowered)[0].call, lowered.out_info
        sums = self.evaluations[set_name][0].out_info[0]
        arguments = (best, sums, np.int32(0), now, hyper)
        return self._compiled("select", choose, (0, 0, None, 0, 0), *arguments, donate_argnums=0)

    def _selected(self) -> tuple[str, int]:
        """The evaluation set, and the column of its sums, that selection goes by."""
        measured = [f"{name}/{metric}" for name, (_, names) in self.evaluations.items() for metric in names]
        wanted = self.recipe.experiment.select or ""
        if wanted not in measured:
            raise InputError(f"select: no evaluation measures {wanted!r}{did_you_mean(wanted, measured)}")
        set_name, metric = wanted.split("/", 1)
        return set_name, self.evaluations[set_name][1].index(metric)

    def _compiled(self, name: str, function: Callable[..., Any], axes: Any, *arguments: Any, **options: Any) -> Any:
        if self.mesh is not None:
            options["in_shardings"] = tuple(NamedSharding(self.mesh, spec) for spec in _specs(axes))
            options["out_shardings"] = self._shared()
        program, record = compiled(name, self._lift(function, axes), *arguments, **options)
        self.records += (record,)
        return program

    def _shared(self) -> Any:
        """How the members are divided: said of every output, as XLA chooses another way for arrays without elements."""
        return None if self.mesh is None else NamedSharding(self.mesh, P("members"))

    def _lowered(self, function: Callable[..., Any], axes: Any, *arguments: Any) -> Any:
        return lower(self._lift(function, axes), *arguments, out_shardings=self._shared())

    def _once(self, function: Callable[..., Any], axes: Any, *arguments: Any) -> Any:
        return compile_once(self._lowered(function, axes, *arguments))[0].call

    def _lift(self, function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
        """The function of one run as that of many: axis 0 of these arguments counts them, the others are shared."""
        if not self.members:
            return function
        lifted = jax.vmap(function, in_axes=axes, axis_name=TOGETHER)
        if self.tile is not None:
            lifted = _in_turn(lifted, axes, self.tile)
        if self.mesh is None:
            return lifted
        return jax.shard_map(lifted, mesh=self.mesh, in_specs=_specs(axes), out_specs=P("members"), check_vma=False)


def _in_turn(function: Callable[..., Any], axes: tuple[int | None, ...], size: int) -> Callable[..., Any]:
    """A function of members as a loop over `size` of them at a time; `size` divides their number."""

    def looped(*arguments: Any) -> Any:
        mine = [a for a, axis in zip(arguments, axes, strict=True) if axis == 0]
        tiles = jax.tree.map(lambda x: x.reshape(len(x) // size, size, *x.shape[1:]), mine)

        def one(tile: list[Any]) -> Any:
            members = iter(tile)
            return function(*(a if axis is None else next(members) for a, axis in zip(arguments, axes, strict=True)))

        # -1 for the number of members would be undetermined where an array has no elements.
        return jax.tree.map(lambda x: x.reshape(len(x) * size, *x.shape[2:]), lax.map(one, tiles))

    return looped


def side_by_side(recipe: Recipe) -> int | None:
    """Members that are worth a step together on one device; None = as many as there are.

    An accelerator has room for all of them. On a CPU that pays while operations are so small that calling them costs
    more than their work; beyond that, members in turn keep their arrays in the core's cache.
    """
    if jax.default_backend() != "cpu":
        return None
    advance, arrays = make_advance(recipe), recipe.experiment.dataset.arrays

    def step(key: jax.Array, hyper: Hyper, arrays: Any) -> Any:
        return advance(init_carry(recipe, key, hyper), arrays, key, hyper, 0, 0)

    flops = (jax.jit(step).lower(jax.random.key(0), recipe.values(), arrays).cost_analysis() or {}).get("flops", 0.0)
    return max(1, round(ENOUGH / max(flops, 1.0)))


def _specs(axes: tuple[int | None, ...]) -> tuple[P, ...]:
    return tuple(P() if axis is None else P("members") for axis in axes)


def selected_set(experiment: Experiment) -> str:
    """The evaluation set that `select` names."""
    return (experiment.select or "").split("/")[0]
