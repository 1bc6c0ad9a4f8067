"""Other libraries at the first use, and how their modules are told whether they train."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fdl.errors import InputError

REQUIREMENTS = {"flax": "flax>=0.12.8", "equinox": "equinox>=0.13.8"}  # as tested
TRAINING = ("train", "training", "is_training")
EVALUATING = ("deterministic", "use_running_average", "inference")
Flags = Callable[[bool], Mapping[str, Any]]
"""train -> keywords of the call, such as `lambda train: {"frozen": not train}`."""


def library(name: str) -> Any:
    """The module of that name, such as "flax.nnx".

    Raises:
      InputError: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.split(".")[0]
        if error.name not in (name, package):
            raise
        requirement = REQUIREMENTS.get(package, package)
        raise InputError(f"{name} is not installed here: pip install '{requirement}'") from None


def parameters(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The named parameters of a call, by name."""
    return {
        name: parameter
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def mode(call: Callable[..., Any], flags: Flags | None, train: bool) -> dict[str, Any]:
    """The keywords that tell `call` whether it trains: those of `flags`, or every usual name in its signature.

    >>> mode(lambda x, *, deterministic, mask=None: x, None, train=True)
    {'deterministic': False}
    """
    if flags is not None:
        return dict(flags(train))
    names = parameters(call)
    return {n: train for n in TRAINING if n in names} | {n: not train for n in EVALUATING if n in names}
