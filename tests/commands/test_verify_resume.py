"""`fdl verify-resume`: finds what resuming would lose, and nothing where nothing is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fdl.cli import main

STREAM = """
COUNT = 0
def batch_at(step):
    global COUNT
    COUNT += 1
    rng = np.random.default_rng(WHAT)
    x = rng.normal(size=(8, 3)).astype(np.float32)
    return {"x": x, "y": (x.sum(1) > 0).astype(np.int32)}
"""


def start(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of a run that was started with these arguments."""
    monkeypatch.setattr(sys, "argv", ["fdl", *arguments])
    assert main(arguments) == 0
    return str(max(Path("runs/toy").iterdir()))


def written(path: str) -> dict[Path, bytes]:
    return {each: each.read_bytes() for each in Path(path).rglob("*") if each.is_file()}


def test_a_pure_experiment_is_found_to_be_one(place: Path, monkeypatch, capsys):
    """With evaluations, dropout and early stopping; the run itself is as it was."""
    text = (place / "toy.py").read_text().replace("num_steps=config.num_steps,", 'num_steps=40, select="val/loss", '
           "patience=2, eval_every=4, ").replace("Linear(config.width, 2)", "Serial(fdl.nn.Dropout(0.5), head=fdl.nn.Linear(config.width, 2))")  # fmt: skip  # noqa: E501
    (place / "toy.py").write_text(text)
    run = start("run", "toy.py", "--rate", "0.3", "--seed", "7", monkeypatch=monkeypatch)
    before = written(run)
    capsys.readouterr()
    assert main(["verify-resume", run, "--at", "1,5", "--at", "39"]) == 0
    out = capsys.readouterr().out
    assert "the first 40 of 40 steps" in out
    assert "stopped after step 5, resumed from step 5: " in out
    assert "stopped after step 39, ended before that: " in out  # it was out of patience
    assert out.count("arrays, same bits") == 3
    assert written(run) == before


EARLY, LATE = "even before the stop: ", "from there on: "
IMPURE = {
    "np.random in build": ("np.random.default_rng(0)", "np.random", "DIFFERENT\n  resuming is refused at step 4: "),
    "np.random in the task": ("width, 2)", "width, 2, kernel_init=fdl.initializers.Normal(np.random.rand()))", EARLY),
    "a counter in augment": (
        "accumulate=config.accumulate)",
        "augment=lambda batch, key: {**batch, 'x': batch['x'] * counted()})\n"
        "COUNT = 0\ndef counted():\n    global COUNT\n    COUNT += 1\n    return COUNT",
        EARLY,
    ),
    # as in a new process, it begins to count anew: just so long as nobody stops it, it looks right
    "a counter in a stream": ("def build(config):", "def build(config):\n    global COUNT\n    COUNT = 0", LATE),
}


@pytest.mark.parametrize("kind", IMPURE)
def test_an_impure_experiment_is_caught(kind, place: Path, monkeypatch, capsys):
    before, after, said = IMPURE[kind]
    text = (place / "toy.py").read_text()
    assert before in text
    text = text.replace(before, after)
    if "stream" in kind:
        text = streamed(text, "COUNT")
    (place / "toy.py").write_text(text)
    run = start("run", "toy.py", "--num-steps", "9", monkeypatch=monkeypatch)
    capsys.readouterr()
    assert main(["verify-resume", run, "--at", "4"]) == 1
    out = capsys.readouterr().out
    assert said in out
    refused = ("data of the run that is resumed were other ones: train/x", "this is not as it was")
    assert "DIFFERENT\n  train/loss at step " in out or any(words in out for words in refused)
    assert "resuming is not safe" in out


def streamed(text: str, seed: str) -> str:
    text = text.replace("train=data", "train=fdl.data.Stream(batch_at)").replace("batch_size=config.batch_size, ", "")
    return text.replace("def build(", STREAM.replace("WHAT", seed) + "\ndef build(")


def test_a_stream_that_is_a_function_of_the_step_is_no_fault(place: Path, monkeypatch, capsys):
    (place / "toy.py").write_text(streamed((place / "toy.py").read_text(), "step"))
    run = start("run", "toy.py", "--num-steps", "9", monkeypatch=monkeypatch)
    assert main(["verify-resume", run]) == 0
    assert capsys.readouterr().out.count("same bits") == 4


def test_a_sweep_is_tried_as_well(place: Path, monkeypatch, capsys):
    options = (
        "--over",
        "rate=0.1,0.2",
        "--over",
        "width=3,4",
        "--seeds",
        "2",
        "--num-steps",
        "6",
        "--max-members",
        "2",
    )
    run = start("sweep", "toy.py", *options, monkeypatch=monkeypatch)
    capsys.readouterr()
    assert main(["verify-resume", run, "--at", "2"]) == 0
    assert "stopped after step 2, resumed from step 2: " in capsys.readouterr().out
    (place / "toy.py").write_text((place / "toy.py").read_text().replace("np.random.default_rng(0)", "np.random"))
    assert main(["verify-resume", run, "toy.py", "--at", "2"]) == 1
    assert "resuming is refused at step 2: " in capsys.readouterr().out


def test_only_the_beginning_of_a_long_run_is_tried(place: Path, monkeypatch, capsys):
    run = start("run", "toy.py", "--num-steps", "1000", monkeypatch=monkeypatch)
    assert main(["verify-resume", run, "--steps", "10"]) == 0
    assert "the first 10 of 1000 steps, and the same stopped after 1, 3, 9" in capsys.readouterr().out


def test_what_cannot_be_tried_is_said(place: Path, monkeypatch, capsys):
    run = start("run", "toy.py", monkeypatch=monkeypatch)

    def refused(*arguments: str) -> str:
        assert main(["verify-resume", *arguments]) == 2
        return capsys.readouterr().err

    assert "expected steps below 4, got 4" in refused(run, "--at", "2,4")
    assert "--at: expected whole numbers >= 1, got '0'" in refused(run, "--at", "0")
    assert "--at: expected whole numbers >= 1, got 'x'" in refused(run, "--at", "1,x")
    assert "--steps: expected whole numbers >= 0, got '-1'" in refused(run, "--steps", "-1")
    assert "there is no option '--step'; did you mean '--steps'?" in refused(run, "--step", "3")
    assert "cannot be stopped in between" in refused(run, "--steps", "1")
    assert "which run?" in refused()
    assert "there is no run 'nothing'" in refused("nothing")
    (Path(run) / "manifest.json").unlink()
    assert "does not say how it was started" in refused(run)
