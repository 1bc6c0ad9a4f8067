"""What an older fdl has written stays readable: a golden checkpoint of each version of the format."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import fdl
from fdl.errors import InputError
from fdl.runs import checkpoints as module
from fdl.runs.checkpoints import FORMAT, read, verify
from fdl.runs.stored import weights
from fdl.training.driver import Driver
from fdl.training.executables import Programs
from fdl.training.optimizer_facts import facts_of
from fdl.training.recipe import Recipe
from fdl.training.run import run_key
from fdl.training.snapshot import flat
from tests.runs.golden.make import HERE, MODEL, experiment

ALL = sorted(HERE.glob("format-*"))
SUM = -3.0705175399780273  # of head/kernel, at the best evaluation
KEY, VALUES = [111001630, 4008298360], [3.956561247507731, 3.2150203386942544, 2.8550596237182617]


def test_there_is_one_of_each_version():
    assert [path.name for path in ALL] == [f"format-{number + 1}" for number in range(FORMAT)]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_is_read_and_verified(path: Path):
    saved = read(path / "00000005")
    assert verify(path / "00000005")["format"] == int(path.name.removeprefix("format-"))
    assert (saved.step, saved.facts["stopped_at"], saved.facts["names"]) == (5, None, ["train/loss", "val/loss"])
    arrays = saved.arrays
    assert len(arrays) == 51
    assert arrays["run/carry/train/params/extra"].dtype == jax.numpy.bfloat16
    assert arrays["run/carry/train/state/count"].dtype == np.int8
    assert arrays["run/carry/train/state/count"] == 3
    assert arrays["run/carry/train/state/key"].tolist() == KEY
    np.testing.assert_array_equal(arrays["steps/train/loss"], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(arrays["history/val/loss"], VALUES)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_a_run_goes_on_from_it(path: Path):
    """Every array gets to where it belongs, whatever JAX and Optax are by now."""
    made, key = experiment(), run_key(0)
    saved = read(path / "00000005")
    saved = saved._replace(facts={**saved.facts, "optimizer": facts_of(made.optimizer)})
    driver = Driver(Programs(Recipe(replace(made, num_steps=7)), key, {}), key, {})
    assert driver.restore(saved) == []
    for name, array in flat({"carry": driver.carry, "best": driver.best}).items():  # before a step donates them
        np.testing.assert_array_equal(array, saved.arrays[f"run/{name}"])
    result = driver.drive().result()
    assert result.steps["train/loss"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert result.info["seconds_train"] > saved.facts["seconds"]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_its_weights_are_those_of_the_model(path: Path):
    tensors = weights(read(path / "00000005"))
    params, state, _ = fdl.pretrained.load(MODEL, tensors, strict=False)
    fdl.check(MODEL, params, state)
    assert float(np.sum(tensors["head/kernel"])) == pytest.approx(SUM, rel=1e-6)


def test_a_newer_one_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FORMAT", FORMAT + 1)
    checkpoints = module.Checkpoints(tmp_path)
    checkpoints.save(1, {"x": np.ones(1)}, {})
    checkpoints.wait()
    monkeypatch.setattr(module, "FORMAT", FORMAT)
    shutil.copytree(ALL[-1] / "00000005", tmp_path / "00000000")  # an older one beside it is not gone back to
    with pytest.raises(InputError, match=f"has format {FORMAT + 1}; this fdl reads up to {FORMAT}: update it"):
        checkpoints.newest()
