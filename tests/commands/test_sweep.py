"""`fdl sweep`: what was typed becomes values, a table, and a folder with a line for each member."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import fdl
from fdl.cli import main
from fdl.commands.sweep import settings, values


@dataclass(frozen=True)
class Config:
    rate: float = 0.1
    width: int = 8
    name: str = "a"
    fast: bool = False


def test_values_have_the_types_of_their_fields():
    over = values(Config(), ["rate=1,1e-2", "width=8,16", "name=a,b", "fast=true,false"])
    assert over == {"rate": [1.0, 0.01], "width": [8, 16], "name": ["a", "b"], "fast": [True, False]}


def test_ranges_hit_both_ends_in_equal_steps():
    over = values(Config(), ["rate=log:1e-4..1e-1:4"])
    assert over["rate"] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert values(Config(), ["rate=lin:0..0.5:3"]) == {"rate": [0.0, 0.25, 0.5]}


def test_settings_in_pairs_and_at_random():
    chosen = SimpleNamespace(config=Config(), over=["rate=log:1e-4..1e-1", "width=8,16"], random=20, zip=False)
    drawn = settings(chosen)
    assert len(drawn) == 20
    assert all(1e-4 <= each["rate"] <= 1e-1 and each["width"] in (8, 16) for each in drawn)
    assert len({each["rate"] for each in drawn}) == 20
    chosen = SimpleNamespace(config=Config(), over=["rate=1,2", "width=8,16"], random=0, zip=True)
    assert settings(chosen) == [{"rate": 1.0, "width": 8}, {"rate": 2.0, "width": 16}]


@pytest.mark.parametrize(
    ("over", "random", "zip", "message"),
    [
        (["rate=log:1e-4..1e-1"], 0, False, "how many values"),
        (["rate=1"], 3, True, "choose one"),
        ([], 3, False, "needs an --over"),
        (["rate=1,2", "width=8"], 0, True, "one length"),
        (["rate=log:0..1"], 3, False, "0 < low"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(over, random, zip, message):
    with pytest.raises(fdl.InputError, match=message):
        settings(SimpleNamespace(config=Config(), over=over, random=random, zip=zip))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("rate", "FIELD=VALUES"),
        ("rat=1", "did you mean 'rate'"),
        ("rate=a", "expected a number"),
        ("rate=log:0..1:3", "low < high"),
        ("rate=lin:0..1:1", "2 values or more"),
        ("width=log:1..8:4", "a range is for floats"),
        ("width=1.5", "expected an int"),
        ("fast=yes", "expected a bool"),
    ],
)
def test_what_cannot_be_meant_is_refused(typed, message):
    with pytest.raises(fdl.InputError, match=message):
        values(Config(), [typed])
    with pytest.raises(fdl.InputError, match="twice"):
        values(Config(), ["rate=1", "rate=2"])


def test_a_sweep_leaves_a_line_for_each_member(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saved = tmp_path / "figures.json"
    over = ["--over", "learning_rate=1e-3,1e-2", "--seeds", "2", "--smoke", "--runs", str(tmp_path)]
    over += ["--save", str(saved)]
    file = Path(__file__).parents[2] / "experiments" / "digits.py"
    assert main(["sweep", str(file), *over]) == 0
    out = capsys.readouterr().out
    assert "program 1: 4 members, 4 side by side" in out
    (folder,) = tmp_path.glob("digits/*")
    rows = list(csv.DictReader((folder / "members.csv").read_text().splitlines()))
    assert [(float(row["learning_rate"]), row["seed"]) for row in rows] == [
        (1e-3, "0"), (1e-3, "1"), (1e-2, "0"), (1e-2, "1")
    ]  # fmt: skip
    assert len({row["test/loss"] for row in rows}) == 4
    result = json.loads((folder / "result.json").read_text())
    assert (result["members"], result["programs"]) == (4, 1)
    mean = sum(float(row["test/loss"]) for row in rows) / 4
    assert result["test/loss (mean)"] == pytest.approx(mean)

    figures = json.loads(saved.read_text())
    assert str(tmp_path) not in saved.read_text().replace(str(file), "")  # where things lay is no figure
    assert figures["experiment"] == "digits"
    assert [row["setting"] for row in figures["settings"]] == [{"learning_rate": 1e-3}, {"learning_rate": 1e-2}]
    for row, members in zip(figures["settings"], (rows[:2], rows[2:]), strict=True):
        found = [float(member["test/loss"]) for member in members]
        assert row["seeds"] == [0, 1]
        assert row["metrics"]["test/loss"]["values"] == pytest.approx(found, rel=1e-5)
        assert row["metrics"]["test/loss"]["mean"] == pytest.approx(sum(found) / 2, rel=1e-5)
        assert row["metrics"]["test/loss"]["std"] == pytest.approx(abs(found[0] - found[1]) / 2, rel=1e-4)


def test_where_figures_go_is_known_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = Path(__file__).parents[2] / "experiments" / "digits.py"
    assert (
        main(["sweep", str(file), "--smoke", "--runs", str(tmp_path), "--save", str(tmp_path / "no" / "x.json")]) == 2
    )
    assert "there is no folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
