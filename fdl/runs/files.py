"""JSON on disk: what a value looks like there, and how a file appears whole or not at all."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fdl.records import source


def plain(value: Any) -> Any:
    """`value` as JSON can hold it; NaN and infinity are null, functions and paths their names.

    >>> plain({"rate": float("inf"), "activation": math.tanh, "data": Path("a/b"), "sizes": (1, 2)})
    {'rate': None, 'activation': 'math.tanh', 'data': 'a/b', 'sizes': [1, 2]}
    """
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if callable(value):
        return _without_address(source(value))
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # a number or an array of numpy or JAX
        return plain(value.tolist())
    return _without_address(str(value))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON; see `write_text`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, data: str) -> None:
    """Writes a file that is either the old one or the whole new one, whenever the machine stops."""
    with replacing(path) as file:
        file.write(data.encode())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is written and on the disk; no link is followed on the way."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a process that was killed, or a link that somebody put there
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _without_address(text: str) -> str:
    """Where in memory a lambda was is no property of a run: two equal ones must hash equal."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
