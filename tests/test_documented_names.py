"""Every name that README and docstrings write as `fdl.something` exists, and is reached as it is written."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"(?<![\w./-])fdl(?:\.[A-Za-z_]\w*)+(?!\w)")
FILES = [*sorted((ROOT / "fdl").rglob("*.py")), *sorted((ROOT / "experiments").rglob("*.py")), ROOT / "README.md"]
OTHERS = {"fdl.readthedocs", "fdl.py"}  # no names of Python


def documented(path: Path) -> Iterator[str]:
    text = path.read_text()
    if path.suffix == ".py":
        nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
        text = "\n".join(ast.get_docstring(node) or "" for node in nodes)
    yield from (match[0] for match in NAME.finditer(text))


NAMES = sorted({name for path in FILES for name in documented(path)} - OTHERS)


def test_the_walk_finds_names():
    assert {"fdl.run", "fdl.sweep", "fdl.data.Arrays"} <= {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_documented_name_is_an_attribute(name):
    value = importlib.import_module("fdl")
    for part in name.split(".")[1:]:
        value = getattr(value, part)


@pytest.mark.parametrize(
    "spelled",
    [
        "from fdl import *",
        "from fdl.training import make_step, sweep_picture",
        "import fdl; fdl.training.averages.with_ema",
    ],
)
def test_is_importable_in_a_fresh_process(spelled):
    done = subprocess.run([sys.executable, "-c", spelled], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
