# pyright: reportArgumentType=false
"""Successive halving, and members that take turns: whoever goes on is not touched by whoever does not."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.training import sweep as sweeping
from fdl.training.selection import Selection, halve
from tests.training.test_sweep import Config, build

RATES = [1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
STEPS, EVERY = 72, 9  # eight evaluations: rungs after 1, 2, 4


def selecting(config: Config) -> fdl.Experiment:
    return replace(build(config), select="test/loss")


@pytest.fixture(scope="module")
def both() -> tuple[fdl.SweepResult, fdl.SweepResult]:
    config, over = Config(steps=STEPS), {"learning_rate": RATES}
    return fdl.sweep(selecting, config, over), fdl.sweep(selecting, config, over, halving=2)


def test_the_better_half_goes_on_at_every_rung(both):
    """7 members: 4 after the first evaluation, 2 after the second, 1 after the fourth, by their best loss so far."""
    whole, halved = both
    losses = np.minimum.accumulate(whole.history["test/loss"], 1)
    left = set(range(7))
    for number, keep in ((1, 4), (2, 2), (4, 1)):
        stay = set(sorted(left, key=lambda i, n=number: losses[i, n - 1])[:keep])
        for member in left - stay:
            assert halved.member(member).info["steps"] == number * EVERY
        left = stay
    (winner,) = left
    assert halved.member(winner).info["steps"] == STEPS


def test_those_that_go_on_are_those_of_the_whole_sweep(both):
    """And a member that stopped has its history until then, NaN after it, and the parameters of its best evaluation."""
    whole, halved = both
    for number in range(7):
        end = int(halved.member(number).info["steps"])
        mine, theirs = (result.history["train/loss"][number] for result in (halved, whole))
        np.testing.assert_allclose(mine[:end], theirs[:end], rtol=1e-6)
        assert np.isnan(mine[end:]).all()
        short = fdl.run(selecting, replace(halved.configs[number], steps=end), seed=0)
        for a, b in zip(*map(jax.tree.leaves, (halved.member(number).params, short.params)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)


def test_ranks_leave_out_who_stopped_who_has_no_number_and_who_only_fills_the_block():
    value = jnp.array([3.0, 1.0, 2.0, jnp.inf, 0.5, 0.1])
    stopped, step = jnp.array([False, False, False, False, True, False]), jnp.array([9, 9, 9, 0, 9, 9])
    best = Selection(value, step, step, stopped, {}, {})
    assert halve(best, 2, 5, "min").stopped.tolist() == [True, False, False, True, True, True]
    assert halve(best, 1, 5, "max").stopped.tolist() == [False, True, True, True, True, True]


@pytest.mark.parametrize("wrong", [1, True, 2.0, -2])
def test_what_cannot_be_halved_is_refused(wrong):
    with pytest.raises(fdl.InputError, match="whole number >= 2"):
        fdl.sweep(selecting, Config(), halving=wrong)
    with pytest.raises(fdl.InputError, match="select"):
        fdl.sweep(build, Config(), {"learning_rate": RATES}, halving=2)
    with pytest.raises(fdl.InputError, match="fit side by side"):
        fdl.sweep(selecting, Config(), {"learning_rate": RATES}, halving=2, max_members=2)


@pytest.mark.parametrize("together", [1, 2, 3])
def test_members_that_take_turns_are_those_that_do_not(both, together, monkeypatch):
    """Five members in tiles of 2 or 3 fill up with copies of the last, which nobody sees."""
    monkeypatch.setattr(sweeping, "side_by_side", lambda recipe: together)
    config, over = Config(steps=STEPS), {"learning_rate": RATES[:5]}
    said: list[str] = []
    result = fdl.sweep(selecting, config, over, tell=said.append)
    assert f"{together} at a time" in said[-1]
    whole = both[0]
    assert len(result) == 5
    np.testing.assert_allclose(result.history["train/loss"], whole.history["train/loss"][:5], rtol=1e-5)
    halved = fdl.sweep(selecting, config, over, halving=2)
    ends = [int(halved.member(i).info["steps"]) for i in range(5)]
    assert sorted(ends) == [9, 9, 18, 36, 72]


def test_small_steps_share_a_core_and_large_ones_take_turns():
    """A step of 5 -> 8 -> 2 on ten rows is far below 1e8 FLOPs, one of 2000 x 2000 far above."""
    from fdl.training.executables import side_by_side
    from fdl.training.recipe import Recipe

    def recipe(hidden):
        return Recipe(build(Config(hidden=hidden)), build, Config(hidden=hidden), ())

    assert (side_by_side(recipe(8)) or 0) > 1000
    assert side_by_side(recipe(2_000_000)) == 1


def test_members_without_data_take_turns_as_well(monkeypatch):
    """Arrays without elements, as the order of no examples, leave no size to be found from the others."""

    def build(config: Config) -> fdl.Experiment:
        def step(params, state, opt_state, batch, *, key, optimizer):
            updates, opt_state = optimizer.update(2 * params, opt_state, params)
            return params + updates, state, opt_state, {"loss": jnp.sum(params**2)}

        task = fdl.Task(lambda key: (jnp.ones(3), jnp.zeros((0,))), lambda *args, **options: None, step)
        return fdl.Experiment(task, optax.sgd(config.learning_rate), num_steps=config.steps)

    over = {"learning_rate": [0.1, 0.2, 0.3]}
    whole = fdl.sweep(build, Config(steps=5), over)
    monkeypatch.setattr(sweeping, "side_by_side", lambda recipe: 2)
    turns = fdl.sweep(build, Config(steps=5), over)
    np.testing.assert_allclose(turns.history["train/loss"], whole.history["train/loss"], rtol=1e-6)
    np.testing.assert_allclose(
        whole.history["train/loss"][:, 1] / 3, (1 - 2 * np.array(over["learning_rate"])) ** 2, rtol=1e-5
    )
