"""The options of `fdl COMMAND FILE`: the fields of the experiment's `Config`, beside a few of the command's own."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated, Any, NamedTuple

from fdl.errors import InputError
from fdl.runs.progress import clean, say


class Option(NamedTuple):
    """An option of a command itself."""

    name: str
    kind: Any
    default: Any
    help: str


def parse(module: ModuleType, file: str, arguments: list[str], command: str, own: Sequence[Option]) -> Any:
    """An object with the attribute config, and one for each of the command's own options.

    Raises:
      InputError: a field with the name of one of them, or values that the `Config` itself refuses.
      SystemExit: code 0 after --help, 2 after an unknown option or a value of the wrong type, both printed.
    """
    import tyro

    reserved = {"help", *(option.name for option in own)}
    taken = [field.name for field in dataclasses.fields(module.Config) if field.name in reserved]
    if taken:
        raise InputError(
            f"{file}: Config has a field {taken[0]!r}, which is an option of fdl {command} itself; rename it"
        )
    told = io.StringIO()  # it repeats what was typed as it was typed
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(
                _options(module.Config, own),
                args=arguments,
                prog=clean(f"fdl {command} {file}"),
                description=clean(inspect.cleandoc(module.__doc__ or "")),
            )
    except ValueError as error:
        raise InputError(f"{file}: Config: {error}") from error
    finally:
        if told.getvalue():
            say(sys.stderr, told.getvalue().rstrip())


def _options(config: type, own: Sequence[Option]) -> type:
    from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

    fields: list[Any] = [("config", Annotated[config, arg(name="")])]  # no name: its fields are at the top level
    for option in own:
        kind = Annotated[option.kind, arg(help=option.help)]
        if option.kind is bool:
            kind = FlagCreatePairsOff[kind]
        if option.kind == list[str]:  # given again and again
            kind, default = UseAppendAction[kind], dataclasses.field(default_factory=list)
        else:
            default = option.default
        fields.append((option.name, kind, default))
    return dataclasses.make_dataclass("Options", fields)
