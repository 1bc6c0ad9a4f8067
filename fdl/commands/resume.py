"""`fdl resume RUN`: goes on where a run stopped, to the same bits as if it had not."""

from __future__ import annotations

import importlib
from pathlib import Path

from fdl.errors import InputError
from fdl.runs.recorded import recorded, resolve

HELP = """\
usage: fdl resume RUN [--runs DIR]

Goes on with a run that was interrupted or killed, from its newest verified checkpoint,
with the command it was started with. RUN is its folder, or the beginning of its id in
DIR (default: runs). What it ends with is equal to the bit to what it would have been."""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    name, runs = _parsed(arguments)
    folder = resolve(name, Path(runs)) if not Path(name).is_dir() else Path(name)
    known = recorded(folder)
    told = known.manifest.get("command")
    command = told if isinstance(told, list) and all(isinstance(word, str) for word in told) else []
    if len(command) < 3 or command[1] not in ("run", "sweep"):
        raise InputError(
            f"fdl resume: {folder}: its manifest.json does not say how it was started; in Python, give "
            "fdl.run the same arguments and resume=True"
        )
    before = Path(str(known.manifest.get("directory", ".")))
    again = [_found(argument, before) for argument in command[2:]]
    return importlib.import_module(f"fdl.commands.{command[1]}").main(again, folder)


def _parsed(arguments: list[str]) -> tuple[str, str]:
    rest, runs = list(arguments), "runs"
    if "--runs" in rest[:-1]:
        at = rest.index("--runs")
        runs = rest[at + 1]
        del rest[at : at + 2]
    if len(rest) != 1 or rest[0].startswith("-"):
        raise InputError(
            "fdl resume: which run? fdl resume RUN, such as: fdl resume runs/digits/20260102-030405-678-0a1b"
        )
    return rest[0], runs


def _found(argument: str, before: Path) -> str:
    """An experiment file where it was, if it was named relative to the folder the run was started in."""
    if not argument.endswith(".py") or Path(argument).exists() or not (before / argument).exists():
        return argument
    return str(before / argument)
