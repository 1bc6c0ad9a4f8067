"""A checkpoint that does not fit is taken in part, under other names, in other types: only where that was asked for."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from fdl.cli import main
from fdl.runs.checkpoints import Checkpoints, Saved
from fdl.training.run import execute
from tests.training.test_resume import UnpluggedError, unplug
from tests.training.test_run import assert_same_bits


def model(out: int = 2, **names: Any) -> fdl.Layer:
    return nn.Serial(body=nn.Linear(5, 8), act=jax.nn.relu, **(names or {"head": nn.Linear(8, out)}))


def experiment(layer: fdl.Layer | None = None, **changes: Any) -> fdl.Experiment:
    rng = np.random.default_rng(0)
    data = fdl.data.Arrays(x=rng.normal(size=(30, 5)).astype(np.float32), y=rng.integers(0, 2, 30))
    settings: Any = {"batch_size": 10, "num_steps": 9, "eval_every": 2, "checkpoint_every": 4, "select": "val/loss"}
    task = fdl.supervised(layer or model(), fdl.losses.softmax_cross_entropy)
    return replace(fdl.Experiment(task, optax.adam(0.01), data, {"val": data}, **settings), **changes)


def stopped(folder: Path, made: fdl.Experiment | None = None) -> Saved:
    """The checkpoint after step 4 of a run that was cut off after it."""
    with pytest.raises(UnpluggedError):
        fdl.run(made or experiment(), folder=folder, chunk=1, hooks=[unplug(5)])
    saved = Checkpoints(folder / "checkpoints").newest()[0]
    assert saved is not None
    assert saved.step == 4
    return saved


def begun(folder: Path, made: fdl.Experiment, how: fdl.Resume) -> tuple[dict[str, np.ndarray], list[str]]:
    """The parameters as they were taken, before the next step, and what was said."""
    said: list[str] = []
    how = replace(how, accept=[*how.accept, "num_steps", "precision"])
    execute(replace(made, num_steps=4), folder=folder, resume=how, tell=said.append)
    session = json.loads((folder / "manifest.json").read_text())["resumed"][-1]
    changes = session.get("changes", [])
    lines = [line for line in changes if not line.startswith(("num_steps:", "precision:", "model:"))]
    for line in changes[:5]:  # what the manifest keeps was said as well
        assert any(line in text for text in said)
    return _taken(folder, made, how), lines


def _taken(folder: Path, made: fdl.Experiment, how: fdl.Resume) -> dict[str, np.ndarray]:
    from fdl.training.driver import Driver
    from fdl.training.executables import Programs
    from fdl.training.recipe import Recipe
    from fdl.training.run import run_key
    from fdl.training.snapshot import flat

    programs = Programs(Recipe(made), run_key(0), {})
    driver = Driver(programs, run_key(0), {})
    saved = Checkpoints(folder / "checkpoints").newest()[0]
    assert saved is not None
    driver.restore(saved, how)
    return flat({"carry": driver.carry, "best": driver.best})


def same(taken: dict[str, np.ndarray], path: str, saved: Saved, before: str | None = None) -> None:
    np.testing.assert_array_equal(taken[path], saved.arrays[f"run/{before or path}"])


def test_a_new_head_begins_anew_and_the_rest_goes_on(tmp_path: Path):
    saved, wide = stopped(tmp_path / "run"), experiment(model(3))
    with pytest.raises(fdl.InputError, match=r"! carry/train/params/head/kernel: expected float32\[8, 3\]"):
        fdl.run(wide, folder=tmp_path / "run", resume=fdl.Resume(cast=True))
    taken, lines = begun(tmp_path / "run", wide, fdl.Resume(partial=True))
    for path in ("params/body/kernel", "opt_state/0/mu/body/bias", "opt_state/0/count"):
        same(taken, f"carry/train/{path}", saved)
    first = fdl.init(model(3), fdl.fold(jax.random.key(0), "init"))[0]
    np.testing.assert_array_equal(taken["carry/train/params/head/kernel"], first["head"]["kernel"])
    assert not taken["carry/train/opt_state/0/mu/head/kernel"].any()
    assert "not taken: ! carry/train/params/head/bias: expected float32[3], got float32[2]" in lines
    assert "selection begins anew, as the best parameters do not fit" in lines
    assert taken["best/step"] == 0  # a best step without its parameters would return those of the beginning
    assert any(path.startswith("run/best/step") and array == 4 for path, array in saved.arrays.items())


def test_a_layer_under_another_name_keeps_everything(tmp_path: Path):
    saved, other = stopped(tmp_path / "run"), experiment(model(top=nn.Linear(8, 2)))
    with pytest.raises(fdl.InputError, match=r"- best/params/top/bias: missing"):
        fdl.run(other, folder=tmp_path / "run", resume=True)
    taken, lines = begun(tmp_path / "run", other, fdl.Resume(rename=[("/head/", "/top/")]))
    for part in ("carry/train/params", "carry/train/opt_state/0/nu", "best/params"):
        same(taken, f"{part}/top/kernel", saved, f"{part}/head/kernel")
    same(taken, "best/step", saved)
    assert "carry/train/params/head/bias: renamed carry/train/params/top/bias" in lines
    assert len(lines) == 2 * 4


def test_other_types_are_cast(tmp_path: Path):
    saved = stopped(tmp_path / "run")
    task = experiment().task

    def init(key: jax.Array) -> Any:
        params, state = task.init(key)
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16), params), state

    half = experiment(task=replace(task, init=init), precision="bfloat16", eval_every=None, select=None)
    half = replace(half, select="val/loss", eval_every=2)
    with pytest.raises(fdl.InputError, match=r"expected bfloat16\[8\], got float32\[8\]"):
        fdl.run(half, folder=tmp_path / "run", resume=True)
    taken, lines = begun(tmp_path / "run", half, fdl.Resume(cast=True))
    kernel = saved.arrays["run/carry/train/params/body/kernel"]
    np.testing.assert_array_equal(taken["carry/train/params/body/kernel"], kernel.astype(jnp.bfloat16))
    assert "carry/train/params/body/kernel: cast from float32 to bfloat16" in lines


def test_another_optimizer_is_taken_only_in_part(tmp_path: Path):
    saved, nadam = stopped(tmp_path / "run"), experiment(optimizer=optax.nadam(0.01))
    for how in (True, fdl.Resume(cast=True), fdl.Resume(rename=[("x", "y")])):
        with pytest.raises(fdl.InputError, match="is of another optimizer"):
            fdl.run(nadam, folder=tmp_path / "run", resume=how)
    taken, lines = begun(tmp_path / "run", nadam, fdl.Resume(partial=True))
    same(taken, "carry/train/opt_state/0/mu/body/kernel", saved)
    assert lines == ["optimizer: chain/0/scale_by_adam/nesterov: was False, is True"]


def test_what_nothing_can_stand_in_for_is_refused(tmp_path: Path):
    """The order of the examples in this epoch: without it, all that is left of the epoch would be the first example."""
    stopped(tmp_path / "run", experiment(train=fdl.data.Full(**experiment().dataset.arrays["tree"]), batch_size=None))
    with pytest.raises(fdl.InputError, match=r"carry/order: expected int32\[30\], got .*start a new run"):
        fdl.run(experiment(), folder=tmp_path / "run", resume=fdl.Resume(partial=True))


def test_a_run_goes_on_for_longer_than_it_was_to(tmp_path: Path):
    stopped(tmp_path / "run")
    whole = fdl.run(experiment(num_steps=12))
    again = fdl.run(experiment(num_steps=12), folder=tmp_path / "run", resume=fdl.Resume(accept=["num_steps"]))
    assert_same_bits(whole.history, again.history)
    assert again.changes == ("num_steps: was 9, is 12",)
    assert again.info["steps"] == 12
    stopped(tmp_path / "other")
    with pytest.raises(fdl.InputError, match="is after step 4, the experiment has only 3"):
        fdl.run(experiment(num_steps=3), folder=tmp_path / "other", resume=True)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ([("(", "x")], r"rename: \(=x: "),
        ([("a", r"\2")], "rename: a="),
        ([("/(body|head)/", "/x/")], "two arrays would"),
        ([("^head/", "top/")], r"rename: '\^head/' is found in no path; there is best/params/body/bias, for"),
    ],
)
def test_renaming_that_cannot_be(rename: Any, message: str, tmp_path: Path):
    stopped(tmp_path / "run")
    with pytest.raises(fdl.InputError, match=message):
        fdl.run(experiment(), folder=tmp_path / "run", resume=fdl.Resume(rename=rename))


def test_the_command(tmp_path: Path, monkeypatch, capsys):
    """A layer gets another name in the file; the run goes on, and says so."""
    text = """
from dataclasses import dataclass
import jax, numpy as np, optax, fdl
STOP = True
class Unplugged(KeyboardInterrupt): pass
@dataclass(frozen=True)
class Config:
    rate: float = 0.1
def report(outputs):
    if STOP: raise Unplugged
    return 0.0
def build(config):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    data = fdl.data.Arrays(x=x, y=(x.sum(1) > 0).astype(np.int32))
    task = fdl.supervised(fdl.nn.Serial(head=fdl.nn.Linear(3, 2)), fdl.losses.softmax_cross_entropy)
    return fdl.Experiment(task, optax.adam(config.rate), data, {"val": data}, num_steps=8, batch_size=10,
                          eval_every=6, checkpoint_every=3, reports={"r": report})
"""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(text)
    monkeypatch.setattr(sys, "argv", ["fdl", "run", "toy.py"])
    assert main(["run", "toy.py"]) != 0
    (run,) = (str(path) for path in (tmp_path / "runs" / "toy").iterdir())
    (tmp_path / "toy.py").write_text(text.replace("STOP = True", "STOP = False").replace("head=", "top="))
    capsys.readouterr()
    assert main(["resume", run, "--accept", "source"]) == 2
    printed = capsys.readouterr().err
    assert "- carry/train/params/top/bias: missing, expected float32[2]" in printed
    assert "--rename" in printed  # what can be done about it
    assert main(["resume", run, "--rename", "/head/"]) == 2
    assert "expected REGEX=REPLACEMENT, got '/head/'" in capsys.readouterr().err
    assert main(["resume", run, "--rename", "/head/=/top/"]) == 0
    out = capsys.readouterr().out
    assert "the checkpoint is not taken as it is:\n  carry/train/opt_state/0/mu/head/bias: renamed " in out
    assert "going on after step 3" in out
