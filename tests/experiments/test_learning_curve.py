"""Sizes of the training set as members of one program: which images count, and what such a member equals."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from experiments import learning_curve
from experiments.learning_curve import DRAWS, SHARES, Config, build, network, ranks
from tests.compiling import QUICK

SMALL = Config(width=8, num_steps=22)


@pytest.fixture(scope="module")
def swept() -> fdl.SweepResult:
    """Shares 1/16 and 1, of draws 0 and 3."""
    return fdl.sweep(build, SMALL, over={"share": [0.0625, 1.0], "draw": [0, 3]})


def weights(share: float, draw: int = 0) -> np.ndarray:
    """The weight of each training image, with both numbers traced."""
    images: Any = build(Config()).dataset
    batch = {name: jnp.asarray(images[name]) for name in ("x", "y", "rank")}

    @jax.jit
    def traced(share, draw):
        task: Any = build(Config(share, draw)).task
        return task.objective(*task.init(jax.random.key(0)), batch, key=jax.random.key(1), train=True).weight

    return np.asarray(traced(share, draw))


@pytest.mark.parametrize("share", [0.02, 101 / 1437, 0.7, 1.0])
def test_the_weights_add_up_to_the_share_and_larger_shares_contain_smaller_ones(share):
    mine, less, other = weights(share), weights(share / 2), weights(share, 4)
    assert set(np.unique(mine)) <= {0.0, 1.0}
    assert mine.sum() == other.sum() == round(share * 1437)  # share * 1437 is more than 101 in float32
    assert (less <= mine).all()
    assert (mine == other).all() == (share == 1)


def test_each_draw_orders_all_images_in_a_way_of_its_own():
    order = ranks(1437)
    assert (np.sort(order, 0) == np.arange(1437)[:, None]).all()
    assert len({tuple(column) for column in order.T}) == DRAWS


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"draw": DRAWS}, {"draw": -1}])
def test_what_cannot_be_meant_is_refused(wrong):
    with pytest.raises(fdl.InputError, match=f"{next(iter(wrong))}: expected"):
        build(Config(**wrong))


def by_hand(config: Config, weight: str | None, **changed: Any) -> fdl.Experiment:
    """The same network and optimizer, without masks but for an entry of the data."""
    task = fdl.supervised(network(config), fdl.losses.softmax_cross_entropy, weight=weight)
    return dataclasses.replace(build(config), task=task, **changed)


def test_a_member_is_the_run_whose_weights_are_given_by_hand(swept):
    """22 steps: both follow the same function, with sums in another order; see DESIGN, section 4."""
    assert swept.compiles == 1
    config, train = swept.configs[1], fdl.data.load("digits", split="train")
    assert (config.share, config.draw) == (0.0625, 3)
    chosen = np.random.default_rng(3).permutation(1437) < 90  # 89.8 of the 1437
    weighted = fdl.data.Arrays(x=train["x"], y=train["y"], weight=chosen.astype(np.float32))
    result = fdl.run(by_hand(config, "weight", train=weighted, evaluate={}))
    np.testing.assert_allclose(swept.history["train/loss"][1], result.history["train/loss"], rtol=1e-5)


def test_with_all_images_every_draw_is_the_same_member_to_the_bit(swept):
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(swept.buckets[0].params)]
    assert all(np.array_equal(leaf[2], leaf[3]) for leaf in leaves)
    assert not any(np.array_equal(leaf[0], leaf[1]) for leaf in leaves)


def test_in_one_batch_it_equals_a_run_on_its_images_alone_and_in_small_ones_it_does_not():
    """The mean over 90 weighted rows of 1437 is the mean over 90 rows, to rounding."""
    config, train = dataclasses.replace(SMALL, share=0.0625), fdl.data.load("digits", split="train")
    alone = train.take(ranks(1437)[:, 0] < 90)

    def losses(experiment: fdl.Experiment, images: Any, rows: Any) -> np.ndarray:
        update, batch = experiment.update(), {name: images[name][rows] for name in images.arrays["tree"]}

        def trained():
            start = update.init(jax.random.key(0))
            return jax.lax.scan(lambda now, _: update(now, batch, jax.random.key(1)), start, length=10)[1]["loss"]

        return np.asarray(jax.jit(trained, compiler_options=QUICK)())

    masked: Any = build(config)
    one = losses(masked, masked.dataset, slice(None))
    np.testing.assert_allclose(one, losses(by_hand(config, None), alone, slice(None)), rtol=1e-5)
    few = losses(masked, masked.dataset, slice(128))
    assert abs(few - one).max() > 0.01


def test_a_batch_without_an_image_that_counts_changes_nothing():
    experiment: Any = build(dataclasses.replace(SMALL, share=0.0625))
    update = dataclasses.replace(experiment, optimizer=optax.sgd(1.0)).update()
    rest = np.flatnonzero(experiment.dataset["rank"][:, 0] >= 90)[:8]
    batch = {name: experiment.dataset[name][rest] for name in ("x", "y", "rank")}
    before = update.init(jax.random.key(0))
    after, metrics = jax.jit(update)(before, batch, jax.random.key(1))
    assert metrics["loss"] == 0
    assert all(map(np.array_equal, jax.tree.leaves(before.params), jax.tree.leaves(after.params)))


@pytest.mark.slow
def test_more_images_are_worth_what_the_picture_shows(tmp_path, monkeypatch, capsys):
    """Measured, 25 members each: 70.2, 87.0 and 98.0 % with 22, 90 and 1437 images, standard errors below 1 %."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learning_curve, "SHARES", [SHARES[0], SHARES[2], SHARES[-1]])
    monkeypatch.setattr(learning_curve, "SEEDS", 1)
    learning_curve.main()
    lines = capsys.readouterr().out.splitlines()
    few, some, every = (float(line.split()[2].rstrip("%")) for line in lines if "images" in line)
    assert 60 < few < 78
    assert few + 8 < some < every - 5
    assert every >= 96.5
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000
