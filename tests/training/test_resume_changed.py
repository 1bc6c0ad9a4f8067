"""What decides the rest of a run is compared at a resume: a change is refused by its name, or taken by it."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fdl
from fdl import losses, nn
from fdl.cli import main
from fdl.runs.checkpoints import Checkpoints
from fdl.runs.fitting import AS_IT_IS, Resume
from fdl.training.deciding import SETTINGS, deciding, described
from tests.training.test_resume import UnpluggedError, unplug
from tests.training.test_run import assert_same_bits

SCALE = 2.0


def scaled(outputs: Any, targets: Any) -> Any:
    return SCALE * losses.softmax_cross_entropy(outputs, targets)


def task(**changes: Any) -> fdl.Task:
    settings: Any = {"model": nn.Linear(3, 3), "loss": losses.softmax_cross_entropy, **changes}
    return fdl.supervised(**settings)


def experiment(**changes: Any) -> fdl.Experiment:
    rng = np.random.default_rng(0)
    data = fdl.data.Arrays(x=rng.normal(size=(13, 3)).astype(np.float32), y=rng.integers(0, 3, 13), w=np.ones(13))
    settings: Any = {"batch_size": 4, "num_steps": 8, "checkpoint_every": 2, "eval_every": 4, "evaluate": {"val": data}}
    return fdl.Experiment(**{"task": task(), "optimizer": optax.sgd(0.5), "train": data, **settings, **changes})


CHANGES: dict[str, dict[str, Any]] = {
    "batch_size": {"batch_size": 2},
    "eval_batch_size": {"eval_batch_size": 3},
    "num_steps": {"num_steps": 12},
    "eval_every": {"eval_every": 2},
    "accumulate": {"accumulate": 2},
    "precision": {"precision": "bfloat16"},
    "nonfinite": {"nonfinite": "skip"},
    "trainable": {"trainable": [("bias", False)]},
    "select": {"select": "val/loss"},
    "mode": {"mode": "max"},
    "patience": {"select": "val/loss", "patience": 3},
    "min_delta": {"min_delta": 0.1},
    "augment": {"augment": lambda batch, key: {**batch, "x": batch["x"] / 2}},
    "eval_params": {"eval_params": lambda params, state: params},
    "loss": {"task": task(loss=lambda o, y: 2 * losses.softmax_cross_entropy(o, y))},
    "weight": {"task": task(weight="w")},
    "inputs": {"task": task(inputs=("x", {}))},
    "targets": {"task": task(targets="w")},
    "metrics/accuracy": {"task": task(metrics={"accuracy": fdl.metrics.accuracy})},
    "model": {"task": task(model=nn.Linear(3, 3, use_bias=False))},
    "objective": {"task": fdl.Task(task().init, lambda *a, **k: task().objective(*a, **k))},  # pyright: ignore
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused_by_name_or_taken(name: str):
    before, now = deciding(experiment()), deciding(experiment(**CHANGES[name]))
    assert AS_IT_IS.compared(before, deciding(experiment()), "here") == []
    with pytest.raises(fdl.InputError, match=rf"(?s)\n  {name}: was .*--accept .*{name.partition('/')[0]}"):
        AS_IT_IS.compared(before, now, "here")
    changed = [each for each in {**before, **now} if before.get(each) != now.get(each)]
    assert any(line.startswith(f"{name}: was") for line in Resume(accept=changed).compared(before, now, "here"))


def test_every_setting_is_in_the_table():
    assert set(SETTINGS) <= set(CHANGES)


def test_a_function_is_known_by_what_it_computes():
    def closing(factor: float) -> Any:
        return lambda o, y: factor * losses.softmax_cross_entropy(o, y)

    assert described(closing(2.0)) == described(closing(2.0)) != described(closing(3.0))
    first = described(scaled)
    globals()["SCALE"] = 3.0
    try:
        assert described(scaled) != first
    finally:
        globals()["SCALE"] = 2.0
    assert described(functools.partial(losses.softmax_cross_entropy, label_smoothing=0.1)) != described(
        functools.partial(losses.softmax_cross_entropy, label_smoothing=0.2)
    )
    assert described(jax.jit(scaled)) == first


def test_a_function_has_the_same_words_in_another_process():
    """Among them a set, whose order is another one in each process."""
    code = (
        "from fdl.training.deciding import described\ndef f(x): return x in {'a', 'b', 'c'} or [x]\nprint(described(f))"
    )
    run = [sys.executable, "-c", code]
    texts = {subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(texts) == 1
    assert "code" in texts.pop()


def test_a_changed_run_is_refused_before_anything_is_lost_and_told_where_it_is_taken(tmp_path: Path):
    folder = tmp_path / "run"
    with pytest.raises(UnpluggedError):
        fdl.run(experiment(), folder=folder, chunk=1, hooks=[unplug(5)])
    other = experiment(task=task(loss=scaled), batch_size=2)
    with pytest.raises(fdl.InputError, match=r"(?s)batch_size: was 4, is 2\n  loss: was .*--accept batch_size,loss"):
        fdl.run(other, folder=folder, resume=True)
    with pytest.raises(fdl.InputError, match="nothing is called 'batchsize'.*batch_size"):
        fdl.run(other, folder=folder, resume=fdl.Resume(accept=["batchsize"]))
    result = fdl.run(other, folder=folder, resume=fdl.Resume(accept=["batch_size", "loss"]))
    assert result.changes[0] == "batch_size: was 4, is 2"
    told = [json.loads((folder / name).read_text()) for name in ("result.json", "manifest.json")]
    assert told[0]["changes"] == told[1]["resumed"][-1]["changes"] == [*result.changes]


def test_a_finished_run_is_trained_longer(tmp_path: Path):
    """The first steps, and those after them, are those of a longer run with the same schedule."""

    def build(config: None) -> fdl.Experiment:
        return experiment(optimizer=optax.adam(optax.linear_schedule(0.1, 0.01, 8)), eval_every=8)

    folder = tmp_path / "run"
    short = fdl.run(build, folder=folder)
    longer = fdl.run(build, folder=folder, resume=fdl.Resume(num_steps=16))
    whole = fdl.run(build(None).until(16))
    assert_same_bits((longer.params, longer.history), (whole.params, whole.history))
    assert_same_bits(short.history["train/loss"], longer.history["train/loss"][:8])
    assert longer.changes == ("num_steps: was 8, is 16",)
    assert json.loads((folder / "manifest.json").read_text())["num_steps"] == 16
    with pytest.raises(fdl.InputError, match="is after step 16, the experiment has only 12"):
        fdl.run(build, folder=folder, resume=fdl.Resume(num_steps=12))


def test_a_checkpoint_without_the_record_goes_on_with_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from fdl.training.run import execute

    save = Checkpoints.save
    with monkeypatch.context() as old:
        old.setattr(Checkpoints, "save", lambda self, step, arrays, facts, keep: save(
            self, step, arrays, {name: fact for name, fact in facts.items() if name != "decides"}, keep))  # fmt: skip
        with pytest.raises(UnpluggedError):
            fdl.run(experiment(), folder=tmp_path / "run", chunk=1, hooks=[unplug(5)])
    said: list[str] = []
    result = execute(replace(experiment(), eval_every=8), folder=tmp_path / "run", resume=True, tell=said.append)
    assert result.info["steps"] == 8
    assert any("does not say what batch size" in line for line in said)


FILE = """
from dataclasses import dataclass
import numpy as np, optax, fdl
from fdl import nn
from beside import RATE

@dataclass(frozen=True)
class Config:
    steps: int = 6

def build(config):
    data = fdl.data.Arrays(x=np.ones((8, 3), np.float32), y=np.arange(8) % 2)
    task = fdl.supervised(nn.Linear(3, 2), fdl.losses.softmax_cross_entropy)
    return fdl.Experiment(task, optax.sgd(RATE), data, batch_size=4, num_steps=config.steps, checkpoint_every=2)
"""


def test_the_command_runs_only_the_file_that_it_was_and_takes_named_changes(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(FILE)
    (tmp_path / "beside.py").write_text("RATE = 0.1\n")
    # as from a shell: what the run is resumed with is the command of the process
    monkeypatch.setattr(sys, "argv", ["fdl", "run", "toy.py"])
    assert main(["run", "toy.py"]) == 0
    (folder,) = (tmp_path / "runs" / "toy").iterdir()
    assert set(json.loads((folder / "manifest.json").read_text())["source"]) == {"toy.py", "beside.py"}

    def resumed(*arguments: str) -> tuple[int, str]:
        sys.modules.pop("beside", None)
        capsys.readouterr()
        code = main(["resume", str(folder), *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    code, text = resumed()
    assert (code, "--num-steps N" in text) == (2, True)
    code, text = resumed("--num-steps", "8")
    assert code == 0, text
    assert "schedules go on as they were built" in text
    assert json.loads((folder / "result.json").read_text())["steps"] == 8

    (tmp_path / "beside.py").write_text("RATE = 0.1  # as before\n")
    code, text = resumed("--num-steps", "10")
    assert (code, "source/beside.py: was" in text) == (2, True), text
    (tmp_path / "toy.py").write_text(FILE + "\n# edited\n")
    code, text = resumed("--num-steps", "10")
    assert (code, "is not as it was when the run was started" in text) == (2, True), text
    code, text = resumed("--num-steps", "10", "--accept", "source")
    assert code == 0, text
    changes = json.loads((folder / "result.json").read_text())["changes"]
    assert [line.partition(":")[0] for line in changes] == [
        "num_steps",
        "num_steps",
        "source/beside.py",
        "source/toy.py",
    ]

    (tmp_path / "toy.py").rename(tmp_path / "moved.py")
    code, text = resumed("--num-steps", "12")
    assert (code, "is not there; name the file" in text) == (2, True), text
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({n: v for n, v in manifest.items() if n != "source"}))
    (tmp_path / "moved.py").rename(tmp_path / "toy.py")
    code, text = resumed("--num-steps", "12")
    assert (code, "--trust" in text) == (2, True), text
    code, text = resumed("toy.py", "--num-steps", "12")
    assert code == 0, text
