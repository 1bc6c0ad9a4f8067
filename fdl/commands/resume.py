"""`fdl resume RUN`: goes on where a run stopped, to the same bits as if it had not."""

from __future__ import annotations

import importlib
from pathlib import Path

from fdl.commands.words import parsed
from fdl.errors import InputError
from fdl.runs.fitting import Resume
from fdl.runs.recorded import recorded, resolve

HELP = """\
usage: fdl resume RUN [--partial] [--rename REGEX=REPLACEMENT] [--cast] [--runs DIR]

Goes on with a run that was interrupted or killed, from its newest verified checkpoint,
with the command it was started with. RUN is its folder, or the beginning of its id in
DIR (default: runs). What it ends with is equal to the bit to what it would have been.

A checkpoint that does not fit, as the code has changed since, is refused, unless:

  --partial   what fits is taken, also with another optimizer; the rest begins anew
  --rename REGEX=REPLACEMENT
              in paths such as carry/train/params/fc/kernel, as re.sub does; may be repeated:
              '/fc/=/head/' renames a layer, and what the optimiser knows of it
  --cast      arrays are converted to the types that they have now

What was changed or not taken is printed, and kept in manifest.json."""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    options = {"--runs": True, "--partial": False, "--rename": True, "--cast": False}
    names, given = parsed("fdl resume", arguments, options)
    rename = [_rule(text) for text in given.get("--rename", [])]
    folder = chosen_run("fdl resume", names, given.get("--runs", ["runs"])[-1])
    kind, again = started(folder)
    how = Resume("--partial" in given, rename, "--cast" in given)
    return importlib.import_module(f"fdl.commands.{kind}").main(again, folder, how)


def _rule(text: str) -> tuple[str, str]:
    regex, equals, replacement = text.rpartition("=")  # the last: a regex may have one itself
    if not equals or not regex:
        raise InputError(f"fdl resume: --rename: expected REGEX=REPLACEMENT, got {text!r}")
    return regex, replacement


def chosen_run(command: str, names: list[str], runs: str) -> Path:
    """The folder of the one run that is meant.

    Raises:
      InputError: none, several, or no such run.
    """
    if len(names) != 1:
        raise InputError(
            f"{command}: which run? {command} RUN, such as: {command} runs/digits/20260102-030405-678-0a1b"
        )
    return Path(names[0]) if Path(names[0]).is_dir() else resolve(names[0], Path(runs))


def started(folder: Path) -> tuple[str, list[str]]:
    """How the run in a folder was started: "run" or "sweep", and what stood after it.

    Raises:
      InputError: not by one of these commands.
    """
    known = recorded(folder)
    told = known.manifest.get("command")
    command = told if isinstance(told, list) and all(isinstance(word, str) for word in told) else []
    if len(command) < 3 or command[1] not in ("run", "sweep"):
        raise InputError(
            f"{folder}: its manifest.json does not say how it was started; in Python, give fdl.run the same arguments "
            "and resume=True"
        )
    before = Path(str(known.manifest.get("directory", ".")))
    return command[1], [_found(argument, before) for argument in command[2:]]


def _found(argument: str, before: Path) -> str:
    """An experiment file where it was, if it was named relative to the folder the run was started in."""
    if not argument.endswith(".py") or Path(argument).exists() or not (before / argument).exists():
        return argument
    return str(before / argument)
