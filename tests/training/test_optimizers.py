"""Every optimizer and wrapper of Optax takes a step, with the arguments that it asks for; SAM and lookahead by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fdl
from fdl import nn
from fdl.training.step import Update

BATCH = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32), "y": jnp.arange(6) % 3}
TASK = fdl.supervised(nn.Serial(nn.Linear(4, 5), nn.Linear(5, 3)), fdl.losses.softmax_cross_entropy)
PLAIN = ["adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad",
         "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "noisy_sgd", "novograd", "optimistic_adam_v2",
         "optimistic_gradient_descent", "polyak_sgd", "radam", "rmsprop", "rprop", "sgd", "sign_sgd", "signum", "sm3",
         "yogi"]  # fmt: skip
CONTRIB = ["acprop", "ademamix", "adopt", "cocob", "dadapt_adamw", "dowg", "galore", "madgrad", "momo", "momo_adam",
         "muon", "prodigy", "schedule_free_adamw", "schedule_free_sgd", "simplified_ademamix", "sophia"]  # fmt: skip


def steepest():
    return optax.chain(contrib.normalize(), optax.sgd(0.05))


def sam(**options):
    return contrib.sam(optax.sgd(0.1), steepest(), **options)


def kernels(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


TABLE = {
    **{name: lambda name=name: getattr(optax, name)(1e-2) for name in PLAIN},
    **{name: lambda name=name: getattr(contrib, name)(1e-2) for name in CONTRIB},
    "dog": lambda: contrib.dog(1.0, init_step=("heuristic", 1e-6)),
    "lbfgs": optax.lbfgs,
    "backtracking": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10)),
    "sam": sam,
    "sam, opaque": lambda: sam(opaque_mode=True),
    "sam of several steps": lambda: sam(sync_period=3, reset_state=False),
    "sam in a chain": lambda: optax.chain(optax.clip(1.0), sam(opaque_mode=True)),
    "sam of a group": lambda: fdl.by_path({"first": ("^0/", sam()), "rest": ("", optax.adam(1e-2))}),
    "sam every second step": lambda: optax.MultiSteps(sam(), 2),
    "sam with a rate": lambda: optax.inject_hyperparams(lambda rate: contrib.sam(optax.sgd(rate), steepest()))(0.1),
    "lookahead": lambda: optax.lookahead(optax.adam(1e-2), 5, 0.5),
    "lookahead, reset": lambda: optax.lookahead(optax.adam(1e-2), 5, 0.5, reset_state=True),
    "lookahead in a chain": lambda: optax.chain(optax.clip(1.0), optax.lookahead(optax.sgd(0.1), 5, 0.5)),
    "lookahead with a rate": lambda: optax.inject_hyperparams(lambda a: optax.lookahead(optax.sgd(a), 5, 0.5))(0.1),
    "lookahead and average": lambda: fdl.with_ema(optax.lookahead(optax.sgd(0.1), 5, 0.5)),
    "lookahead of groups": lambda: optax.lookahead(fdl.by_path([("", optax.adam(1e-2))]), 5, 0.5),
    "several steps": lambda: optax.MultiSteps(optax.adam(1e-2), 2),
    "if finite": lambda: optax.apply_if_finite(optax.adam(1e-2), 3),
    "masked": lambda: optax.chain(optax.masked(optax.add_decayed_weights(0.1), kernels), optax.sgd(0.1)),
    "flat": lambda: optax.flatten(optax.adam(1e-2)),
    "mechanic": lambda: contrib.mechanize(optax.sgd(1.0)),
    "plateau": lambda: optax.chain(optax.sgd(0.1), contrib.reduce_on_plateau()),
    "named": lambda: optax.named_chain(("clip", optax.clip(1.0)), ("descend", optax.sgd(0.1))),
    "at times": lambda: optax.chain(
        optax.conditionally_transform(optax.clip(1.0), lambda step, **extra: jnp.less(step, 5)), optax.sgd(0.1)
    ),
}


@pytest.mark.filterwarnings("ignore:Specifying a key")  # of optax.adan and noisy_sgd
@pytest.mark.parametrize("name", TABLE)
def test_it_takes_a_step(name):
    """Traced, as in a run; the state keeps its structure and types, or `keep_types` raises."""
    update = Update(TASK, TABLE[name](), trainable=[("1/bias", False)] if "group" not in name else ())
    now = jax.eval_shape(update.init, jax.random.key(0))
    new, metrics = jax.eval_shape(update, now, BATCH, jax.random.key(0))
    assert jax.tree.structure(new) == jax.tree.structure(now)
    assert metrics["loss"].shape == ()


def loss(params, state):
    objective: Any = TASK.objective
    return objective(params, state, BATCH, key=jax.random.key(0), train=True).loss.mean()


def stepped(optimizer, count, **options):
    update = Update(TASK, optimizer, **options)
    now, step = update.init(jax.random.key(0)), jax.jit(update)
    for number in range(count):
        now, _ = step(now, BATCH, jax.random.key(number))
    return now


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}], ids=["whole", "accumulated"])
def test_sam_is_the_gradient_at_the_steepest_point_nearby(options):
    """Foret et al. 2021: w - 0.1 g(w + 0.05 g(w)/|g(w)|); the opaque kind does in a step the other kind's two."""
    start, state, *_ = Update(TASK, optax.sgd(0.1)).init(jax.random.key(0))
    wanted = start
    for _ in range(2):
        grads = jax.grad(loss)(wanted, state)
        size = optax.tree.norm(grads)
        there = jax.grad(loss)(jax.tree.map(lambda w, g, s=size: w + 0.05 * g / s, wanted, grads), state)
        wanted = jax.tree.map(lambda w, g: w - 0.1 * g, wanted, there)
    assert_close(stepped(sam(opaque_mode=True), 2, **options).params, wanted)
    assert_close(stepped(sam(), 4, **options).params, wanted)


def test_lookahead_is_that_of_optax():
    """Against the loop of Optax's documentation, with its pair of weights."""
    optimizer = optax.lookahead(optax.sgd(0.3), sync_period=3, slow_step_size=0.5)
    start, model_state, *_ = Update(TASK, optax.sgd(0.1)).init(jax.random.key(0))
    params: Any = optax.LookaheadParams.init_synced(start)
    state = optimizer.init(params)
    for _ in range(4):
        updates, state = optimizer.update(jax.grad(loss)(params.fast, model_state), state, params)
        params = optax.apply_updates(params, updates)
    now: Any = stepped(optimizer, 4)
    assert_close((now.params, now.opt_state.slow), (params.fast, params.slow))


def test_the_slow_weights_are_evaluated_where_that_is_asked():
    data = fdl.data.Arrays(**BATCH)
    optimizer = optax.lookahead(optax.sgd(0.3), sync_period=3, slow_step_size=0.5)
    options = {"evaluate": {"val": data}, "num_steps": 4, "eval_params": lambda params, state: state.slow}
    run = fdl.run(fdl.Experiment(TASK, optimizer, data, **options))
    at_three = fdl.run(fdl.Experiment(TASK, optimizer, data, **{**options, "num_steps": 3, "eval_params": None}))
    assert run.metrics["val/loss"] == pytest.approx(at_three.metrics["val/loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fdl.by_path([("", optax.lookahead(optax.sgd(0.1), 5, 0.5))]), "put it around that one"),
        (lambda: optax.MultiSteps(optax.lookahead(optax.sgd(0.1), 5, 0.5), 2), "put it around that one"),
        (lambda: contrib.dpsgd(0.1, 1.0, 0.1, seed=0), "gradient of each example"),
        (lambda: optax.lookahead(optax.sgd(-0.1), 5, 0.5), "uphill"),
    ],
    ids=["a group of lookahead", "steps of lookahead", "private", "uphill"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_optimizers_that_a_step_cannot_take_are_refused_in_words(make, said):
    with pytest.raises(fdl.InputError, match=said):
        Update(TASK, make())


def test_groups_have_the_names_that_they_are_given():
    schedule = optax.linear_schedule(0.1, 0.0, 4)
    optimizer = fdl.by_path({"head": ("^1/", optax.sgd(schedule)), "body": ("", optax.adam(schedule))})
    run = fdl.run(fdl.Experiment(TASK, optimizer, fdl.data.Arrays(**BATCH), num_steps=2))
    for name in ("head", "body"):
        np.testing.assert_allclose(run.history[f"train/{name}/learning_rate"], [0.1, 0.075], rtol=1e-6)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"head": optax.sgd(0.1)}, r"{name: \(regex, transformation\), ...}"),
        ([("head/", 0.1)], "transformation"),
        ({"": ("head/", optax.sgd(0.1))}, "names of text"),
        ({1: ("head/", optax.sgd(0.1))}, "names of text"),
    ],
    ids=["no regex", "a number", "no name", "a number as name"],
)
def test_groups_of_another_form_are_refused(rules, said):
    with pytest.raises(fdl.InputError, match=said):
        fdl.by_path(rules)
