"""Settings drawn at random or in pairs, integers that stay in one program, schedules that can be swept."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import fdl
from fdl import schedules
from fdl.training.recipe import weak, weak_column


def test_draws_follow_their_distributions():
    """Kolmogorov-Smirnov: 1000 draws of the right law have p > 0.001, of a law that is not (uniform for log) p = 0."""
    over = {"rate": fdl.LogUniform(1e-4, 1e-1), "dropout": fdl.Uniform(0.1, 0.5), "width": [64, 128]}
    drawn = fdl.random_settings(over, 1000)
    logs = np.log10([each["rate"] for each in drawn])
    assert stats.kstest(logs, stats.uniform(-4, 3).cdf).pvalue > 1e-3
    assert stats.kstest(np.power(10, logs), stats.uniform(1e-4, 0.1).cdf).pvalue < 1e-9
    assert stats.kstest([each["dropout"] for each in drawn], stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3
    assert stats.binomtest(sum(each["width"] == 64 for each in drawn), 1000).pvalue > 1e-3


def test_more_settings_begin_with_the_fewer_and_another_seed_draws_others():
    over = {"rate": fdl.LogUniform(1e-4, 1e-1), "width": [64, 128]}
    assert fdl.random_settings(over, 9)[:4] == fdl.random_settings(over, 4)
    assert fdl.random_settings(over, 4, seed=1) != fdl.random_settings(over, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: fdl.Uniform(1.0, 1.0), "low < high"),
        (lambda: fdl.LogUniform(0.0, 1.0), "0 < low"),
        (lambda: fdl.random_settings({}, 3), "no field"),
        (lambda: fdl.random_settings({"a": []}, 3), "or a list"),
        (lambda: fdl.random_settings({"a": "bc"}, 3), "or a list"),
        (lambda: fdl.random_settings({"a": [1]}, 0), "whole number >= 1"),
        (lambda: fdl.zipped({"a": [1], "b": [1, 2]}), "one length"),
        (lambda: fdl.traced(2**31), "32 bits"),
        (lambda: fdl.traced(True), "32 bits"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, message):
    with pytest.raises(fdl.InputError, match=message):
        wrong()


@dataclass(frozen=True)
class Config:
    fold: int = fdl.traced(0)
    width: int = 3


def build(config: Config) -> fdl.Experiment:
    """Four numbers, one a fold; y is learnt where it is not held out, so that the bias is the mean of the others."""

    def objective(params, state, batch, *, key, train):
        held = batch["fold"] == config.fold
        loss = fdl.losses.squared_error(jnp.broadcast_to(params, batch["y"].shape), batch["y"])
        return fdl.Outcome(loss, jnp.where(held, 0.0, 1.0) if train else jnp.where(held, 1.0, 0.0))

    data = fdl.data.Arrays(y=np.array([1.0, 2.0, 4.0, 8.0], np.float32), fold=np.arange(4))
    task = fdl.Task(lambda key: (jnp.zeros(()), {}), objective)
    return fdl.Experiment(task, optax.sgd(0.5), data, evaluate={"held": data}, batch_size=4, num_steps=50)


def test_folds_declared_as_traced_are_members_of_one_program():
    result = fdl.sweep(build, Config(), over={"fold": [0, 1, 2, 3]})
    assert result.compiles == 1
    y = np.array([1.0, 2.0, 4.0, 8.0])
    means = (y.sum() - y) / 3
    np.testing.assert_allclose(result.buckets[0].params, means, rtol=1e-6)
    np.testing.assert_allclose(result.metrics["held/loss"], (means - y) ** 2, rtol=1e-5)
    assert fdl.sweep(build, Config(), over={"width": [3, 4]}).compiles == 2  # not declared: a program each


def test_traced_numbers_promote_as_python_numbers_do():
    for value in (3, 0.5):
        assert weak(value).weak_type
        assert weak_column([value, value]).weak_type
        assert (weak(value) * jnp.ones((), jnp.bfloat16)).dtype == jnp.bfloat16


STEPS = np.arange(0, 30)
SAME = {
    "linear": (schedules.linear(0.3, 0.1, 20), optax.linear_schedule(0.3, 0.1, 20)),
    "cosine": (schedules.cosine(0.3, 20, 0.03), optax.cosine_decay_schedule(0.3, 20, alpha=0.1)),
    "warmup_cosine": (
        schedules.warmup_cosine(0.3, 5, 20, 0.01, 0.02),
        optax.warmup_cosine_decay_schedule(0.01, 0.3, 5, 20, 0.02),
    ),
    "warmup_linear": (
        schedules.warmup_linear(0.3, 5, 20),
        optax.join_schedules([optax.linear_schedule(0, 0.3, 5), optax.linear_schedule(0.3, 0, 15)], [5]),
    ),
    "exponential": (schedules.exponential(0.3, 0.5, 10), optax.exponential_decay(0.3, 10, 0.5)),
}


@pytest.mark.parametrize("name", SAME)
def test_schedules_are_those_of_optax(name):
    mine, theirs = SAME[name]
    np.testing.assert_allclose(jax.vmap(mine)(STEPS), np.array([theirs(t) for t in STEPS]), rtol=2e-6, atol=1e-8)


def test_the_inverse_root_peaks_where_the_paper_says():
    """features^-1/2 min(t^-1/2, t warmup^-3/2) at t = 1, 2, ... (Vaswani et al., equation 3)."""
    t = np.arange(1.0, 31.0)
    paper = 512**-0.5 * np.minimum(t**-0.5, t * 10**-1.5)
    np.testing.assert_allclose(schedules.inverse_sqrt((512 * 10) ** -0.5, 10)(STEPS), paper, rtol=1e-6)


@pytest.mark.parametrize("name", ["linear", "cosine", "warmup_cosine", "warmup_linear", "exponential", "inverse_sqrt"])
def test_every_number_of_a_schedule_may_be_traced(name):
    arguments = {"linear": 3, "cosine": 3, "warmup_cosine": 5, "warmup_linear": 5, "exponential": 3, "inverse_sqrt": 2}
    values = (0.3, 5.0, 20.0, 0.1, 0.2)[: arguments[name]]
    schedule = getattr(schedules, name)
    found = jax.jit(lambda *numbers: schedule(*numbers)(7))(*values)
    np.testing.assert_allclose(found, schedule(*values)(7), rtol=1e-6)


def test_a_warmup_of_no_steps_starts_at_the_peak():
    assert np.asarray(schedules.warmup_cosine(0.3, 0, 20)(0)) == pytest.approx(0.3)
    assert np.isfinite(schedules.warmup_linear(0.3, 20, 20)(np.arange(40))).all()
