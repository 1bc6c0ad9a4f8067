"""What led up to an error inside a layer: the path of the layer, and the shapes of what went before."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import jax

from fdl.errors import InputError
from fdl.records import short

LINES = 10  # of the table
_inside: ContextVar[bool] = ContextVar("inside a layer", default=False)


def on_error(method: Callable[..., Any]) -> Callable[..., Any]:
    """`apply` or `__call__` of a layer; an error out of the outermost one gets notes that say where it rose.

    Where there is no error, nothing is recorded. Where there is one, inputs that JAX does not take (big-endian arrays,
    tensors, ...) are converted as a dataset converts them, or refused. Where nothing is to convert, the call is made
    once more with a tap on every layer, in the same trace and with the same arguments.
    """

    @functools.wraps(method)
    def call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        if _inside.get():
            return method(layer, *arguments, **keywords)
        token = _inside.set(True)
        try:
            return method(layer, *arguments, **keywords)
        except (MemoryError, jax.errors.JaxRuntimeError):  # once more would be no better
            raise
        except Exception as error:
            _refuse_params(error, layer, arguments)
            known = isinstance(error, InputError)
            ready = None if known else _ready(layer, method.__name__, arguments, keywords)
            if ready is None:
                _explain(error, layer, method.__name__, arguments, keywords)
                raise
        finally:
            _inside.reset(token)
        return call(layer, *ready[0], **ready[1])

    return call


def _ready(layer: Any, name: str, arguments: Any, keywords: Any) -> tuple[Any, Any] | None:
    """The arguments with all inputs converted; None where JAX takes them as they are."""
    from fdl.data.conversion import jax_tree

    own = 2 if name == "apply" else 1  # params, and the state
    where = f"{type(layer).__name__}: the input"
    inputs = (arguments[own:], {word: value for word, value in keywords.items() if word != "params"})
    ready = tuple(jax_tree(value, where) for value in inputs[0]), jax_tree(inputs[1], where)
    same = all(map(lambda a, b: a is b, jax.tree.leaves(inputs), jax.tree.leaves(ready)))
    return None if same else ((*arguments[:own], *ready[0]), keywords | ready[1])


def _refuse_params(error: Exception, layer: Any, arguments: Any) -> None:
    """An error that comes of something else in the place of the parameters is one in words.

    Raises:
      InputError: what stands in their place.
    """
    if not arguments or not isinstance(error, KeyError | TypeError | AttributeError | IndexError):
        return
    if not isinstance(arguments[0], Mapping):
        what = "the pair (params, state) of fdl.init" if isinstance(arguments[0], tuple) else short(arguments[0])
        raise InputError(
            f"{short(layer)}: params: expected a dict, as in params, state = fdl.init(layer, key); layer(params, x), "
            f"got {what}"
        ) from error


def _explain(error: Exception, layer: Any, name: str, arguments: Any, keywords: Any) -> None:
    from fdl.inspect.trace import Trace

    trace = Trace()
    try:
        with jax.debug_key_reuse(False):  # the same key a second time, on purpose
            getattr(trace.on(layer), name)(*arguments, **keywords)
    except Exception as again:
        if type(again) is type(error) and trace.failed is not None and trace.failed.path:
            _note_path(error, trace.failed.path)
            error.add_note(trace.table(LINES))


def _note_path(error: Exception, path: str) -> None:
    """The containers have noted what they know of the path; a layer of the user's own may know less."""
    prefix = "in layer "
    for note in [note for note in getattr(error, "__notes__", []) if note.startswith(prefix)]:
        error.__notes__.remove(note)
    error.add_note(prefix + path)
