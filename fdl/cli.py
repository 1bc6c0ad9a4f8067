"""The command `fdl`. Only light modules are imported here: `fdl --help` has to answer at once, without jax.

Exit codes: 0 success; 2 bad usage or bad input, one message; 1 a failed run; 130 after Ctrl-C and 143 after SIGTERM,
with everything saved; 75 for the latter where the scheduler is to start the run again (--requeue).
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import fdl
from fdl.errors import InputError, did_you_mean
from fdl.runs.progress import say

HELP = """\
usage: fdl COMMAND ...

fdl: a functional deep-learning toolkit on JAX.

commands:
  run FILE           train the experiment in FILE and keep what it did in a run folder
  resume RUN         go on where a run stopped, to the same bits
  verify-resume RUN  prove that: stop it at some steps, resume, compare
  sweep FILE         train many settings and seeds of it side by side
  summary FILE       show its model: paths, shapes, parameters, FLOPs
  plan FILE          show the memory and work a run would take, without running it
  runs list          show the runs in a folder
  runs compare       show where two or more runs differ, in config and in results
  ckpt show RUN      show its checkpoints; ckpt diff A B; ckpt export RUN -o FILE

options:
  -h, --help    show this message; fdl COMMAND --help says more
  --version     show the version"""

COMMANDS = ("run", "resume", "verify-resume", "sweep", "summary", "plan", "runs", "ckpt")
"""Each is the module fdl.commands.<name>, with _ for -, imported when it is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (None: the program's own) and returns its exit code."""
    if hasattr(sys.stdout, "reconfigure"):  # a name that the terminal's encoding lacks is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        return _report(error, 2)
    except KeyboardInterrupt as error:
        say(sys.stderr, "; ".join(filter(None, ["interrupted", str(error), *_notes(error)])))
        code = getattr(error, "exit_code", 128 + getattr(error, "signal", 2))
        if arguments is None:  # jaxlib 0.10.2 crashes at exit (code 139) where Ctrl-C met a compilation
            with suppress(OSError):  # a terminal that is gone
                print(end="", flush=True)
            os._exit(code)
        return code
    except BaseException as error:
        if _is_failed_run(error):
            return _report(error, 1)
        say(sys.stderr, "".join(traceback.format_exception(error)).rstrip())  # a bug of the experiment, or ours
        return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        say(sys.stderr, HELP)
        return 2
    command, *rest = arguments
    if command in ("-h", "--help", "--version"):
        say(sys.stdout, f"fdl {fdl.__version__}" if command == "--version" else HELP)
        return 0
    if command not in COMMANDS:
        kind = "option" if command.startswith("-") else "command"
        valid = ("--help", "--version") if kind == "option" else COMMANDS
        raise InputError(f"fdl: there is no {kind} {command!r}{did_you_mean(command, valid)}")
    return importlib.import_module(f"fdl.commands.{command.replace('-', '_')}").main(rest)


def _is_failed_run(error: BaseException) -> bool:
    from fdl.runs.checkpoints import CheckpointError
    from fdl.runs.folder import RunFolderError

    return isinstance(error, FloatingPointError | RunFolderError | CheckpointError)


def _report(error: BaseException, code: int) -> int:
    notes = (note.replace("\n", "\n  ") for note in _notes(error))
    say(sys.stderr, "\n  ".join([f"error: {error}", *notes]))
    return code


def _notes(error: BaseException) -> list[str]:
    """What was added on the way; JAX adds how it shortened a traceback, which we do not print."""
    return [note for note in getattr(error, "__notes__", []) if "JAX_TRACEBACK_FILTERING" not in note]
