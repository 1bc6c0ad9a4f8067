"""Laws of the engine, on data that the batch does not divide."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from fdl.training.driver import Driver
from fdl.training.run import run_key

N = 103  # prime: no batch size divides it


def arrays(n: int = N, seed: int = 0) -> fdl.data.Arrays:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 5)).astype(np.float32)
    return fdl.data.Arrays(x=x, y=(x.sum(1) > 0).astype(np.int32), weight=random.uniform(0.5, 2, n).astype(np.float32))


def stateful() -> nn.Serial:
    return nn.Serial(nn.Linear(5, 8, use_bias=False), nn.BatchNorm(8), jax.nn.relu, nn.Dropout(0.3), nn.Linear(8, 2))


def experiment(**changes) -> fdl.Experiment:
    task = fdl.supervised(
        stateful(), fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy}, weight="weight"
    )
    settings = {"task": task, "optimizer": optax.adam(1e-2), "train": arrays(), "batch_size": 10, "num_steps": 37}
    settings |= {"evaluate": {"test": arrays(31, seed=1)}, "eval_every": 9}
    return fdl.Experiment(**(settings | changes))


def assert_same_bits(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def reference() -> fdl.Result:
    return fdl.run(experiment())


@pytest.mark.parametrize("chunk", [1, 7, 37, 1000])
def test_any_chunk_gives_the_same_bits(reference, chunk):
    result = fdl.run(experiment(), chunk=chunk)
    assert_same_bits((result.params, result.state), (reference.params, reference.state))
    assert_same_bits(result.history, reference.history)


@pytest.mark.parametrize("eval_every", [1, 10, None])
def test_evaluating_more_or_less_often_changes_nothing(reference, eval_every):
    result = fdl.run(experiment(eval_every=eval_every))
    assert_same_bits(result.params, reference.params)
    assert result.metrics["test/loss"] == reference.metrics["test/loss"]
    assert result.steps["test/loss"][-1] == 37


def test_the_start_of_a_long_run_is_a_short_run(reference):
    short = fdl.run(experiment(num_steps=20))
    for name in ("train/loss", "train/accuracy"):
        np.testing.assert_array_equal(short.history[name], reference.history[name][:20])


def test_history_has_a_value_for_each_step_and_each_evaluation(reference):
    np.testing.assert_array_equal(reference.steps["train/loss"], np.arange(1, 38))
    np.testing.assert_array_equal(reference.steps["test/loss"], [9, 18, 27, 36, 37])
    assert reference.metrics == {name: values[-1] for name, values in reference.history.items()}


def test_the_seed_decides_everything(reference):
    assert_same_bits(fdl.run(experiment(), seed=0).history, reference.history)
    assert (fdl.run(experiment(), seed=1).history["train/loss"] != reference.history["train/loss"]).all()


def test_evaluation_is_exact_for_any_batch_size(reference):
    """Against the mean over all rows at once: the last batch is partial for most sizes."""
    test = arrays(31, seed=1)
    logits, _ = stateful().apply(reference.params, reference.state, test["x"])
    loss = np.asarray(fdl.losses.softmax_cross_entropy(logits, test["y"]), np.float64)
    correct = np.asarray(logits.argmax(-1) == test["y"], np.float64)
    weight = test["weight"].astype(np.float64)
    for batch_size in (1, 10, 100):
        frozen = experiment(batch_size=batch_size, num_steps=1, optimizer=optax.sgd(0.0), task=_at(reference))
        metrics = fdl.run(frozen).metrics
        np.testing.assert_allclose(metrics["test/loss"], (loss * weight).sum() / weight.sum(), rtol=2e-6)
        np.testing.assert_allclose(metrics["test/accuracy"], (correct * weight).sum() / weight.sum(), rtol=2e-6)


def _at(result: fdl.Result) -> fdl.Task:
    """A task that starts at a result, without batch statistics: they would move in the one step."""
    model, loss = stateful(), fdl.losses.softmax_cross_entropy

    def objective(params, state, batch, *, key, train):
        logits, _ = model.apply(params, state, batch["x"])
        accuracy = fdl.metrics.accuracy(logits, batch["y"])
        return fdl.Outcome(loss(logits, batch["y"]), batch["weight"], {"accuracy": accuracy})

    return fdl.Task(lambda key: (result.params, result.state), objective)


def probe(rows_seen: str = "id") -> fdl.Task:
    """Trains nothing; with batch_size=1 its metric is the number of the row."""

    def objective(params, state, batch, *, key, train):
        loss = params * 0.0 + jnp.zeros(batch[rows_seen].shape)
        return fdl.Outcome(loss, metrics={"id": batch[rows_seen].astype(jnp.float32)})

    return fdl.Task(lambda key: (jnp.zeros(()), {}), objective)


def test_an_epoch_is_a_fresh_permutation_without_repeats():
    ids = fdl.data.Arrays(id=np.arange(N))
    run = fdl.run(fdl.Experiment(probe(), optax.sgd(0.1), ids, batch_size=1, num_epochs=3))
    epochs = run.history["train/id"].astype(int).reshape(3, N)
    for epoch in epochs:
        assert sorted(epoch) == list(range(N))
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[1] != epochs[2]).any()


def test_only_full_batches_train():
    ids = fdl.data.Arrays(id=np.arange(7))
    run = fdl.run(fdl.Experiment(probe(), optax.sgd(0.1), ids, batch_size=3, num_epochs=5))
    assert len(run.history["train/id"]) == 5 * (7 // 3)


def test_without_a_batch_size_every_step_sees_all_examples():
    ids = fdl.data.Arrays(id=np.arange(7))
    run = fdl.run(fdl.Experiment(probe(), optax.sgd(0.1), ids, num_epochs=4))
    np.testing.assert_allclose(run.history["train/id"], [3.0] * 4, rtol=1e-6)


def test_a_full_batch_is_never_permuted():
    """Position-dependent: the weights pick out the first row."""

    def objective(params, state, batch, *, key, train):
        assert batch["edges"].shape == (2, 3)  # leading axes need not agree
        return fdl.Outcome(params * batch["x"], metrics={"first": batch["x"][0], "edge": batch["edges"][1, 2]})

    task = fdl.Task(lambda key: (jnp.ones(()), {}), objective)
    graph = fdl.data.Full(x=np.arange(5, dtype=np.float32) + 7, edges=np.arange(6).reshape(2, 3))
    run = fdl.run(fdl.Experiment(task, optax.sgd(0.0), graph, {"nodes": graph}, num_steps=20))
    assert set(run.history["train/first"]) == {7.0}
    assert set(run.history["train/edge"]) == {5.0}
    assert run.metrics["nodes/loss"] == pytest.approx(9.0)


def test_a_step_key_differs_at_every_step_and_an_evaluation_key_never():
    def objective(params, state, batch, *, key, train):
        return fdl.Outcome(params + jnp.zeros(batch["id"].shape), metrics={"draw": jax.random.uniform(key)})

    task = fdl.Task(lambda key: (jnp.zeros(()), {}), objective)
    ids = fdl.data.Arrays(id=np.arange(7))
    run = fdl.run(fdl.Experiment(task, optax.sgd(0.1), ids, {"test": ids}, batch_size=7, num_steps=30, eval_every=10))
    assert len(set(run.history["train/draw"])) == 30
    assert len(set(run.history["test/draw"])) == 1


def test_augment_is_for_training_only_and_sees_a_fresh_key():
    def augment(batch, key):
        return batch | {"id": batch["id"] + jax.random.randint(key, batch["id"].shape, 0, 1000)}

    ids = fdl.data.Arrays(id=np.zeros(8, np.int32))
    settings = {"batch_size": 8, "num_steps": 5, "augment": augment}
    run = fdl.run(fdl.Experiment(probe(), optax.sgd(0.1), ids, {"test": ids}, **settings))
    assert len(set(run.history["train/id"])) == 5
    assert run.metrics["test/id"] == 0


def test_the_optimizer_gets_its_extra_arguments():
    """L-BFGS evaluates the loss along a line: on a quadratic it is done in a few steps."""
    target = jnp.array([3.0, -2.0])

    def objective(params, state, batch, *, key, train):
        return fdl.Outcome(jnp.sum((params - target) ** 2 * jnp.array([1.0, 50.0]))[None])

    task = fdl.Task(lambda key: (jnp.zeros(2), {}), objective)
    run = fdl.run(fdl.Experiment(task, optax.lbfgs(), num_steps=10))
    np.testing.assert_allclose(run.params, target, atol=1e-4)


def test_a_step_that_measures_nothing_is_taken():
    def count(params, state, opt_state, batch, *, key, optimizer):
        return params + 1, state, opt_state, {}

    task = fdl.Task(lambda key: (jnp.zeros(()), {}), step=count)
    result = fdl.run(fdl.Experiment(task, optax.sgd(1.0), num_steps=5), chunk=2)
    assert (float(result.params), result.history, result.info["steps"]) == (5.0, {}, 5)


def test_a_task_may_bring_its_own_step_and_its_own_data():
    def step(params, state, opt_state, batch, *, key, optimizer):
        assert batch == {}
        updates, opt_state = optimizer.update(jnp.ones(3), opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state, {"key": jax.random.uniform(key), "two": 2.0}

    task = fdl.Task(lambda key: (jnp.zeros(3), {}), step=step)
    run = fdl.run(fdl.Experiment(task, optax.sgd(0.5), num_steps=4))
    np.testing.assert_allclose(run.params, [-2.0] * 3)
    assert len(set(run.history["train/key"])) == 4
    assert run.metrics["train/two"] == 2.0


def test_build_is_called_with_the_config():
    @dataclass(frozen=True)
    class Config:
        steps: int = 3

    run = fdl.run(lambda config: experiment(num_steps=config.steps), Config(5))
    assert len(run.history["train/loss"]) == 5


def test_hooks_see_each_chunk_and_may_ask_for_params(reference):
    seen = []

    def hook(event):
        seen.append((event.step, event.num_steps, event.members, event.metrics["train/loss"]))
        seen_params.append(jax.tree.map(np.array, event.params()))

    seen_params: list = []
    result = fdl.run(experiment(), chunk=10, hooks=[hook])
    assert [step for step, *_ in seen] == [9, 18, 27, 36, 37]
    assert all((total, members) == (37, 1) for _, total, members, _ in seen)
    assert [loss for *_, loss in seen] == [result.history["train/loss"][step - 1] for step, *_ in seen]
    assert_same_bits(seen_params[-1], reference.params)
    assert_same_bits(result.params, reference.params)


@pytest.fixture
def ctrl_c_is_heard():
    """In a job that was started in the background it is ignored, by the run as well."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_the_first_interrupt_waits_for_the_chunk():
    """And the handler that was there before is back afterwards."""
    seen, before = [], signal.getsignal(signal.SIGINT)

    def hook(event):
        seen.append(event.step)
        if event.step == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped after step 10 of 37"):
        fdl.run(experiment(eval_every=None), chunk=5, hooks=[hook])
    assert seen == [5, 10]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step():
    def objective(params, state, batch, *, key, train):
        return fdl.Outcome(jnp.log(params)[None])  # 3, 2, 1, 0: log(0) at the fourth step

    task = fdl.Task(lambda key: (jnp.float32(3.0), {}), objective)
    falling = optax.stateless(lambda updates, params: jax.tree.map(lambda _: jnp.float32(-1.0), updates))
    with pytest.raises(FloatingPointError, match=r"training loss is -inf at step 4 of 9"):
        fdl.run(fdl.Experiment(task, falling, num_steps=9))


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40, 2**64])
def test_a_seed_beyond_32_bits_is_hashed_not_folded(seed):
    """JAX itself gives key(2**32) == key(0)."""
    data = jax.random.key_data(run_key(seed))
    others = [jax.random.key_data(run_key(other)) for other in (0, seed % 2**32, seed + 1)]
    assert not any((data == other).all() for other in others)


@pytest.mark.parametrize(("bad", "message"), [(1.5, "whole number"), ("0", "whole number"), (True, "whole number")])
def test_a_seed_is_a_whole_number(bad, message):
    with pytest.raises(fdl.InputError, match=message):
        run_key(bad)


def test_nothing_is_traced_after_the_first_chunk(reference):
    """Evaluations, selection and hooks included."""
    with ExitStack() as guard:

        def hook(event):
            if event.step == 9:
                guard.enter_context(jax.no_tracing())
            if event.step == 37:
                guard.close()

        result = fdl.run(experiment(select="test/loss", patience=100), chunk=9, hooks=[hook])
    assert_same_bits(result.history, reference.history)


def test_the_next_chunk_is_dispatched_before_the_last_one_is_read(monkeypatch):
    """Also across an evaluation, and with early stopping, which the device decides."""
    happened = []
    for name in ("_dispatch", "_record", "_record_evaluation"):
        kept = getattr(Driver, name)

        def noted(self, *arguments, kept=kept, name=name):
            happened.append((name, arguments[0]))
            return kept(self, *arguments)

        monkeypatch.setattr(Driver, name, noted)
    fdl.run(experiment(num_steps=20, eval_every=10, select="test/loss", patience=5), chunk=5)
    for step in (0, 5, 10):
        assert happened.index(("_dispatch", step + 5)) < happened.index(("_record", step))
    assert happened.index(("_dispatch", 10)) < happened.index(("_record_evaluation", 10))


def test_every_program_is_recorded(tmp_path):
    """One chunk and one evaluation; the work of a step is that of two products forward and three backward."""
    result = fdl.run(experiment(), folder=tmp_path / "run")
    assert [program.name for program in result.programs] == ["chunk", "evaluate/test"]
    chunk = result.programs[0]
    products = 2 * 10 * (2 * 5 * 8 + 3 * 8 * 2)
    assert products < chunk.flops < 20 * products
    assert chunk.steps == 37
    assert chunk.bytes_arguments > N * 5 * 4
    assert min(chunk.seconds_trace, chunk.seconds_compile) > 0
    assert not chunk.cache_hit
    noted = json.loads((tmp_path / "run" / "manifest.json").read_text())["programs"]
    assert [program["name"] for program in noted] == ["chunk", "evaluate/test"]


def test_parameters_that_the_last_update_broke_are_no_result():
    """The loss of 0 is finite, its gradient sqrt'(0) is not, and after the only step no loss would tell."""

    def objective(params, state, batch, *, key, train):
        return fdl.Outcome(jnp.sqrt(params["w"] * batch["x"]))

    task = fdl.Task(lambda key: ({"w": jnp.zeros(())}, {}), objective)
    data = fdl.data.Arrays(x=np.ones(2, np.float32))
    with pytest.raises(FloatingPointError, match="no longer finite after step 1 of 1"):
        fdl.run(fdl.Experiment(task, optax.sgd(0.1), data, num_steps=1))
