"""The one exception that fdl raises for what a user can put right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Bad input: the message alone says what was expected, what came, where, and the likely fix.

    The command `fdl` prints it without a traceback and exits with code 2; from Python it is a `ValueError`.
    """


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`"; did you mean 'kernel'?"` where a valid name is close to `name`, otherwise the list of valid names.

    >>> did_you_mean("kernal", ["kernel", "bias"])
    "; did you mean 'kernel'?"
    >>> did_you_mean("x", ["kernel", "bias"])
    '; valid: kernel, bias'
    """
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(valid)}"


class Stop(Exception):  # noqa: N818 - not an error, like StopIteration
    """A hook raises it to end a run after the chunk it was called for: `raise fdl.Stop("the loss is low enough")`.

    The run evaluates once more and returns its `Result`, whose `stopped` is the text. Its folder then has a checkpoint,
    and "stopped" as the status in its manifest; `resume=True` goes on from there. In a sweep it ends all members that
    train side by side; those whose turn is later train, and may be stopped alike. Keras has `model.stop_training`,
    Lightning `trainer.should_stop`.
    """


class Interrupted(KeyboardInterrupt):
    """A signal, such as Ctrl-C, stopped the run or sweep between two chunks: `except fdl.Interrupted as stop`.

    Args:
      signal: its number, such as `signal.SIGINT`.
      result: what was trained until then, a `Result` or a `SweepResult` of the members that had begun.
      folder: where the run is recorded and goes on with `resume=True`; None without one.
    """

    def __init__(self, message: str, signal: int, result: Any = None, folder: Any = None) -> None:
        super().__init__(message)
        self.signal, self.result, self.folder = signal, result, folder


class NonFiniteError(FloatingPointError):
    """The loss or the parameters of a run are no longer finite.

    Args:
      moment: the step that did it, a `fdl.training.rewind.Moment`: the state before it, its batch and its key; None, or
        the exception, where it could not be found again.
    """

    def __init__(self, message: str, moment: Any = None) -> None:
        super().__init__(message)
        self.moment = moment
