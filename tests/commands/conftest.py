"""A place with an experiment in it, and ways to call the command there."""

from __future__ import annotations

from pathlib import Path

import pytest

TOY = '''
"""A linear model on random numbers."""
from dataclasses import dataclass
import numpy as np
import optax
import fdl

@dataclass(frozen=True)
class Config:
    num_steps: int = 4
    batch_size: int = 8
    width: int = 3
    accumulate: int = 1
    rate: float = 0.1

def build(config):
    x = np.random.default_rng(0).normal(size=(64, config.width)).astype(np.float32)
    data = fdl.data.Arrays(x=x, y=(x.sum(1) > 0).astype(np.int32))
    val = fdl.data.Arrays(x=x[:10] + 1, y=np.arange(10, dtype=np.int32) % 2)
    task = fdl.supervised(fdl.nn.Linear(config.width, 2), fdl.losses.softmax_cross_entropy)
    return fdl.Experiment(task=task, optimizer=optax.adam(config.rate), train=data, evaluate={"val": val},
                          batch_size=config.batch_size, num_steps=config.num_steps, accumulate=config.accumulate)
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    return tmp_path
