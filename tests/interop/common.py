"""What the tests of all three libraries share: data that no batch size divides, and one experiment."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax

import fdl
from fdl.training.programs import epoch_order
from fdl.training.run import run_key
from fdl.training.task import Model

WIDTH = 7
METRICS = {"accuracy": fdl.metrics.accuracy}


def arrays(n: int = 43, seed: int = 0) -> fdl.data.Arrays:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 5)).astype(np.float32)
    return fdl.data.Arrays(x=x, y=(x.sum(1) > 0).astype(np.int32))


def experiment(model: Any, **changes: Any) -> fdl.Experiment:
    """12 steps of 10 rows, 4 a epoch."""
    settings: dict[str, Any] = {
        "task": fdl.supervised(model, fdl.losses.softmax_cross_entropy, METRICS),
        "optimizer": optax.sgd(0.1, momentum=0.9),
        "train": arrays(),
        "evaluate": {"test": arrays(13, seed=1)},
        "batch_size": 10,
        "num_steps": 12,
    }
    return fdl.Experiment(**(settings | changes))


def first(experiment: fdl.Experiment, seed: int = 0) -> tuple[Any, Any]:
    """params and state before the first step of a run."""
    return experiment.task.init(fdl.fold(run_key(seed), "init"))


def batches(experiment: fdl.Experiment, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray, jax.Array]]:
    """(x, y, key) of each step of a run, picked from the host arrays by the order of its epoch."""
    train, size, per_epoch = experiment.dataset, experiment.batch_size or 1, experiment.steps_per_epoch()
    key, taken = run_key(seed), []
    for step in range(experiment.total_steps()):
        order = np.asarray(epoch_order(experiment, key, step // per_epoch))
        rows = order[step % per_epoch * size :][:size]
        taken.append((train["x"][rows], train["y"][rows], fdl.fold(key, "step", step)))  # pyright: ignore
    return taken


def cross_entropy(logits: jax.Array, y: Any) -> jax.Array:
    """The loss of the hand-written loops: Optax's, and the mean."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def descend(optimizer: Any, params: Any, opt_state: Any, grads: Any) -> tuple[Any, Any]:
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def close(got: Any, want: Any) -> None:
    """To 1e-6: both sum in float32, in another order."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), got, want)


def same_bits(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def plain(tree: Any) -> bool:
    """Whether a tree is nested dicts with names, and arrays."""
    if isinstance(tree, dict):
        return all(isinstance(name, str) and plain(branch) for name, branch in tree.items())
    return isinstance(tree, jax.Array)


def check_modes(model: Model) -> None:
    """Dropout and statistics of a model: on in training, by key; off in evaluation, for any key and for none."""
    params, state = model.init(jax.random.key(0))
    assert plain(params)
    assert plain(state)
    x = arrays()["x"]
    one, another = jax.random.key(1), jax.random.key(2)
    trained, moved = model.apply(params, state, x, key=one, train=True)
    again, _ = model.apply(params, state, x, key=one, train=True)
    other, _ = model.apply(params, state, x, key=another, train=True)
    same_bits(trained, again)
    assert not np.allclose(trained, other)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    assert not any(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(state), strict=True))
    evaluated, kept = model.apply(params, state, x, key=one, train=False)
    same_bits(kept, state)
    for key in (None, another):
        same_bits(model.apply(params, state, x, key=key, train=False)[0], evaluated)
    alone = model.apply(params, moved, x[:1], train=False)[0]  # running statistics: a row does not know its batch
    np.testing.assert_allclose(alone, model.apply(params, moved, x, train=False)[0][:1], rtol=1e-5, atol=1e-6)
