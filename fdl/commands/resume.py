"""`fdl resume RUN`: goes on where a run stopped, to the same bits as if it had not."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

from fdl.commands.words import parsed, whole_numbers
from fdl.errors import InputError
from fdl.paths import user_path
from fdl.runs.experiment_file import digest
from fdl.runs.fitting import Resume
from fdl.runs.progress import say
from fdl.runs.recorded import recorded, resolve

HELP = """\
usage: fdl resume RUN [FILE] [--num-steps N] [--accept NAME] [--partial]
                  [--rename REGEX=REPLACEMENT] [--cast] [--trust] [--runs DIR]

Goes on with a run that was interrupted or killed, from its newest verified checkpoint,
with the command it was started with. RUN is its folder, or the beginning of its id in
DIR (default: runs). What it ends with is equal to the bit to what it would have been.

What decides the rest of the run (batch size, steps, loss, metrics, the source of the
experiment, ...) has to be as it was; a difference is refused by its name, unless:

  --num-steps N   train until step N, also where the run is finished; the schedules go on
              as they were built for the steps before
  --accept NAME   take this change, such as batch_size, loss, source; may be repeated, or
              have several names with commas

A checkpoint that does not fit, as the code has changed since, is refused, unless:

  --partial   what fits is taken, also with another optimizer; the rest begins anew
  --rename REGEX=REPLACEMENT
              in paths such as carry/train/params/fc/kernel, as re.sub does; may be repeated:
              '/fc/=/head/' renames a layer, and what the optimiser knows of it
  --cast      arrays are converted to the types that they have now

What was changed or not taken is printed, and kept in manifest.json and result.json.

The experiment file that is run is FILE; without it, the one the run was started with, if it
is where it was, with the same contents (or --accept source).

  --trust     runs the file that the run folder names, whatever it is"""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        say(sys.stdout, HELP)
        return 0
    options = {"--runs": True, "--partial": False, "--rename": True, "--cast": False}
    options |= {"--num-steps": True, "--accept": True, "--trust": False}
    names, given = parsed("fdl resume", arguments, options)
    rename = [_rule(text) for text in given.get("--rename", [])]
    accept = [name.strip() for text in given.get("--accept", []) for name in text.split(",")]
    steps = whole_numbers("fdl resume", "--num-steps", given.get("--num-steps", [])[-1:])
    file = names.pop() if len(names) == 2 else None
    folder = chosen_run("fdl resume", names, given.get("--runs", ["runs"])[-1])
    how = Resume("--partial" in given, rename, "--cast" in given, accept)
    kind, again = started(folder, file, how.accepts("source"), "--trust" in given)
    longer = recorded(folder).manifest.get("num_steps")  # a run that was made longer stays so
    steps = steps or [longer if isinstance(longer, int) and longer >= 1 else None]
    how = dataclasses.replace(how, num_steps=steps[0])
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
    path = user_path(names[0])
    return path if path.is_dir() else resolve(names[0], user_path(runs))


def started(
    folder: Path, file: str | None = None, changed: bool = False, trusted: bool = False
) -> tuple[str, list[str]]:
    """How the run in a folder was started: "run" or "sweep", and what stood after it.

    Args:
      file: an experiment file that the user names, instead of the one it was started with.
      changed: the contents of that one may be others than they were.
      trusted: whatever the folder names may be run.

    Raises:
      InputError: not by one of these commands, or with a file that need not be the same.
    """
    known = recorded(folder)
    told = known.manifest.get("command")
    command = told if isinstance(told, list) and all(isinstance(word, str) for word in told) else []
    if len(command) < 3 or command[1] not in ("run", "sweep"):
        raise InputError(
            f"{folder}: its manifest.json does not say how it was started; in Python, give fdl.run the same arguments "
            "and resume=True"
        )
    again = command[2:]
    place = next((i for i, word in enumerate(again) if (i == 0 and word[:1] != "-") or word.endswith(".py")), None)
    if place is not None:
        again[place] = file or str(_found(again[place], folder, known.manifest, changed, trusted))
    return command[1], again


def _found(named: str, folder: Path, manifest: dict[str, Any], changed: bool, trusted: bool) -> Path:
    """The experiment file where it was when the run was started.

    A run folder may come from somebody else, and what it names is run: only a file with the contents that it had.
    """
    path = Path(str(manifest.get("directory", "."))) / user_path(named)
    source = manifest.get("source")
    before = source.get(path.name) if isinstance(source, dict) else None
    if trusted:
        return path if path.exists() or not user_path(named).exists() else user_path(named)
    name_it = f"fdl resume {folder} FILE"
    if not path.exists():
        raise InputError(f"{folder}: it was started with {path}, which is not there; name the file: {name_it}")
    if before is None:
        raise InputError(
            f"{folder}: does not say what {path} contained when it was started; name the file, as in {name_it}, or "
            "--trust what the folder says"
        )
    if before != digest(path) and not changed:
        raise InputError(
            f"{path} is not as it was when the run was started; bring it back, or take the change: "
            f"fdl resume {folder} --accept source"
        )
    return path
