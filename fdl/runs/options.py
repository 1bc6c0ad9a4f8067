"""The options of `fdl run FILE`: the fields of the experiment's `Config`, beside a few of our own."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from fdl.errors import InputError

RESERVED = ("seed", "runs", "smoke", "help")


def parse(module: ModuleType, file: str, arguments: list[str]) -> Any:
    """An object with the attributes config, seed, runs and smoke.

    Raises:
      InputError: a field with one of our names, or values that the `Config` itself refuses.
      SystemExit: code 0 after --help, 2 after an unknown option or a value of the wrong type, both printed.
    """
    import tyro

    taken = [field.name for field in dataclasses.fields(module.Config) if field.name in RESERVED]
    if taken:
        raise InputError(f"{file}: Config has a field {taken[0]!r}, which is an option of fdl run itself; rename it")
    try:
        return tyro.cli(
            _options(module.Config),
            args=arguments,
            prog=f"fdl run {file}",
            description=inspect.cleandoc(module.__doc__ or ""),
        )
    except ValueError as error:
        raise InputError(f"{file}: Config: {error}") from error


def _options(config: type) -> type:
    from tyro.conf import FlagCreatePairsOff, arg

    def option(kind: Any, help: str) -> Any:
        return Annotated[kind, arg(help=help)]

    return dataclasses.make_dataclass(
        "Options",
        [
            ("config", Annotated[config, arg(name="")]),  # without a name, its fields are options of the top level
            ("seed", option(int, "Draws initial values, the order of the examples, dropout: everything."), 0),
            ("runs", option(Path, "Where run folders go: RUNS/<experiment>/<id>."), Path("runs")),
            ("smoke", FlagCreatePairsOff[option(bool, "Only a few steps, to see that everything works.")], False),
        ],
    )
