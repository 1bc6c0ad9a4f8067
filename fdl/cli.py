"""The command `fdl`. Only light modules are imported here: `fdl --help` has to answer at once, without jax.

Exit codes: 0 success; 2 bad usage or bad input, one message; 1 a failed run; 130 interrupted, with what was recorded
saved.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import fdl
from fdl.errors import InputError, did_you_mean
from fdl.runs.progress import clean

HELP = """\
usage: fdl COMMAND ...

fdl: a functional deep-learning toolkit on JAX.

commands:
  run FILE    train the experiment in FILE and keep what it did in a run folder

options:
  -h, --help  show this message; fdl COMMAND --help says more
  --version   show the version"""

RUN_HELP = """\
usage: fdl run FILE [--seed N] [--runs DIR] [--smoke] [options of the experiment]

Trains the experiment in FILE: a Python file with a frozen dataclass Config, whose
fields are the options, and a function build(config) -> fdl.Experiment. What the run
did is kept in the new folder DIR/<experiment>/<id>.

  --seed N    draws initial values, the order of the examples, dropout: everything (default: 0)
  --runs DIR  where run folders go (default: runs)
  --smoke     only a few steps, to see that everything works

fdl run FILE --help shows the options of the experiment as well."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (None: the program's own) and returns its exit code."""
    if hasattr(sys.stdout, "reconfigure"):  # a name that the terminal's encoding lacks is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        return _report(error, 2)
    except KeyboardInterrupt as error:
        print(clean("; ".join(filter(None, ["interrupted", str(error), *_notes(error)]))), file=sys.stderr)
        if arguments is None:  # jaxlib 0.10.2 crashes at exit (code 139) where Ctrl-C met a compilation
            print(end="", flush=True)
            os._exit(130)
        return 130
    except BaseException as error:
        if _is_failed_run(error):
            return _report(error, 1)
        traceback.print_exception(error)  # a bug of the experiment, or ours
        return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(HELP, file=sys.stderr)
        return 2
    command, *rest = arguments
    if command in ("-h", "--help", "--version"):
        print(f"fdl {fdl.__version__}" if command == "--version" else HELP)
        return 0
    if command not in COMMANDS:
        kind = "option" if command.startswith("-") else "command"
        valid = ("--help", "--version") if kind == "option" else COMMANDS
        raise InputError(f"fdl: there is no {kind} {command!r}{did_you_mean(command, valid)}")
    return COMMANDS[command](rest)


def _run(arguments: list[str]) -> int:
    file = _take_file(arguments)
    if file is None:
        if {"-h", "--help"} & set(arguments):
            print(RUN_HELP)
            return 0
        raise InputError("fdl run: which experiment? fdl run FILE, such as: fdl run experiments/digits.py")
    from fdl.runs import experiment_file, options

    with experiment_file.opened(file) as module:
        try:
            chosen = options.parse(module, file, arguments)
        except SystemExit as stop:
            return int(stop.code or 0)
        with experiment_file.explained(str(module.__file__)):
            experiment = module.build(chosen.config)
        _execute(experiment, chosen, file)
    return 0


def _execute(experiment: Any, chosen: Any, file: str) -> None:
    from pathlib import Path

    from fdl.runs.folder import new_folder
    from fdl.runs.progress import progress, show_result
    from fdl.training.experiment import Experiment
    from fdl.training.run import execute

    if not isinstance(experiment, Experiment):
        raise InputError(f"{file}: build(config) must return an fdl.Experiment, got {type(experiment).__name__}")
    if chosen.smoke:
        experiment = experiment.smoke()
    name = Path(file).stem
    folder = new_folder(chosen.runs, name)
    try:
        with progress(name, experiment.total_steps(), experiment.steps_per_epoch()) as watch:
            result = execute(experiment, config=chosen.config, seed=chosen.seed, folder=folder, watchers=(watch,))
    except BaseException as error:
        if folder.exists():
            error.add_note(f"recorded in {folder}")
        raise
    show_result({**result.metrics, **result.info}, str(folder))


def _take_file(arguments: list[str]) -> str | None:
    """Removes FILE from the arguments: the first of them, or after options the first Python file."""
    for index, argument in enumerate(arguments):
        if (index == 0 and not argument.startswith("-")) or argument.endswith(".py"):
            return arguments.pop(index)
    return None


def _is_failed_run(error: BaseException) -> bool:
    from fdl.runs.folder import RunFolderError

    return isinstance(error, FloatingPointError | RunFolderError)


def _report(error: BaseException, code: int) -> int:
    print(clean("\n  ".join([f"error: {error}", *_notes(error)])), file=sys.stderr)
    return code


def _notes(error: BaseException) -> list[str]:
    """What was added on the way; JAX adds how it shortened a traceback, which we do not print."""
    return [note for note in getattr(error, "__notes__", []) if "JAX_TRACEBACK_FILTERING" not in note]


COMMANDS = {"run": _run}
