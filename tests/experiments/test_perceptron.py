"""AND and OR can be separated by a line, XOR cannot."""

from __future__ import annotations

import math

import pytest

import fdl
from experiments.perceptron import Config, build, main


def learn(gate, hidden: int, seed: int = 0) -> dict[str, float]:
    return fdl.run(build, Config(gate, hidden), seed=seed).metrics


@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize("gate", ["and", "or"])
def test_a_unit_learns_what_a_line_separates_and_so_does_a_network(gate, hidden):
    assert learn(gate, hidden)["gate/accuracy"] == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_unit_ends_at_the_minimum_of_xor_which_is_a_coin_toss(seed):
    metrics = learn("xor", 0, seed)
    assert metrics["gate/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["gate/accuracy"] <= 0.75  # three of four points is the most that any line gets


@pytest.mark.parametrize("seed", range(3))
def test_a_hidden_layer_learns_xor(seed):
    metrics = learn("xor", 8, seed)
    assert metrics["gate/accuracy"] == 1.0
    assert metrics["gate/loss"] < 0.01


@pytest.mark.slow
def test_the_table_says_so(capsys):
    main()
    _, *rows = capsys.readouterr().out.splitlines()
    table = {name: (unit, network) for name, unit, _, _, network, _, _ in map(str.split, rows)}
    assert table["and"] == table["or"] == ("100%,", "100%,")
    assert table["xor"][1] == "100%,"
    assert table["xor"][0] != "100%,"
