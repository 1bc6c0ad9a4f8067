"""What every command on an experiment file does first: find FILE, read the options, build the experiment."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fdl.errors import InputError
from fdl.runs import experiment_file, options
from fdl.runs.progress import say
from fdl.training import compilation_cache


class Opened(NamedTuple):
    """An experiment file with its options: `experiment` is `build(chosen.config)`."""

    experiment: Any
    build: Callable[[Any], Any]
    chosen: Any
    file: str

    def source(self) -> dict[str, str]:
        """As `fdl.runs.experiment_file.sources`."""
        return experiment_file.sources(self.file)


def with_experiment(
    command: str, help: str, own: Sequence[options.Option], arguments: list[str], do: Callable[[Opened], None]
) -> int:
    """Opens the file, calls `do` with it, and returns the exit code.

    Raises:
      InputError: no FILE; whatever is wrong with it, with its options or with what it builds.
    """
    file = take_file(arguments)
    if file is None:
        if {"-h", "--help"} & set(arguments):
            say(sys.stdout, help)
            return 0
        raise InputError(
            f"fdl {command}: which experiment? fdl {command} FILE, such as: fdl {command} experiments/digits.py"
        )
    with experiment_file.opened(file) as module:
        try:
            chosen = options.parse(module, file, arguments, command, own)
        except SystemExit as stop:
            return int(stop.code or 0)
        compilation_cache.enable()
        with experiment_file.explained(str(module.__file__)):
            experiment = module.build(chosen.config)
        from fdl.training.experiment import Experiment

        if not isinstance(experiment, Experiment):
            raise InputError(f"{file}: build(config) must return an fdl.Experiment, got {type(experiment).__name__}")
        do(Opened(experiment, module.build, chosen, file))
    return 0


def take_file(arguments: list[str]) -> str | None:
    """Removes FILE from the arguments: the first of them, or after options the first Python file."""
    for index, argument in enumerate(arguments):
        if (index == 0 and not argument.startswith("-")) or argument.endswith(".py"):
            return arguments.pop(index)
    return None
