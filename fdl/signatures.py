"""The functions that a user gives: one that cannot be called as fdl calls it is refused before anything is traced."""

from __future__ import annotations

import inspect
import re
from typing import Any

from fdl.errors import InputError
from fdl.records import short


def check_signature(name: str, function: Any, expected: str) -> None:
    """Raises unless a function can be called with the arguments of a signature; one that tells no signature passes.

    Args:
      name: where the user gave it, for the message.
      expected: the signature as the documentation spells it: "(batch, key) -> batch"; what follows `*` is by name.

    Raises:
      InputError: no function, or one with other arguments.

    >>> check_signature("augment", lambda batch, key: batch, "(batch, key) -> batch")
    >>> check_signature("augment", lambda batch: batch, "(batch, key) -> batch")
    Traceback (most recent call last):
    fdl.errors.InputError: augment: expected a function (batch, key) -> batch, got <lambda>(batch)
    """
    if isinstance(function, type) or not callable(function):
        what = f"the class {function.__name__}" if isinstance(function, type) else short(function)
        raise InputError(f"{name}: expected a function {expected}, got {what}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function written in C
        return
    positional, _, named = re.match(r"\((.*?)\)", expected)[1].partition("*")  # pyright: ignore[reportOptionalSubscript]
    words = [re.findall(r"\w+", part) for part in (positional, named)]
    try:
        signature.bind(*words[0], **dict.fromkeys(words[1]))
    except TypeError:
        got = getattr(function, "__name__", type(function).__name__)
        arguments = signature.replace(return_annotation=signature.empty)
        raise InputError(f"{name}: expected a function {expected}, got {got}{arguments}") from None
