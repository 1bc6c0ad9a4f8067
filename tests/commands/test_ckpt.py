"""`fdl ckpt`: what is in checkpoints, where two differ, and the weights of one in a file that others read."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

import fdl
from fdl import nn
from fdl.cli import main
from fdl.core import leaves
from fdl.runs.checkpoints import ARRAYS, Checkpoints

MODEL = nn.Serial(nn.Linear(5, 8, use_bias=False), nn.BatchNorm(8), jax.nn.relu, head=nn.Linear(8, 2))


@dataclass(frozen=True)
class Config:
    rate: float = 0.1


def experiment(**changes: Any) -> fdl.Experiment:
    rng = np.random.default_rng(0)
    sets = [fdl.data.Arrays(x=rng.normal(size=(n, 5)).astype(np.float32), y=rng.integers(0, 2, n)) for n in (30, 20)]
    made = fdl.Experiment(
        fdl.supervised(MODEL, fdl.losses.softmax_cross_entropy), optax.adam(0.05), sets[0], {"val": sets[1]},
        batch_size=10, num_steps=20, eval_every=2, checkpoint_every=10, select="val/loss",
    )  # fmt: skip
    return replace(made, **changes)


def called(*arguments: Any) -> int:
    return main(["ckpt", *map(str, arguments)])


def equal(tensors: Any, *trees: Any) -> None:
    expected = {name: np.asarray(leaf) for tree in trees for name, leaf in leaves(tree)}
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


def test_the_weights_of_a_run_in_a_file(tmp_path: Path, capsys):
    run, file = tmp_path / "run", tmp_path / "weights.safetensors"
    result = fdl.run(experiment(), folder=run)
    assert result.info["best_step"] < 20  # or the best and the last would be the same
    assert called("export", run, "-o", file) == 0
    equal(load_file(file), result.params, result.state)
    params, state, report = fdl.pretrained.load(MODEL, fdl.pretrained.read(file))
    assert report.complete
    equal({name: np.asarray(x) for tree in (params, state) for name, x in leaves(tree)}, result.params, result.state)
    whole = file.read_bytes()
    assert called("export", run, "-o", file, "--last") == 2
    assert "exists; --force overwrites it" in capsys.readouterr().err
    assert file.read_bytes() == whole
    assert called("export", run, "-o", file, "--last", "--force") == 0
    last = fdl.run(experiment(select=None))
    equal(load_file(file), last.params, last.state)
    assert called("export", run, "-o", file, "--step", "10", "--last", "--force") == 0
    before = fdl.run(experiment(select=None, num_steps=10))
    equal(load_file(file), before.params, before.state)
    assert set(tmp_path.iterdir()) == {run, file}  # nothing half-written stays


def test_the_weights_of_a_member(tmp_path: Path, capsys):
    result = fdl.sweep(lambda config: experiment(), Config(), seeds=[0, 1, 2], folder=tmp_path / "s")
    file = tmp_path / "weights.safetensors"
    assert called("export", tmp_path / "s", "-o", file, "--member", "1") == 0
    member = result.member(1)
    equal(load_file(file), member.params, member.state)
    for wrong in ([], ["--member", "3"]):
        assert called("export", tmp_path / "s", "-o", file, "--force", *wrong) == 2
        assert "expected a member, 0 .. 2" in capsys.readouterr().err


def test_what_cannot_be_exported_is_said(tmp_path: Path, capsys):
    fdl.run(experiment(select=None), folder=tmp_path / "run")
    file = tmp_path / "file"

    def refused(*arguments: Any) -> str:
        assert called("export", *arguments) == 2
        assert not file.exists()
        return capsys.readouterr().err

    assert "there is no best" in refused(tmp_path / "run", "-o", file, "--best")
    assert "choose one" in refused(tmp_path / "run", "-o", file, "--best", "--last")
    assert "where to? -o FILE" in refused(tmp_path / "run")
    assert "in a folder that exists" in refused(tmp_path / "run", "-o", tmp_path / "none" / "file")
    assert "in a folder that exists" in refused(tmp_path / "run", "-o", tmp_path)
    assert "no checkpoint of step 5; there are [10, 20]" in refused(tmp_path / "run", "-o", file, "--step", "5")
    assert "expected no member" in refused(tmp_path / "run", "-o", file, "--member", "0")
    assert "expected RUN, got 0 names" in refused("-o", file)
    (tmp_path / "empty").mkdir()
    assert "there is no checkpoint" in refused(tmp_path / "empty", "-o", file)


def test_damage_is_shown_and_named(tmp_path: Path, capsys):
    fdl.run(experiment(), folder=tmp_path / "run")
    assert called("show", tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert out.count("verified") == 2
    for shown in ("step  20", "scale_by_adam/b1  0.9", "run/carry/train/params/0/kernel", "[5, 8]", "float32"):
        assert shown in out
    (tmp_path / "run" / "checkpoints" / "00000020" / ARRAYS).write_bytes(b"x")
    assert called("show", tmp_path / "run") == 1
    out = capsys.readouterr().out
    assert f"{ARRAYS}: is damaged (1 bytes" in out
    assert "step  10" in out  # what is in the newest that is whole
    assert called("show", tmp_path / "run" / "checkpoints" / "00000010") == 0


def test_where_two_runs_differ(tmp_path: Path, capsys):
    one, other, wide = (tmp_path / name for name in ("one", "other", "wide"))
    fdl.run(experiment(), folder=one)
    fdl.run(experiment(optimizer=optax.adam(0.1)), folder=other)
    assert called("diff", one, one) == 0
    assert "same bits" in capsys.readouterr().out
    assert called("diff", one, other) == 1
    out = capsys.readouterr().out
    assert out.count(" apart ") <= 10
    assert re.search(r"and \d+ more \(--all shows them\)", out)
    assert called("diff", one, other, "--all") == 1
    out = capsys.readouterr().out
    assert "more (--all" not in out
    assert "optimizer chain/1/scale/step_size: was -0.05, is -0.1" in out
    a, b = (Checkpoints(run / "checkpoints").newest()[0].arrays["run/carry/train/params/0/kernel"] for run in (one, other))  # fmt: skip  # pyright: ignore  # noqa: E501
    assert f"apart by up to {np.abs(a.astype(np.float64) - b).max():.3g}" in out
    model = nn.Serial(nn.Linear(5, 9, use_bias=False), nn.BatchNorm(9), jax.nn.relu, top=nn.Linear(9, 2))
    fdl.run(experiment(task=fdl.supervised(model, fdl.losses.softmax_cross_entropy)), folder=wide)
    assert called("diff", one, wide, "--all") == 1
    out = capsys.readouterr().out
    assert "model: was " in out
    assert "float32[5, 8] and float32[5, 9]" in out
    assert "only in A" in out
    assert "only in B" in out


def test_names_in_a_checkpoint_reach_no_file_and_no_terminal(tmp_path: Path, capsys):
    checkpoints = Checkpoints(tmp_path / "in" / "checkpoints")
    name = "../../evil\x1b[31m\n"
    arrays = {f"run/carry/train/params/{name}": np.ones(2), "run/ended": np.int64(1)}
    checkpoints.save(1, {name: np.asarray(x) for name, x in arrays.items()}, {"names": [], "stopped_at": None})
    checkpoints.wait()
    assert called("show", tmp_path / "in") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert called("export", tmp_path / "in", "-o", tmp_path / "out") == 0
    assert load_file(tmp_path / "out").keys() == {name}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_what_was_typed_wrongly(capsys):
    for words, said in (([], "show, diff or export?"), (["shwo"], "did you mean 'show'?"), (["show"], "expected RUN")):
        assert called(*words) == 2
        assert said in capsys.readouterr().err
    assert called("diff", "a") == 2
    assert "expected A and B, got 1 names" in capsys.readouterr().err
    assert called("--help") == 0
    assert "fdl ckpt export RUN" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
