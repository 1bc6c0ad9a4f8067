"""Nothing in fdl runs code out of a file, a shell or an archive, by its syntax trees; nothing leaves its folder.

What a person typed, or a file says, reaches a terminal and a spreadsheet only as text.
"""

from __future__ import annotations

import ast
import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from fdl.cli import main
from fdl.runs.folder import RunFolder, new_folder

FILES = sorted((Path(__file__).parents[1] / "fdl").rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
CALLS = {"eval", "exec", "__import__", "compile"}
METHODS = {  # with what follows, whatever it is a method of
    "os": {"system", "popen"},
    "yaml": {"load", "load_all", "unsafe_load", "full_load"},
    "shutil": {"unpack_archive"},
    "tempfile": {"mktemp"},
}


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
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found += [f"line {node.lineno}: {name}()" for name in method_offences(node, node.func)]
        if isinstance(node, ast.keyword) and node.arg == "shell":
            found.append(f"line {node.value.lineno}: shell=")
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            value = node.value
            safe = isinstance(value, ast.Constant) and value.value is (node.arg == "weights_only")
            found += [] if safe else [f"line {value.lineno}: {node.arg}"]
    return found


def method_offences(call: ast.Call, method: ast.Attribute) -> list[str]:
    """What runs or unpacks; `extractall` and `extract` only with the filter for data, which stays in the folder."""
    owner = method.value.id if isinstance(method.value, ast.Name) else ""
    found = [f"{owner}.{method.attr}"] if method.attr in METHODS.get(owner, ()) else []
    safe = any(
        k.arg == "filter" and isinstance(k.value, ast.Constant) and k.value.value == "data" for k in call.keywords
    )
    return found + ([method.attr] if method.attr in ("extractall", "extract") and not safe else [])


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
        "yaml.load(f)",
        "os.system(command)",
        "subprocess.run(command, shell=True)",
        "archive.extractall(folder)",
        "archive.extractall(folder, filter='fully_trusted')",
        "shutil.unpack_archive(file)",
        "tempfile.mktemp()",
    ],
)
def test_an_offence_is_seen(source):
    assert offences(source)


def test_what_is_safe_is_none():
    assert not offences("archive.extractall(folder, filter='data'); yaml.safe_load(f); np.load(f, allow_pickle=False)")


PRINTED = {"HELP", "help", "''", "f'fdl {fdl.__version__}' if command == '--version' else HELP"}


@pytest.mark.parametrize("file", [f for f in FILES if "commands" in f.parts or f.name in ("cli.py", "progress.py")],
                         ids=lambda file: file.name)  # fmt: skip
def test_commands_print_only_what_is_clean(file):
    """All but constants goes through `say`, which strips control characters."""
    calls = [
        n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    ]
    printed = {ast.unparse(n.args[0]) for n in calls if getattr(n.func, "id", "") == "print" and n.args}
    assert printed <= PRINTED | ({"clean(text)"} if file.name == "progress.py" else set())


EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\r"


def test_no_control_character_reaches_the_terminal(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    """In the names of file, field value, set, metric and layer, in the text of an exception, and in a path."""
    source = f"""
from dataclasses import dataclass
import numpy as np, optax, fdl
from fdl import nn

@dataclass(frozen=True)
class Config:
    word: str = ""

EVIL = {EVIL!r}

def build(config):
    data = fdl.data.Arrays(x=np.ones((4, 3), np.float32), y=np.zeros((4, 1), np.float32))
    metrics = {{"m" + EVIL: lambda y, t: (y - t)[:, 0]}}
    task = fdl.supervised(nn.Serial(**{{"l" + EVIL: nn.Linear(3, 1)}}), fdl.losses.squared_error, metrics)
    if config.word == "bug" + EVIL: raise RuntimeError("e" + EVIL)
    if config.word == "input" + EVIL: raise fdl.InputError("e" + EVIL)
    return fdl.Experiment(task, optax.sgd(0.1), data, {{"s" + EVIL: data}}, num_steps=4)
"""
    monkeypatch.chdir(tmp_path)
    file = Path(f"odd{EVIL}.py")
    file.write_text(source)
    place = ("--runs", f"r{EVIL}")
    codes = [
        main(["run", str(file), *place]),
        main(["sweep", str(file), *place, "--over", f"word=a{EVIL}$\\frac$,b"]),
        main(["summary", str(file)]),
        main(["plan", str(file)]),
        main(["runs", "list", f"r{EVIL}"]),
        main(["run", str(file), "--word", f"bug{EVIL}"]),
        main(["run", str(file), "--word", f"input{EVIL}"]),
        main(["run", str(file), f"--wrod{EVIL}", "x"]),
        main(["run", f"none{EVIL}.py"]),
        main([f"rnu{EVIL}"]),
    ]
    assert codes == [0, 0, 0, 0, 0, 1, 2, 2, 2, 2]
    printed = "".join(capsys.readouterr())
    assert not {c for c in printed if not c.isprintable()} - {"\n"}
    assert "m]0;title" in printed
    for line in next(Path(f"r{EVIL}").glob("*/*/metrics.jsonl")).read_text().splitlines():
        assert json.loads(line)["step"]


@pytest.mark.parametrize(
    "name", ["..", ".", "...", "../../etc", "/etc", "a/../../b", "", "~", "\0", "a\x1b[2J", "C:\\x"]
)
def test_a_run_stays_in_the_folder_of_runs(tmp_path: Path, name: str):
    """`fdl run ...py` has the name ".." without its suffix."""
    folder = new_folder(tmp_path / "runs", name)
    assert folder.resolve().parent.parent == tmp_path / "runs"
    with RunFolder(folder):
        pass
    assert folder.parent.name.isprintable()


@dataclass(frozen=True)
class Config:
    word: str = "a"


@pytest.mark.parametrize("word", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '"x",y\n=z', "\0=1"])
def test_a_spreadsheet_computes_nothing(tmp_path: Path, word: str):
    def build(config: Config) -> fdl.Experiment:
        data = fdl.data.Arrays(x=np.ones((4, 3), np.float32), y=np.zeros((4, 1), np.float32))
        metrics = {"=m": lambda y, target: -np.ones(4, np.float32)}
        task = fdl.supervised(nn.Linear(3, 1), fdl.losses.squared_error, metrics)
        return fdl.Experiment(task, optax.sgd(0.1), data, {"=s": data}, num_steps=1)

    result = fdl.sweep(build, Config(), {"word": [word]})
    result.to_csv(tmp_path / "members.csv")
    with (tmp_path / "members.csv").open(newline="") as file:
        header, row = csv.reader(file)
    assert not [cell for cell in [*header, row[0]] if cell[:1] in "=+-@\t\r\n\0"]
    assert float(dict(zip(header, row, strict=True))["'=s/=m"]) == -1.0  # a number is one
    assert "\n" not in "".join(row)
