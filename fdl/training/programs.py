"""The two compiled programs of a run: a chunk of training steps, and an evaluation.

Both are pure functions of arrays, so `jax.jit` compiles a run, `jax.vmap` a sweep, and shardings scale them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fdl.core import fold
from fdl.data.dataset import Dataset
from fdl.training.experiment import Experiment
from fdl.training.step import Means, TrainState, init_state, make_step, reduce


class Carry(NamedTuple):
    """What goes from chunk to chunk, donated: the train state, and the order of the examples in this epoch."""

    train: TrainState
    order: jax.Array


def init_carry(experiment: Experiment, key: jax.Array) -> Carry:
    """The carry before step 0. Each epoch's first step replaces the order, so that zeros do here."""
    order = jax.eval_shape(lambda: epoch_order(experiment, key, 0))
    return Carry(init_state(experiment.task, experiment.optimizer, key), jnp.zeros(order.shape, order.dtype))


def epoch_order(experiment: Experiment, key: jax.Array, epoch: Any) -> jax.Array:
    """The order of the training examples in an epoch: a pure function of (seed, epoch)."""
    return experiment.dataset.order(fold(key, "order", epoch), experiment.batch_size)


def make_chunk(experiment: Experiment, capacity: int) -> tuple[Callable[..., tuple[Carry, jax.Array]], list[str]]:
    """`chunk(carry, arrays, key, start, count) -> (carry, history)`, and the names of the history's columns.

    One executable serves every `count <= capacity`, because the number of steps is an argument of the loop; a history
    [capacity, names] holds the metrics of the steps done in its first `count` rows. Packing them into one array
    matters: many small leaves in a loop's carry cost more than a small model's step.
    """
    per_epoch = experiment.steps_per_epoch()
    step = make_step(experiment.task, experiment.optimizer, experiment.augment)

    def advance(carry: Carry, arrays: Any, key: jax.Array, i: Any) -> tuple[Carry, Means]:
        position = i % per_epoch
        # The sort behind a permutation may cost more than a step: cond keeps it to the first step of an epoch.
        order = lax.cond(
            position == 0, lambda order: epoch_order(experiment, key, i // per_epoch), lambda order: order, carry.order
        )
        batch = experiment.dataset.batch(arrays, order, position, experiment.batch_size)
        train, means = step(carry.train, batch, fold(key, "step", i))
        return Carry(train, order), means

    def chunk(carry: Carry, arrays: Any, key: jax.Array, start: Any, count: Any) -> tuple[Carry, jax.Array]:
        def body(j: Any, loop: tuple[Carry, jax.Array]) -> tuple[Carry, jax.Array]:
            carry, history = loop
            carry, means = advance(carry, arrays, key, start + j)
            row = jnp.stack([means[name].value().astype(jnp.float32) for name in names])
            return carry, lax.dynamic_update_index_in_dim(history, row, j, 0)

        return lax.fori_loop(0, count, body, (carry, jnp.zeros((capacity, len(names)), jnp.float32)))

    def shapes(arrays: Any, key: jax.Array) -> Means:
        return advance(init_carry(experiment, key), arrays, key, 0)[1]

    names = sorted(jax.eval_shape(shapes, experiment.dataset.arrays, jax.random.key(0)))
    return chunk, names


def make_evaluation(experiment: Experiment, name: str, dataset: Dataset) -> tuple[Callable[..., jax.Array], list[str]]:
    """`evaluate(params, state, arrays, key) -> sums [batches, names, 2]` (total, count), and the names.

    The last, partial batch is padded to the size of the others and masked. The caller adds the sums of the batches in
    float64, so that a figure does not depend on the batch size beyond the rounding within a batch.
    """
    objective = experiment.task.objective

    def one(params: Any, state: Any, arrays: Any, key: jax.Array, number: Any) -> Means:
        batch, mask = dataset.eval_batch(arrays, number, experiment.batch_size)
        key = fold(key, f"eval/{name}", number)
        return reduce(objective(params, state, batch, key=key, train=False), mask)  # pyright: ignore[reportOptionalCall]

    def evaluate(params: Any, state: Any, arrays: Any, key: jax.Array) -> jax.Array:
        def sums(number: Any) -> jax.Array:
            means = one(params, state, arrays, key, number)
            return jnp.stack([means[name].packed() for name in names])

        return lax.map(sums, jnp.arange(dataset.num_eval_batches(experiment.batch_size)))

    def shapes(arrays: Any, key: jax.Array) -> Means:
        return one(*experiment.task.init(key), arrays, key, 0)

    names = sorted(jax.eval_shape(shapes, dataset.arrays, jax.random.key(0)))
    return evaluate, names
