"""What the README shows runs, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fdl
from experiments.results.table import inserted
from fdl import nn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_60_second_example_learns_and_predicts(capsys):
    """It prints its test accuracy and eight predictions; the claims below it hold as well."""
    code, _ = blocks("python")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    accuracy, predictions = capsys.readouterr().out.splitlines()
    assert float(accuracy.split()[-1]) >= 0.95
    predicted, wanted = (part.split() for part in re.findall(r"\[(.*?)\]", predictions))
    assert len(predicted) == 8
    assert sum(a == b for a, b in zip(predicted, wanted, strict=True)) >= 7

    assert eval(repr(names["model"]), {**vars(nn), "jax": names["jax"]}) == names["model"]
    assert names["result"].params["head"]["kernel"].shape == (128, 10)
    again = fdl.run(names["experiment"], seed=0)
    assert (again.params["head"]["kernel"] == names["result"].params["head"]["kernel"]).all()


@pytest.mark.slow
def test_the_sweep_finds_the_best_of_its_members(capsys):
    """Of 1e-3, 3e-3 and 1e-2 the smallest learns too little in two epochs."""
    _, code = blocks("python")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    rate, accuracy = map(float, capsys.readouterr().out.split())
    assert rate > 1e-3
    assert accuracy > 0.85
    assert names["result"].compiles == 1


def test_the_first_two_commands_work_alone_and_are_what_ci_runs():
    """Each is one line that sets up; `.ci/run` does the same in a folder of its own."""
    setup = "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/"
    commands = [block.strip().removeprefix(setup) for block in blocks("sh")[:2]]
    assert commands == ["fdl run experiments/digits.py", "python -m pytest -n auto"]
    script = (ROOT / ".ci" / "run").read_text().replace('"$bin/', "").replace('"', "")
    assert all(command in script for command in commands)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:fdl|nn)(?:\.\w+)+)(?=[`(])", README))))
def test_every_name_exists(name):
    home, *path = name.split(".")
    found = {"fdl": fdl, "nn": nn}[home]
    for part in path:
        found = getattr(found, part)


@pytest.mark.parametrize(
    "path", sorted({*re.findall(r"\]\((?!http)(.*?)\)", README), *re.findall(r"experiments/\w+\.py", README)})
)
def test_every_path_exists(path):
    assert (ROOT / path).exists()


def test_every_row_of_what_is_reproducible_names_a_test_that_exists():
    table = README.partition("## What is reproducible")[2].partition("\n\nThe same bits")[0]
    rows = [line.split("|") for line in table.strip().splitlines()[2:]]
    assert len(rows) >= 10
    named: list[tuple[str, str]] = []
    for _, what, holds, tests, _ in rows:
        if tests.strip() != "the same":
            named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
        assert named or (what.strip(), tests.strip()) == ("a GPU", "-"), what
        assert holds.strip()
        for file, name in named:
            assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), (file, name)


def test_every_experiment_is_listed():
    listed = set(re.findall(r"\]\((experiments/(?:published/)?\w+\.py)\)", README))
    files = [path for folder in ("experiments", "experiments/published") for path in (ROOT / folder).glob("*.py")]
    assert listed == {str(path.relative_to(ROOT)) for path in files}


def test_the_published_figures_are_those_of_the_results():
    """What `python experiments/results/table.py` would write is what is there."""
    assert inserted(README) == README
