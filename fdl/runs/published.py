"""The figures of a sweep in one small JSON file: what a table in a paper or in a README is made from."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from fdl.runs.files import plain, write_text
from fdl.runs.manifest import cores

DIGITS = 6  # significant ones of each figure
APART = ("--save", "--runs")  # options that say where, and nothing about the figures


def save(path: str | os.PathLike[str], result: Any, file: str, config: Any, folder: Path) -> None:
    """Writes every setting's metrics over the seeds, beside the command, the config, seconds, device and versions.

    The command is that of the run's `folder`: a sweep that was resumed has the one that it was started with.
    """
    origin = json.loads((folder / "manifest.json").read_text())
    content = {
        "experiment": Path(file).stem,
        "command": " ".join(["fdl", *_said(origin["command"][1:])]),
        "config": config,
        "settings": result.by_setting(),
        "programs": result.compiles,
        **result.info,
        **{name: origin[name] for name in ("device", "versions")},
        "cores": cores(),
    }
    text = json.dumps(_rounded(plain(content)), indent=1)
    text = re.sub(r"\[[^\[\]{}]*\]", _on_one_line, text)  # a line for a metric's values
    write_text(Path(path), text + "\n")


def _said(arguments: list[str]) -> list[str]:
    kept = [a for a in arguments if not a.startswith(tuple(f"{name}=" for name in APART))]
    return [a for i, a in enumerate(kept) if a not in APART and (i == 0 or kept[i - 1] not in APART)]


def _on_one_line(values: re.Match[str]) -> str:
    return " ".join(values[0].split()).replace("[ ", "[").replace(" ]", "]")


def _rounded(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _rounded(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_rounded(value) for value in tree]
    return float(f"{tree:.{DIGITS}g}") if isinstance(tree, float) else tree
