"""What an ensemble says is worked out by hand, and the picture of a sweep shows what it should."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.training.sweep_picture import _far, shown


@dataclass(frozen=True)
class Config:
    learning_rate: float = 0.1
    width: int = 1
    kind: str = "plain"


def build(config: Config) -> fdl.Experiment:
    data = fdl.data.Arrays(x=np.ones((4, 1), np.float32), y=np.ones((4, config.width), np.float32))
    task = fdl.supervised(fdl.nn.Linear(1, config.width), fdl.losses.squared_error)
    return fdl.Experiment(task, optax.sgd(config.learning_rate), data, {"test": data}, num_steps=9, eval_every=3)


def linear(params, state, x):
    return x @ params["kernel"] + params["bias"]


def test_members_predict_together():
    result = fdl.sweep(build, Config(), seeds=range(3))
    ensemble = fdl.Ensemble.of(result, linear)
    x = jnp.array([[0.5], [2.0]])
    each = np.stack([linear(result.member(i).params, {}, x) for i in range(3)])
    np.testing.assert_allclose(ensemble(x), each, rtol=1e-6)
    np.testing.assert_allclose(ensemble.mean(x), each.mean(0), rtol=1e-6)
    np.testing.assert_allclose(ensemble.variance(x), each.var(0), rtol=1e-5)
    np.testing.assert_allclose(fdl.Ensemble.of(result, linear, [2, 0])(x), each[[2, 0]], rtol=1e-6)


def test_disagreement_is_nothing_for_equal_members_and_the_log_of_their_number_for_opposite_ones():
    def logits(params, state, x):
        return params[None, :]

    def ensemble(*members):
        return fdl.Ensemble(logits, jnp.array(members), {})

    same, opposite = ensemble([1.0, 2.0], [1.0, 2.0]), ensemble([50.0, 0.0], [0.0, 50.0])
    assert float(same.disagreement(None)[0]) == pytest.approx(0, abs=1e-6)
    assert float(opposite.disagreement(None)[0]) == pytest.approx(np.log(2), rel=1e-5)
    np.testing.assert_allclose(opposite.probabilities(None), [[0.5, 0.5]], rtol=1e-5)
    # certain and right half of the time: the mixture says so, a member alone would be wrong by a half
    labels = jnp.array([0])
    assert float(opposite.calibration(None, labels).error()) == pytest.approx(0.5, rel=1e-5)
    assert float(ensemble([50.0, 0.0]).calibration(None, labels).error()) == pytest.approx(0, abs=1e-5)


def test_members_of_different_shapes_are_no_ensemble():
    result = fdl.sweep(build, Config(), over={"width": [1, 2]})
    with pytest.raises(fdl.InputError, match="differ in shape"):
        fdl.Ensemble.of(result, linear)
    with pytest.raises(fdl.InputError, match="at least one"):
        fdl.Ensemble.of(result, linear, [])


def test_the_picture_is_drawn_for_numbers_words_and_failures(tmp_path: Path):
    over = {"learning_rate": [1e-3, 1e-1, 1e12], "kind": ["plain", "fancy"]}
    result = fdl.sweep(build, Config(), over=over, seeds=[0, 1])
    assert shown(result, None) == "test/loss"
    for name in ("picture.png", "picture.svg"):
        result.draw(tmp_path / name)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "picture.svg").read_text()
    assert text.count("<use") > 12  # a dot for each member, and the means
    assert "dots: members; line: mean of 4 members" in text
    assert "band: smallest to largest of 4 members" in text
    assert "4 of 12 members have no test/loss" in text
    with pytest.raises(fdl.InputError, match="did you mean"):
        result.draw(tmp_path / "no.png", "test/los")
    jax.block_until_ready(result.buckets[0].params)


@pytest.mark.parametrize(
    ("values", "logarithmic", "far"),
    [
        ([0.5, 0.6, 1e6], False, [2]),
        ([0.5, 0.6, -1e6, np.nan], False, [2]),
        ([0.1, 0.9, 0.95, 0.9001], False, []),
        ([0.5, 1e6], False, []),  # nobody knows which of them is right
        ([0.5, 1e6, 2e6, 0.4, 0.3], False, [1, 2]),
        ([0.5, 100.0, 0.6], True, []),
        ([0.5, 1e7, 0.6], True, [1]),
        ([1e-13, 1e-13, 1e-2, 1.0, 1e6], True, []),  # a logarithmic axis shows them all
        ([0.0, 0.0, 0.9], False, []),  # an accuracy
        ([0.01, 0.02, 0.9], False, []),
        ([1.0, 2.0, 95.0], False, []),  # in percent
        ([0.0, 0.0, 1e3], False, [2]),
        ([np.nan, np.nan, 0.5], False, []),
    ],
    ids=str,
)
def test_a_member_that_would_squeeze_the_axis_is_far(values, logarithmic, far):
    assert np.flatnonzero(_far(np.array(values)[:, None], logarithmic)).tolist() == far


def test_a_member_beyond_the_axis_is_told(tmp_path: Path):
    """The error of the large rate grows 63-fold at each step."""
    result = fdl.sweep(build, Config(), {"learning_rate": [1e-2, 2e-2, 16.0]})
    result.draw(tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert "1 of 3 members beyond the axis, test/loss up to" in text
    assert "a line is one member: no band" in text
