"""The compiled programs of a run: a chunk of training steps, an evaluation, and what keeps the best.

All are pure functions of arrays, so `jax.jit` compiles a run, `jax.vmap` a sweep, and shardings scale them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fdl.core import abstract_key, fold
from fdl.data.dataset import Dataset
from fdl.metrics.mean import Mean
from fdl.training.experiment import Experiment
from fdl.training.precision import compute_copy
from fdl.training.recipe import Hyper, Recipe
from fdl.training.reports import check_outputs
from fdl.training.step import Metrics, TrainState
from fdl.training.sums import Sums, added, numbers, of_batch, reduce

TOGETHER = "together"
"""The name of the axis of members that take each step together."""


class Carry(NamedTuple):
    """What goes from chunk to chunk, donated: the train state, and the order of the examples in this epoch."""

    train: TrainState
    order: jax.Array


def init_carry(recipe: Recipe, key: jax.Array, hyper: Hyper) -> Carry:
    """The carry before step 0. Each epoch's first step replaces the order, so that zeros do here."""
    order = jax.eval_shape(lambda: epoch_order(recipe.experiment, key, 0))
    return Carry(recipe.at(hyper).update().init(key), jnp.zeros(order.shape, order.dtype))


def epoch_order(experiment: Experiment, key: jax.Array, epoch: Any) -> jax.Array:
    """The order of the training examples in an epoch: a pure function of (seed, epoch)."""
    return experiment.dataset.order(fold(key, "order", epoch), experiment.batch_size)


Advance = Callable[[Carry, Any, jax.Array, Hyper, Any, Any], tuple[Carry, Metrics]]


def make_advance(recipe: Recipe) -> Advance:
    """`advance(carry, arrays, key, hyper, start, j) -> (carry, metrics)`: step start + j, the j-th of its chunk."""
    experiment = recipe.experiment
    dataset, per_epoch = experiment.dataset, experiment.steps_per_epoch()

    def advance(carry: Carry, arrays: Any, key: jax.Array, hyper: Hyper, start: Any, j: Any) -> tuple[Carry, Metrics]:
        i, order = start + j, carry.order
        position = j if dataset.streamed else i % per_epoch
        if order.size:
            # The sort behind a permutation may cost more than a step: cond keeps it to the first step of an epoch.
            order = lax.cond(
                position == 0,
                lambda order: epoch_order(experiment, key, i // per_epoch),
                lambda order: order,
                order,
            )
        batch = dataset.batch(arrays, order, position, experiment.batch_size)
        train, metrics = recipe.at(hyper).update()(carry.train, batch, fold(key, "step", i))
        return Carry(train, order), metrics

    return advance


def make_chunk(
    recipe: Recipe, carry: Carry, capacity: int, together: bool = False, stops: bool = False
) -> tuple[Callable[..., tuple[Carry, jax.Array]], list[str]]:
    """`chunk(carry, arrays, key, hyper, start, count, stopped) -> (carry, history)`, and the history's columns.

    One executable serves every `count <= capacity`, because the number of steps is an argument of the loop; a history
    [capacity, names] holds the metrics of the steps done in its first `count` rows. Packing them into one array
    matters: many small leaves in a loop's carry cost more than a small model's step.

    Of `carry` only shapes are looked at.
    A run that has stopped takes no step. Of many `together`, where any ever `stops`, each step is taken, and dropped by
    those that have, until all have: their loop must keep one count for all, or every `cond` in it would be a select.
    """
    dataset, zero = recipe.experiment.dataset, np.int32(0)
    # Traced once: here for the names of its metrics, which the history needs to know, and inlined in the loop.
    advance = jax.jit(make_advance(recipe), inline=True)
    arguments = carry, dataset.arrays, abstract_key(), recipe.values(), zero, zero
    names = sorted(jax.eval_shape(advance, *arguments)[1])

    def chunk(
        carry: Carry, arrays: Any, key: jax.Array, hyper: Hyper, start: Any, count: Any, stopped: Any
    ) -> tuple[Carry, jax.Array]:
        def body(j: Any, loop: tuple[Carry, jax.Array]) -> tuple[Carry, jax.Array]:
            carry, history = loop
            new, metrics = advance(carry, arrays, key, hyper, start, j)
            row = jnp.array([metrics[name].astype(jnp.float32) for name in names], jnp.float32)
            if together and stops:
                new = jax.tree.map(lambda n, o: jnp.where(stopped, o, n), new, carry)
            return new, lax.dynamic_update_index_in_dim(history, row, j, 0)

        empty = jnp.zeros((capacity, len(names)), jnp.float32)
        over = lax.pmin(stopped.astype(jnp.int32), TOGETHER) if together else stopped
        return lax.fori_loop(zero, jnp.where(over, 0, count), body, (carry, empty))

    return chunk, names


def make_pass(recipe: Recipe, now: TrainState, name: str, dataset: Dataset) -> tuple[Callable[..., Any], list[str]]:
    """`evaluate(train_state, arrays, key, hyper) -> (sums [batches, names, 2], outputs)`, and the names.

    Sums are (total, count). The last, partial batch is padded to the size of the others and masked. The caller adds
    the batches in float64, so that a figure does not depend on the batch size beyond the rounding within a batch.
    Metrics of a whole batch (statistics, scalars) cannot be masked: of the last batch they see the real rows alone.
    Statistics are merged here; each of their numbers is a name of its own, with the sums (number, 1) in batch 0.
    Outputs, [batches, B, ...] with the rows of the padding, are None unless the experiment has reports.
    Of `now` only shapes are looked at.
    """
    batch_size = recipe.experiment.evaluation_batch_size()
    batches, left = dataset.num_eval_batches(batch_size), rest_of(dataset, batch_size)

    @partial(jax.jit, inline=True, static_argnames="rows")  # traced once, as a training step is
    def one(
        params: Any, state: Any, arrays: Any, key: jax.Array, hyper: Hyper, number: Any, rows: int | None = None
    ) -> tuple[Sums, Any]:
        experiment = recipe.at(hyper)
        objective: Any = experiment.task.objective
        batch, mask = dataset.eval_batch(arrays, number, batch_size)
        if rows is not None:
            batch, mask = jax.tree.map(lambda leaf: leaf[:rows], (batch, mask))
        key = fold(key, f"eval/{name}", number)
        outcome = objective(params, state, batch, key=key, train=False)
        sums = reduce(outcome, mask)
        if experiment.reports:
            check_outputs(outcome.outputs, None if mask is None else mask.shape[0])
        return sums, outcome.outputs if experiment.reports else None

    def parameters(now: TrainState, hyper: Hyper) -> Any:
        experiment = recipe.at(hyper)
        return compute_copy(evaluated_params(experiment, now), experiment.precision)

    def evaluate(now: TrainState, arrays: Any, key: jax.Array, hyper: Hyper) -> Any:
        params = parameters(now, hyper)

        def body(total: Sums, number: Any) -> tuple[Sums, Any]:
            sums, outputs = one(params, now.state, arrays, key, hyper, number)
            more = added(total, {name: sums[name] for name in total})
            if left:
                more = jax.tree.map(lambda new, old: jnp.where(number == batches - 1, old, new), more, total)
            return more, (jnp.stack([sums[name].packed() for name in names]), outputs)

        total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), statistics)
        total, (sums, outputs) = lax.scan(body, total, jnp.arange(batches, dtype=jnp.int32))
        if left and (whole or statistics):
            last = one(params, now.state, arrays, key, hyper, np.int32(batches - 1), rows=left)[0]
            total = added(total, {name: last[name] for name in total})
            for name in whole:
                sums = sums.at[-1, names.index(name)].set(last[name].packed())
        return with_numbers(sums, numbers(total)), outputs

    hyper = recipe.values()
    params = jax.eval_shape(parameters, now, hyper)
    found = jax.eval_shape(one, params, now.state, dataset.arrays, abstract_key(), hyper, np.int32(0))[0]
    statistics = {name: found[name] for name in sorted(found) if not isinstance(found[name], Mean)}
    names = sorted(found.keys() - statistics.keys())
    whole = [name for name in names if of_batch(found[name])]
    jax.eval_shape(numbers, found)  # no two of one name
    return evaluate, [*names, *sorted(jax.eval_shape(numbers, statistics))]


def rest_of(dataset: Dataset, batch_size: int | None) -> int:
    """The real rows of the last evaluation batch, where it has padding as well; else 0."""
    mask = jax.eval_shape(lambda arrays: dataset.eval_batch(arrays, np.int32(0), batch_size), dataset.arrays)[1]
    return 0 if mask is None else len(dataset) % mask.shape[0]  # pyright: ignore[reportArgumentType]


def with_numbers(sums: jax.Array, numbers: dict[str, jax.Array]) -> jax.Array:
    """Sums [batches, names, 2] with further names, in alphabetical order: each a number, the mean of itself."""
    if not numbers:
        return sums
    pairs = jnp.stack([jnp.stack([numbers[name].astype(jnp.float32), jnp.float32(1)]) for name in sorted(numbers)])
    return jnp.concatenate([sums, jnp.zeros((len(sums), *pairs.shape)).at[0].set(pairs)], 1)


def evaluated_params(experiment: Experiment, now: TrainState) -> Any:
    """The parameters that evaluation uses, and that a result holds: averaged ones, where the experiment says so."""
    if experiment.eval_params is None:
        return now.params
    return experiment.eval_params(now.params, now.opt_state)
