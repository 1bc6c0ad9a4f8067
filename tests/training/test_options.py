# pyright: reportArgumentType=false, reportCallIssue=false
"""What an experiment may ask of its steps: micro-batches, precision, frozen parameters, averages, monitors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from fdl.training.step import Update
from tests.training.test_run import arrays, assert_same_bits, experiment

MODEL = nn.Serial(body=nn.Linear(5, 8), act=jax.nn.tanh, head=nn.Linear(8, 2))
TASK = fdl.supervised(MODEL, fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy}, weight="weight")
BATCH = {name: arrays(12)[name] for name in ("x", "y", "weight")}


def one_step(batch=BATCH, task=TASK, optimizer=None, **options):
    update = Update(task, optimizer or optax.sgd(0.5), **options)
    return jax.jit(update)(update.init(jax.random.key(0)), batch, jax.random.key(1))


@pytest.mark.parametrize("count", [2, 3, 12])
def test_accumulation_is_the_big_batch(count):
    """Also with weights that differ between the micro-batches, and where one of them has weight 0 only."""
    for weight in (BATCH["weight"], np.r_[np.zeros(6, np.float32), BATCH["weight"][6:]]):
        batch = BATCH | {"weight": weight}
        whole, wanted = one_step(batch)
        parts, metrics = one_step(batch, accumulate=count)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), parts.params, whole.params)
        assert float(metrics["loss"]) == pytest.approx(float(wanted["loss"]), rel=1e-6)
        assert float(metrics["accuracy"]) == pytest.approx(float(wanted["accuracy"]), rel=1e-6)


def test_accumulation_threads_statistics_through_the_micro_batches_in_order():
    """The running mean after two micro-batches is that after two steps of half the size."""
    norm = nn.BatchNorm(5)
    task = fdl.supervised(norm, lambda y, t: jnp.square(y - t).mean(-1), targets="x")
    after, _ = one_step(task=task, accumulate=2)
    params, state = fdl.init(norm, jax.random.key(0))
    for half in (BATCH["x"][:6], BATCH["x"][6:]):
        _, state = norm.apply(params, state, half, train=True)
    np.testing.assert_allclose(after.state["mean"], state["mean"], rtol=1e-6)
    np.testing.assert_allclose(after.state["var"], state["var"], rtol=1e-6)


def test_accumulation_draws_other_dropout_for_every_micro_batch():
    def objective(params, state, batch, *, key, train):
        draw = jax.random.uniform(key)
        return fdl.Outcome(jnp.zeros(len(batch["x"])) + 0 * params, metrics={"draw": draw, "square": draw**2})

    _, metrics = one_step(task=fdl.Task(lambda key: (jnp.float32(0), {}), objective), accumulate=4)
    assert float(metrics["square"]) > float(metrics["draw"]) ** 2 + 1e-4  # their variance


def test_a_batch_that_does_not_split_is_named():
    with pytest.raises(fdl.InputError, match=r"accumulate=5: the batch's 'weight' \[12\]"):
        one_step(accumulate=5)


def test_frozen_parameters_keep_their_bits_and_have_no_optimizer_state():
    rules = [("head/bias", True), ("^head/", False), ("body", False)]
    run = fdl.run(experiment(task=TASK, trainable=rules))
    start, _ = TASK.init(fdl.fold(jax.random.key(0), "init"))
    for path in (("body", "kernel"), ("body", "bias"), ("head", "kernel")):
        np.testing.assert_array_equal(run.params[path[0]][path[1]], start[path[0]][path[1]])
    assert (run.params["head"]["bias"] != start["head"]["bias"]).all()
    moments = Update(TASK, optax.adam(1e-2), trainable=rules).init(jax.random.key(0)).opt_state[0].mu
    assert [leaf.shape for leaf in jax.tree.leaves(moments)] == [(2,)]


def test_frozen_parameters_cost_no_gradient():
    """The product that gives the first kernel's gradient, x^T g, is gone from the program."""
    rows, products = jax.random.key(1), []
    for rules in ((), [("body", False)]):
        update = Update(TASK, optax.sgd(0.1), trainable=rules)
        text = jax.jit(update).lower(update.init(jax.random.key(0)), BATCH, rows).as_text()
        products.append(text.count("stablehlo.dot_general"))
    assert products == [5, 3]  # two forward, head: x^T g; and with the body its x^T g and what leads to it


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("haed", False)], "'haed' matches no parameter.*head/bias"),
        ([("", False), ("head", True)], "'head' never decides"),
        ([("(", False)], "no regular expression"),
    ],
)
def test_rules_that_do_nothing_are_errors(rules, message):
    with pytest.raises(fdl.InputError, match=message):
        one_step(trainable=rules)


def test_each_group_has_its_own_rate_and_decay():
    """Updates of plain SGD are proportional to the gradient: the ratio is that of the rates."""
    grads = jax.tree.map(lambda a, b: a - b, TASK.init(fdl.fold(jax.random.key(0), "init"))[0], one_step()[0].params)
    groups = fdl.by_path(
        [("bias$", optax.sgd(0.05)), ("", optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.5)))]
    )
    after, _ = one_step(optimizer=groups)
    before, _ = TASK.init(fdl.fold(jax.random.key(0), "init"))
    moved = jax.tree.map(lambda a, b: a - b, before, after.params)
    np.testing.assert_allclose(moved["head"]["bias"], 0.1 * grads["head"]["bias"], rtol=1e-4, atol=1e-7)
    wanted = grads["head"]["kernel"] + 0.5 * 0.1 * before["head"]["kernel"]
    np.testing.assert_allclose(moved["head"]["kernel"], wanted, rtol=1e-4, atol=1e-7)
    with pytest.raises(fdl.InputError, match="no rule for 'body/kernel'"):
        one_step(optimizer=fdl.by_path([("bias", optax.sgd(0.1))]))


def test_bfloat16_computes_in_it_and_keeps_float32():
    """A step differs from that in float32 by the rounding of bfloat16, 2^-8, and not by nothing."""
    exact, loss = one_step()
    after, metrics = one_step(precision="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves((after.params, metrics["loss"]))} == {jnp.dtype("float32")}
    error = abs(float(metrics["loss"]) / float(loss["loss"]) - 1)
    assert 0 < error < 0.02
    step = [jax.tree.map(lambda a, b: a - b, run.params, _start())["head"]["kernel"] for run in (after, exact)]
    assert 0 < np.abs(step[0] - step[1]).max() < 0.05 * np.abs(step[1]).max()
    update = Update(TASK, optax.sgd(0.5), precision="bfloat16")
    program = jax.jit(update).lower(update.init(jax.random.key(0)), BATCH, jax.random.key(1)).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert products
    assert all("bf16" in line.split("->")[0] for line in products)


def _start():
    return TASK.init(fdl.fold(jax.random.key(0), "init"))[0]


def test_float16_scales_the_loss_so_that_small_gradients_survive():
    """1e-8 is below the smallest float16, 6e-8: without a scale its gradient would be 0."""

    def objective(params, state, batch, *, key, train):
        return fdl.Outcome((params.astype(jnp.float16) * jnp.float16(1)).astype(jnp.float32)[None] * 1e-8)

    task = fdl.Task(lambda key: (jnp.float32(1.0), {}), objective)
    after, metrics = one_step({}, task, optax.sgd(1e7), precision="float16")
    assert float(after.params) == pytest.approx(0.9, rel=1e-3)
    assert float(metrics["loss_scale"]) == 2.0**15


def test_float16_skips_a_step_that_overflows_and_halves_the_scale():
    def objective(params, state, batch, *, key, train):
        return fdl.Outcome((params.astype(jnp.float16) * jnp.float16(60000)).astype(jnp.float32)[None])

    task = fdl.Task(lambda key: (jnp.float32(0.5), {}), objective)
    run = fdl.run(fdl.Experiment(task, optax.sgd(1e-6), num_steps=20, precision="float16"))
    skipped = run.history["train/skipped"]
    np.testing.assert_array_equal(run.history["train/loss_scale"][:4], 2.0 ** np.array([15, 14, 13, 12]))
    taken = int((1 - skipped).sum())
    assert 0 < taken < 20
    assert float(run.params) == pytest.approx(0.5 - taken * 1e-6 * 60000, rel=1e-3)


def test_the_average_is_that_of_its_formula_and_what_evaluation_uses():
    seen = []
    settings = {"task": TASK, "optimizer": fdl.with_ema(optax.sgd(0.1), 0.9), "eval_params": fdl.ema_params}
    averaged = fdl.run(experiment(**settings), chunk=1, hooks=[lambda event: seen.append(event.params())])
    plain: list = []
    fdl.run(experiment(task=TASK, optimizer=optax.sgd(0.1)), chunk=1, hooks=[lambda e: plain.append(_copy(e.params()))])
    mean = _start()
    for n, params in enumerate(plain):
        d = min(0.9, (1 + n) / (10 + n))
        mean = jax.tree.map(lambda m, p, d=d: d * m + (1 - d) * p, mean, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), averaged.params, mean)
    frozen = fdl.Experiment(TASK, optax.sgd(0.0), arrays(), {"test": arrays(31, seed=1)}, batch_size=10, num_steps=1)
    task = fdl.Task(lambda key: (averaged.params, {}), TASK.objective)
    again = fdl.run(fdl.Experiment(task, frozen.optimizer, frozen.train, frozen.evaluate, 10, num_steps=1))
    assert again.metrics["test/loss"] == pytest.approx(averaged.metrics["test/loss"], rel=1e-6)


def _copy(tree):
    return jax.tree.map(np.array, tree)


def test_schedule_free_evaluates_with_its_average():
    optimizer = optax.contrib.schedule_free_sgd(0.5, warmup_steps=2)
    averaged = lambda params, state: optax.contrib.schedule_free_eval_params(state, params)  # noqa: E731
    run = fdl.run(experiment(task=TASK, optimizer=optimizer, eval_params=averaged, num_steps=60))
    raw = fdl.run(experiment(task=TASK, optimizer=optimizer, num_steps=60))
    np.testing.assert_array_equal(run.history["train/loss"], raw.history["train/loss"])
    assert run.metrics["test/loss"] != raw.metrics["test/loss"]
    assert run.metrics["test/loss"] < 0.5


def test_the_learning_rate_that_was_used_is_in_the_history():
    schedule = optax.cosine_decay_schedule(1e-2, 37)
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=schedule)
    run = fdl.run(experiment(optimizer=optimizer))
    np.testing.assert_allclose(run.history["train/learning_rate"], [schedule(i) for i in range(37)], rtol=1e-5)
    groups = fdl.by_path([("bias", optimizer), ("", optax.sgd(0.1))])
    history = fdl.run(experiment(optimizer=groups, num_steps=3)).history
    assert "train/0: bias/learning_rate" in history


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (optax.adam(optax.cosine_decay_schedule(1e-2, 37)), "learning_rate"),
        (optax.chain(optax.clip(1.0), optax.adamw(optax.cosine_decay_schedule(1e-2, 37))), "learning_rate"),
        (fdl.with_ema(optax.sgd(optax.cosine_decay_schedule(1e-2, 37))), "learning_rate"),
        (
            fdl.by_path([("bias", optax.sgd(optax.cosine_decay_schedule(1e-2, 37))), ("", optax.sgd(0.1))]),
            "0: bias/learning_rate",
        ),
        (optax.chain(optax.scale_by_schedule(optax.cosine_decay_schedule(1e-2, 37)), optax.scale(-1)), "schedule"),
    ],
    ids=["adam", "chain", "ema", "groups", "bare"],
)
def test_a_schedule_within_the_optimizer_is_found(optimizer, name):
    history = fdl.run(experiment(task=TASK, optimizer=optimizer, num_steps=5)).history
    wanted = [optax.cosine_decay_schedule(1e-2, 37)(i) for i in range(5)]
    np.testing.assert_allclose(history[f"train/{name}"], wanted, rtol=1e-5)


def test_prodigy_and_dadapt_find_their_rate():
    """They need the parameters, and estimate the distance to the solution from the gradients."""
    for optimizer in (optax.contrib.prodigy(), optax.contrib.dadapt_adamw()):
        history = fdl.run(experiment(task=TASK, optimizer=optimizer, num_steps=150, evaluate={})).history["train/loss"]
        assert history[-10:].mean() < 0.7 * history[:10].mean()


def test_a_schedule_counts_optimizer_steps_not_micro_batches():
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=lambda count: 1.0 / (1 + count))
    run = fdl.run(experiment(task=TASK, optimizer=optimizer, accumulate=5, num_steps=3))
    np.testing.assert_allclose(run.history["train/learning_rate"], [1, 1 / 2, 1 / 3], rtol=1e-6)


def test_reduce_on_plateau_gets_the_loss():
    optimizer = optax.chain(optax.sgd(0.0), optax.contrib.reduce_on_plateau(factor=0.5, patience=2, rtol=0.5))
    run = fdl.run(experiment(task=TASK, optimizer=optimizer, num_steps=10, batch_size=None, accumulate=1))
    assert run.history["train/plateau_scale"][-1] < 1.0


def test_monitored_norms_are_those_of_the_first_step():
    run = fdl.run(experiment(task=TASK, optimizer=optax.sgd(0.5), monitor=fdl.norms, num_steps=2))
    history = run.history
    np.testing.assert_allclose(
        history["train/update_norm/head/kernel"], 0.5 * history["train/grad_norm/head/kernel"], rtol=1e-5
    )
    assert history["train/param_norm/head/kernel"][0] == pytest.approx(
        np.linalg.norm(_start()["head"]["kernel"]), rel=1e-6
    )


def test_watched_activations_are_their_root_mean_squares():
    watched = fdl.run(experiment(task=fdl.inspect.watch(TASK), batch_size=None, num_steps=1)).history
    x = arrays()["x"]
    hidden = x @ np.asarray(_start()["body"]["kernel"])
    assert watched["train/activation/body"][0] == pytest.approx(np.sqrt((hidden**2).mean()), rel=1e-5)
    deep = nn.Serial(nn.Linear(5, 8), nn.Stack(nn.Serial(nn.Linear(8, 8), jax.nn.tanh), 3), head=nn.Linear(8, 2))
    task = fdl.inspect.watch(fdl.supervised(deep, fdl.losses.softmax_cross_entropy))
    names = set(fdl.run(experiment(task=task, num_steps=1, evaluate={})).history)
    assert names == {"train/loss", *(f"train/activation/{name}" for name in ("0", "1", "head"))}


def test_make_step_alone_takes_the_steps_of_a_run():
    """Same key, same batches: the same bits as `fdl.run` on a full batch."""
    step = fdl.make_step(TASK.objective, optax.adam(1e-2))
    run = fdl.run(experiment(task=TASK, batch_size=None, num_steps=5, evaluate={}))
    now = step.init(*TASK.init(fdl.fold(jax.random.key(0), "init")), key=jax.random.key(0))
    batch, jitted = {name: arrays()[name] for name in ("x", "y", "weight")}, jax.jit(step)
    losses = []
    for _ in range(5):
        now, metrics = jitted(now, batch)
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, run.history["train/loss"], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), now.params, run.params)
    with pytest.raises(fdl.InputError, match="did you mean 'accumulate'"):
        fdl.make_step(TASK.objective, optax.adam(1e-2), acumulate=2)


def test_options_that_a_step_of_its_own_would_ignore_are_refused():
    task = fdl.Task(lambda key: ({}, {}), step=lambda *args, **kw: None)
    for name, value in (("accumulate", 2), ("precision", "bfloat16"), ("trainable", [("", False)])):
        with pytest.raises(fdl.InputError, match=name):
            fdl.Experiment(task, optax.sgd(0.1), num_steps=1, **{name: value})
    with pytest.raises(fdl.InputError, match="precision"):
        experiment(precision="fp16")


def test_options_keep_the_bits_whatever_the_chunk():
    settings = {"accumulate": 2, "precision": "float16", "trainable": [("4/bias", False)], "monitor": fdl.norms}
    optimizer = fdl.with_ema(optax.inject_hyperparams(optax.adam)(optax.linear_schedule(1e-2, 0.0, 37)))
    settings |= {"optimizer": optimizer, "eval_params": fdl.ema_params}
    one, all_at_once = (fdl.run(experiment(**settings), chunk=chunk) for chunk in (1, 1000))
    assert_same_bits((one.params, one.state, one.history), (all_at_once.params, all_at_once.state, all_at_once.history))
