"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from fdl.errors import InputError


def user_path(path: str | os.PathLike[str], name: str = "") -> Path:
    """The path, with a leading `~` (or `~name`) as the home folder; `name` says in an error where it was given.

    Raises:
      InputError: no path at all, one with a zero byte, or a `~name` whose home folder is not known.

    >>> user_path("~/runs") == Path.home() / "runs"
    True
    """
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        where = f"{name}: " if name else ""
        raise InputError(f"{where}expected a path as text or a pathlib.Path, got {type(path).__name__}")
    if "\0" in os.fspath(path):
        raise InputError(f"expected a path, got one with a zero byte: {os.fspath(path)[:80]!r}")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: the home folder that ~ stands for is not known; write the path out") from None
