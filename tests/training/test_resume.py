# pyright: reportArgumentType=false
"""A run that was stopped goes on to the same bits as one that was not: parameters, optimiser, history, figures."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
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
from fdl.runs.checkpoints import Checkpoints, read
from fdl.runs.folder import RunFolder
from tests.training.test_run import arrays, assert_same_bits
from tests.training.test_sweep import Config, build

REPOSITORY = Path(__file__).parents[2]


class UnpluggedError(Exception):
    """What ends a run in these tests without a chance to save."""


def unplug(after: int):
    def hook(event: fdl.Event) -> None:
        if event.step >= after:
            raise UnpluggedError

    return hook


def saving(config: Config) -> fdl.Experiment:
    """Batch norm, dropout, momentum of two moments, nine steps between evaluations, seven between checkpoints."""
    return replace(build(config), checkpoint_every=7, select="test/loss", patience=3)


def stream(config: Config) -> fdl.Experiment:
    def batch_at(step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(step)
        return {"x": rng.normal(size=(10, 5)).astype(np.float32), "y": rng.integers(0, 2, 10)}

    return replace(saving(config), train=fdl.data.Stream(batch_at), batch_size=None, num_steps=config.steps)


def keyed(config: Config) -> fdl.Experiment:
    """A random key and a counter of a narrow type live in the state."""

    def init(key):
        return {"w": jnp.zeros(3)}, {"key": jax.random.fold_in(key, 1), "count": jnp.int8(0)}

    def step(params, state, opt_state, batch, *, key, optimizer):
        new, now = jax.random.split(state["key"])
        grads = {"w": params["w"] - jax.random.normal(now, (3,))}
        updates, opt_state = optimizer.update(grads, opt_state, params)
        state = {"key": new, "count": state["count"] + jnp.int8(1)}
        return optax.apply_updates(params, updates), state, opt_state, {"loss": (grads["w"] ** 2).sum()}

    return fdl.Experiment(fdl.Task(init, step=step), optax.adam(0.1), num_steps=config.steps, checkpoint_every=7)


@pytest.mark.parametrize("stop", [1, 6, 7, 8, 14, 20, 27, 36])
@pytest.mark.parametrize("chunk", [3, None])
def test_going_on_at_any_step_gives_the_same_bits(tmp_path: Path, stop: int, chunk: int | None):
    follows(tmp_path, saving, stop, chunk)


@pytest.mark.parametrize("kind", [stream, keyed], ids=["stream", "key in the state"])
def test_streams_and_keys_go_on(tmp_path: Path, kind):
    follows(tmp_path, kind, 20, 5)


def follows(place: Path, kind: Any, stop: int, chunk: int | None) -> None:
    config = Config()
    whole = fdl.run(kind, config, seed=3, folder=place / "whole", chunk=chunk)
    with pytest.raises(UnpluggedError):
        fdl.run(kind, config, seed=3, folder=place / "stopped", chunk=chunk or 4, hooks=[unplug(stop)])
    again = fdl.run(kind, config, seed=3, folder=place / "stopped", chunk=chunk, resume=True)
    raw = jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.extended) else x,
        ((whole.params, whole.state), (again.params, again.state)),
    )
    assert_same_bits(*raw)
    assert_same_bits(whole.history, again.history)
    assert_same_bits(whole.steps, again.steps)
    assert whole.metrics == again.metrics
    lines = [(place / name / "metrics.jsonl").read_text() for name in ("whole", "stopped")]
    assert lines[0] == lines[1]
    results = [json.loads((place / name / "result.json").read_text()) for name in ("whole", "stopped")]
    for each in results:
        del each["seconds_compile"], each["seconds_train"]
        each.pop("seconds_waiting", None)
    assert results[0] == results[1]
    one, other = (Checkpoints(place / name / "checkpoints").newest()[0] for name in ("whole", "stopped"))
    assert one is not None
    assert other is not None
    assert_same_bits(one.arrays, other.arrays)  # the optimiser's state as well


@pytest.mark.parametrize("stop", [5, 20, 40])
def test_sweeps_go_on(tmp_path: Path, stop: int):
    """Two programs, blocks of two members, halving aside: what is finished is not trained again."""

    def selecting(config: Config) -> fdl.Experiment:
        return replace(build(config), checkpoint_every=7, select="test/loss")

    options: Any = {"over": {"hidden": [4, 8], "learning_rate": [1e-3, 1e-2]}, "seeds": [0, 1], "max_members": 2}
    chunks: list[int] = []
    whole = fdl.sweep(selecting, Config(), **options, chunk=3, hooks=[lambda event: chunks.append(event.step)])
    seen = 0

    def hook(event: fdl.Event) -> None:
        nonlocal seen
        seen += 1
        if seen == stop:
            raise UnpluggedError

    with pytest.raises(UnpluggedError):
        fdl.sweep(selecting, Config(), **options, folder=tmp_path / "s", chunk=3, hooks=[hook])
    steps: list[int] = []
    counting = [lambda event: steps.append(event.step)]
    again = fdl.sweep(selecting, Config(), **options, folder=tmp_path / "s", chunk=3, hooks=counting, resume=True)
    assert_same_bits(whole.history, again.history)
    for number in range(8):
        assert_same_bits(whole.member(number).params, again.member(number).params)
    lost = len(steps) - (len(chunks) - stop)
    assert 0 <= lost <= 5  # the chunks since the last checkpoint: 7 steps, in chunks of 3 that an evaluation may divide


def test_halving_goes_on(tmp_path: Path):
    def selecting(config: Config) -> fdl.Experiment:
        return replace(build(config), checkpoint_every=5, select="test/loss")

    options: Any = {"over": {"learning_rate": [1e-4, 1e-3, 1e-2, 1e-1]}, "halving": 2}
    whole = fdl.sweep(selecting, Config(), **options)
    with pytest.raises(UnpluggedError):
        fdl.sweep(selecting, Config(), **options, folder=tmp_path / "s", chunk=3, hooks=[unplug(20)])
    again = fdl.sweep(selecting, Config(), **options, folder=tmp_path / "s", resume=True)
    assert_same_bits(whole.history, again.history)
    assert [again.member(i).info["steps"] for i in range(4)] == [whole.member(i).info["steps"] for i in range(4)]


def stopped(place: Path) -> Path:
    with pytest.raises(UnpluggedError):
        fdl.run(saving, Config(), folder=place / "run", chunk=4, hooks=[unplug(20)])
    return place / "run"


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path):
    folder = stopped(tmp_path)
    newest = max((folder / "checkpoints").iterdir())
    (newest / "arrays.safetensors").write_bytes(b"nothing")
    said: list[str] = []
    from fdl.training.run import execute

    again = execute(saving(Config()), build=saving, config=Config(), folder=folder, resume=True, tell=said.append)
    assert "is damaged" in said[0]
    assert str(newest) in said[0]
    assert said[1] == "going on after step 7"
    assert_same_bits(again.params, fdl.run(saving, Config()).params)


def test_what_does_not_belong_to_the_run_is_refused(tmp_path: Path):
    folder = stopped(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def refused(match: str, build=saving, config=None, seed=0):
        with pytest.raises(fdl.InputError, match=match):
            fdl.run(build, config or Config(), folder=folder, seed=seed, resume=True)

    refused(r"the config differs in learning_rate \(0.01, now 0.02\)", config=Config(learning_rate=0.02))
    refused("has seed 0, not 1", seed=1)
    refused(
        r"(?s)is of another optimizer;.*scale_by_adam/b1: was 0.9, is not there.*and \d+ more",
        build=lambda config: replace(saving(config), optimizer=optax.chain(optax.clip(1.0), optax.lion(1e-3))),
    )
    refused(
        r"(?s)! carry/train/params/head/kernel: expected float32\[8, 3\], got float32\[8, 2\]",
        build=lambda config: replace(
            saving(config),
            task=fdl.supervised(
                nn.Serial(
                    *(nn.Linear(5, 8, use_bias=False), nn.BatchNorm(8), jax.nn.relu, nn.Dropout(0.3)),
                    head=nn.Linear(8, 3),
                ),
                fdl.losses.softmax_cross_entropy,
                {"accuracy": fdl.metrics.accuracy},
            ),
        ),
    )
    data: Any = saving(Config()).train
    shifted = fdl.data.Arrays(x=data.arrays["tree"]["x"] + 1, y=data.arrays["tree"]["y"])
    refused(
        "the data of the run that is resumed were other ones",
        build=lambda config: replace(saving(config), train=shifted),
    )
    for path, data in before.items():  # nothing was lost by asking
        assert path.read_bytes() == data
    assert fdl.run(saving, Config(), folder=folder, resume=True).info["steps"] > 20
    refused("the run is finished.*--num-steps N")
    with pytest.raises(fdl.InputError, match="there is no run to resume"):
        fdl.run(saving, Config(), folder=tmp_path / "none", resume=True)
    with pytest.raises(fdl.InputError, match="needs the folder"):
        fdl.run(saving, Config(), resume=True)


def test_the_best_checkpoints_of_a_run_stay(tmp_path: Path):
    def scored(config: Config) -> fdl.Experiment:
        common: Any = {"eval_every": 3, "checkpoint_every": 3, "mode": "max", "select": "test/accuracy"}
        return replace(build(config), **common, keep=fdl.Keep(last=1, every=12, best=2))

    result = fdl.run(scored, Config(), folder=tmp_path / "run")
    values, steps = result.history["test/accuracy"], result.steps["test/accuracy"]
    best = sorted(zip(-values, steps, strict=True))[:2]
    expected = {int(step) for _, step in best} | {12, 24, 36} | {int(steps[-1])}
    found = {int(path.name): read(path).facts for path in Checkpoints(tmp_path / "run" / "checkpoints").all()}
    assert set(found) == {step for step in expected if step <= steps[-1]}
    for step, facts in found.items():
        assert facts["selected"] == {"test/accuracy": float(values[steps == step][0])}


def test_no_step_is_saved_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """For the second time it would be gone while it is replaced; the last step is often one that is due as well."""
    saved, save = [], Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, *rest: saved.append(step) or save(self, step, *rest))
    fdl.run(replace(build(Config()), checkpoint_every=4, num_epochs=None, num_steps=12), folder=tmp_path / "run")
    assert saved == [4, 8, 12]


def test_the_seconds_of_all_sessions_add_up(tmp_path: Path):
    folder = stopped(tmp_path)  # at step 20, with the newest checkpoint at 14
    saved = Checkpoints(folder / "checkpoints").newest()[0]
    assert saved is not None
    again = fdl.run(saving, Config(), folder=folder, resume=True)
    before = saved.facts["seconds"]
    assert 0 < before < again.info["seconds_train"]
    last = Checkpoints(folder / "checkpoints").newest()[0]
    assert last is not None
    assert before < last.facts["seconds"] <= again.info["seconds_train"]


def test_a_sweep_goes_on_with_the_data_it_had(tmp_path: Path):
    with pytest.raises(UnpluggedError):
        fdl.sweep(saving, Config(), folder=tmp_path / "s", chunk=3, hooks=[unplug(20)])

    def other(config: Config) -> fdl.Experiment:
        return replace(saving(config), train=arrays(seed=7))

    with pytest.raises(fdl.InputError, match="the data of program 1 of the run that is resumed were other ones"):
        fdl.sweep(other, Config(), folder=tmp_path / "s", resume=True)
    fdl.sweep(saving, Config(), folder=tmp_path / "s", resume=True)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path):
    folder = stopped(tmp_path)
    with pytest.raises(UnpluggedError):
        fdl.run(saving, Config(), seed=1, folder=tmp_path / "other", chunk=4, hooks=[unplug(20)])
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", folder / "checkpoints")
    with pytest.raises(fdl.InputError, match=r"00000014: is of a run with seed 1, this one has 0"):
        fdl.run(saving, Config(), folder=folder, resume=True)


def test_a_second_writer_is_refused_and_told_who_is_the_first(tmp_path: Path):
    with RunFolder(tmp_path / "run"):
        code = "import fdl.runs.folder as f, sys\nwith f.RunFolder(sys.argv[1], resume=True): pass"
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"process {os.getpid()} is writing this run" in done.stderr


TOY = """
import time
from dataclasses import dataclass
import jax, numpy as np, optax, fdl
from fdl import nn

@dataclass(frozen=True)
class Config:
    num_steps: int = 4000

def pause(outputs):  # or the fastest machine is done before it can be killed
    time.sleep(0.1)
    return 0.0

def build(config):
    rng = np.random.default_rng(0)
    data = fdl.data.Arrays(x=rng.normal(size=(300, 8)).astype(np.float32), y=rng.integers(0, 3, 300))
    model = nn.Serial(nn.Linear(8, 16, use_bias=False), nn.BatchNorm(16), jax.nn.relu, nn.Dropout(0.3), head=nn.Linear(16, 3))
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
    return fdl.Experiment(task, optax.adam(1e-3), data, {"test": data}, batch_size=32, num_steps=config.num_steps,
                          eval_every=150, checkpoint_every=100, reports={"pause": pause})
"""  # noqa: E501


@pytest.mark.slow
def test_twenty_kills_cost_nothing(tmp_path: Path):
    """A real run is killed or terminated at 20 seeded moments, and resumed each time, until it ends: the same file."""
    (tmp_path / "toy.py").write_text(TOY)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FDL_CACHE": str(tmp_path / "cache")}

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fdl", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)

    whole = start("run", "toy.py", "--runs", "whole")
    printed = whole.communicate(timeout=300)
    assert whole.returncode == 0, printed
    rng, kills, codes = random.Random(0), 0, set()
    process = start("run", "toy.py", "--runs", "killed")
    while True:
        begun = time.monotonic()
        metrics = list(tmp_path.glob("killed/toy/*/metrics.jsonl"))
        size = metrics[0].stat().st_size if metrics else 0
        while process.poll() is None and kills < 20:  # it has to do something before it is killed
            metrics = list(tmp_path.glob("killed/toy/*/metrics.jsonl"))
            if metrics and metrics[0].stat().st_size != size and time.monotonic() - begun > 1:
                time.sleep(rng.random() * 0.3)
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM]))
                kills += 1
                break
            time.sleep(0.01)
        code = process.wait(300)
        out, err = process.communicate()
        assert code in (0, 143, -signal.SIGKILL, -signal.SIGTERM), (out, err)
        codes.add(code)
        (folder,) = tmp_path.glob("killed/toy/*")
        if code == 0 or (folder / "result.json").exists():  # the last signal may come after the end
            break
        process = start("resume", str(folder))
    files = [next(tmp_path.glob(f"{name}/toy/*")) for name in ("whole", "killed")]
    last = [(each / "checkpoints" / "00004000" / "arrays.safetensors").read_bytes() for each in files]
    assert last[0] == last[1]
    assert (files[0] / "metrics.jsonl").read_bytes() == (files[1] / "metrics.jsonl").read_bytes()
    assert kills >= 3
    assert len(codes) > 1
