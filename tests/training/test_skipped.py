"""Steps that are left out, as what they would leave is not finite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from tests.training.test_nonfinite import Log, Shift, failure, first, poisoned, trains
from tests.training.test_run import assert_same_bits, experiment


@pytest.mark.parametrize("chunk", [1, 7, None])
def test_a_step_that_is_skipped_changes_nothing_and_counts(chunk: int | None):
    """Step 18 is left out: before it the run is the clean one, and at step 18 nothing moves."""
    skipping = experiment(augment=poisoned(17), nonfinite="skip", evaluate={}, eval_every=None)
    result = fdl.run(skipping, chunk=chunk)
    clean = fdl.run(replace(skipping, augment=None), chunk=chunk)
    assert np.flatnonzero(result.history["train/skipped"]).tolist() == [17]
    assert np.isnan(result.history["train/loss"][17])
    assert_same_bits(result.history["train/loss"][:17], clean.history["train/loss"][:17])
    short, long = (fdl.run(replace(skipping, num_steps=n)) for n in (17, 18))
    assert_same_bits((short.params, short.state), (long.params, long.state))
    assert np.isfinite(result.history["train/loss"][18:]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((result.params, result.state)))


def test_skipping_is_free_of_effect_where_all_is_finite():
    clean, skipping = fdl.run(experiment()), fdl.run(experiment(nonfinite="skip"))
    np.testing.assert_allclose(skipping.history["train/loss"], clean.history["train/loss"], rtol=1e-6)
    assert not skipping.history["train/skipped"].any()


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_32_skipped_steps_in_a_row_end_the_run(chunk: int):
    error, report = failure(trains(Shift(), Log(), nonfinite="skip"), chunk=chunk)
    assert str(error).startswith("the last 32 steps were all skipped at step 35 of 40")  # 4 .. 35
    assert (report.step, *first(report)) == (35, "forward", "1", "inf")


def test_float16_finds_its_scale_under_skip_as_well():
    """The loss scale starts at 2^15; gradients of 8 need it at 2^12 at most: three steps are skipped, and no more."""
    data = fdl.data.Arrays(x=np.full((4, 1), 8.0, np.float32), y=np.zeros((4, 1), np.float32))
    task = fdl.supervised(nn.Linear(1, 1), lambda y, target: (y - target).astype(jnp.float32))
    for nonfinite in ("stop", "skip"):
        result = fdl.run(
            fdl.Experiment(task, optax.sgd(0.0), data, num_steps=9, precision="float16", nonfinite=nonfinite)
        )
        skipped = result.history["train/skipped"]
        assert 0 < skipped.sum() < 6
        assert (np.diff(skipped) <= 0).all()  # the first ones
        assert result.history["train/loss_scale"][-1] == 2.0 ** (15 - skipped.sum())


@pytest.mark.parametrize("value", ["rollback", None, True])
def test_another_policy_is_refused(value: Any):
    with pytest.raises(fdl.InputError, match=r"nonfinite: expected one of \('stop', 'skip'\), got"):
        trains(Shift(), nonfinite=value)
