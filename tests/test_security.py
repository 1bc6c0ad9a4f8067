"""Nothing in fdl runs code out of a data file: no pickle, eval, exec, marshal or allow_pickle in its syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "fdl").rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
CALLS = {"eval", "exec", "__import__"}


def offences(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
        found += [f"line {node.lineno}: import {name}" for name in names if name in MODULES]  # pyright: ignore
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            found.append(f"line {node.lineno}: {node.func.id}()")
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            value = node.value
            safe = isinstance(value, ast.Constant) and value.value is (node.arg == "weights_only")
            found += [] if safe else [f"line {value.lineno}: {node.arg}"]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FILES[0].parents[1])))
def test_no_file_runs_what_it_reads(file):
    assert not offences(file.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "exec(x)",
        "np.load(f, allow_pickle=True)",
        "import marshal",
    ],
)
def test_an_offence_is_seen(source):
    assert offences(source)
