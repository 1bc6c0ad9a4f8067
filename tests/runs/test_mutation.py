"""What lies in a run folder may be damaged, or be written by somebody else: a typed error or the right answer."""

from __future__ import annotations

import copy
import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fdl.cli import main
from fdl.commands.resume import started
from fdl.errors import InputError
from fdl.runs import checkpoints as module
from fdl.runs.checkpoints import ARRAYS, MANIFEST, CheckpointError, Checkpoints, read, verify
from fdl.runs.fitting import Resume
from fdl.runs.folder import RunFolder
from fdl.runs.stored import weights
from fdl.training.snapshot import past, put, same_optimizer
from tests.data.mutation import damaged

many = settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
VALUES = st.sampled_from(
    [None, True, 0, -1, 1.5, 2**63, 10**400, "", "x", "../../x", "\x1b[31m", [], [1], ["a"], {}, {"a": 1}, [[[]]]]
)
RUN = {
    "run/ended": np.int64(9),
    "run/failed": np.int64(0),
    "run/carry/train/params/kernel": np.ones((2, 3), np.float32),
    "run/carry/train/params/bias": np.ones(3, "bfloat16"),
    "run/carry/train/state/mean": np.zeros(3, np.float32),
    "history/train/loss": np.arange(4.0),
    "steps/train/loss": np.arange(1, 5),
}
FACTS: dict[str, Any] = {
    "names": ["train/loss"],
    "stopped_at": None,
    "seconds": 1.0,
    "num_steps": 9,
    "optimizer": {"chain/0/scale/step_size": -0.1},
    "selected": {"val/loss": 0.5},
    "score": 0.5,
    "config_hash": "0123",
    "seed": 0,
}


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """JSON with one to three places changed: another value, gone, or under another name."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        if not places:
            return draw(VALUES)
        parent, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["replace", "replace", "delete", "rename"]))
        if kind == "replace":
            parent[key] = copy.deepcopy(draw(VALUES))
        elif kind == "delete":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(["x", "", "../y", "sha256"]))] = parent.pop(key)
    return value


def _places(value: Any) -> Any:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder of checkpoints with one in it."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(4, {name: np.asarray(x) for name, x in RUN.items()}, FACTS)
    checkpoints.wait()
    return tmp_path / "checkpoints" / "00000004"


def used(path: Path) -> None:
    """Everything that is done with a checkpoint."""
    saved = read(path)
    verify(path)
    Checkpoints(path.parent, origin={"seed": 0}).newest()
    weights(saved)
    same_optimizer(saved, _sgd(), Resume(partial=True))
    tree = {"ended": np.int64(1), "carry": {"kernel": np.zeros((2, 3), np.float32)}}
    put(tree, past(saved, 9).run, "x", Resume(partial=True))


def _sgd() -> Any:
    import optax

    return optax.sgd(0.1)


def answered(act: Callable[[], Any]) -> bool:
    try:
        act()
    except (InputError, CheckpointError):
        return False
    return True


@many
@given(data=st.data(), name=st.sampled_from([ARRAYS, MANIFEST]))
def test_damage_to_a_checkpoint_is_found(stored: Path, data: st.DataObject, name: str):
    good = (stored / name).read_bytes()
    bad = data.draw(damaged(good))
    try:
        (stored / name).write_bytes(bad)
        assert answered(lambda: read(stored)) is (bad == good)
    finally:
        (stored / name).write_bytes(good)


@many
@given(data=st.data())
def test_a_manifest_of_somebody_elses(stored: Path, data: st.DataObject):
    """With the right sum under it, but other things in it."""
    good = (stored / MANIFEST).read_bytes()
    content = json.loads(good)
    del content["sha256"]
    bad = data.draw(changed(content))
    try:
        (stored / MANIFEST).write_bytes(module._sealed(bad) if isinstance(bad, dict) else json.dumps(bad).encode())
        answered(lambda: used(stored))
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            for action in (["show"], ["diff", str(stored)]):
                assert main(["ckpt", *action, str(stored)]) in (0, 1, 2)
        assert "Traceback" not in out.getvalue()
        assert "\x1b" not in out.getvalue()
    finally:
        (stored / MANIFEST).write_bytes(good)


@many
@given(names=st.lists(st.sampled_from([*RUN, "run", "x", "", "steps/x", "run/ended/x"]), max_size=8), data=st.data())
def test_arrays_of_somebody_elses(stored: Path, names: list[str], data: st.DataObject):
    shapes = st.sampled_from([(), (0,), (3,), (2, 3), (4,)])
    arrays = {
        name: np.ones(data.draw(shapes), data.draw(st.sampled_from(["float32", "int64", "bool"]))) for name in names
    }
    checkpoints = Checkpoints(stored.parent.parent / "other")
    checkpoints.save(4, arrays, FACTS)
    checkpoints.wait()
    assert answered(lambda: read(stored.parent.parent / "other" / "00000004"))
    answered(lambda: used(stored.parent.parent / "other" / "00000004"))
    shutil.rmtree(stored.parent.parent / "other")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs, the first one interrupted."""
    for number in range(2):
        with RunFolder(
            tmp_path / "toy" / f"20260101-00000{number}-000-0123456{number}", config={"a": {"b": [1]}}
        ) as run:
            run.append(np.arange(1, 4), {"train/loss": np.arange(3.0)})
            run.note(command=["fdl", "run", "toy.py"])
            if number:
                run.finish({"train/loss": 2.0, "steps": 3})
    return tmp_path


@many
@given(data=st.data(), name=st.sampled_from(["manifest.json", "config.json", "metrics.jsonl", "result.json"]))
def test_a_run_folder_of_somebody_elses(runs: Path, data: st.DataObject, name: str):
    folders = sorted((runs / "toy").iterdir())
    folder = folders[name == "result.json"]
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    good = before[folder / name]
    if name == "metrics.jsonl" or data.draw(st.booleans()):
        bad = data.draw(damaged(good))
    else:
        bad = json.dumps(data.draw(changed(json.loads(good)))).encode()
    if name == "metrics.jsonl" and data.draw(st.booleans()):
        lines = [json.dumps(data.draw(changed(json.loads(line)))) for line in good.splitlines()]
        bad = "".join(f"{line}\n" for line in lines).encode()
    try:
        (folder / name).write_bytes(bad)
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            assert main(["runs", "list", str(runs)]) == 0
            assert main(["runs", "list", str(runs), "--json"]) == 0
            assert main(["runs", "compare", *map(str, folders)]) == 0
        assert "\x1b" not in out.getvalue().replace("\\u001b", "")
        answered(lambda: started(folder))
        answered(lambda: gone_on(folder))
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def gone_on(folder: Path) -> None:
    with RunFolder(folder, config={"a": {"b": [1]}}, resume=True) as run:
        run.forget_after(2)
        run.adapted(["a line"])
        run.share(data={"train": {}})
