"""Pickles read as data: a stack machine over `pickletools.genops`, which parses a pickle and never executes one.

A pickle is a program whose instructions may call anything. Here it can call only what a table of known globals lists,
by default what numbers, numpy arrays and plain containers are made of; any other global is an `InputError`.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Callable
from os import PathLike
from typing import Any

from fdl.data.formats.pickled_values import KNOWN, Known, Record, plain_key
from fdl.data.formats.source import Source, damage, open_source
from fdl.errors import InputError

__all__ = ["KNOWN", "Known", "Record", "read_pickle", "read_stream"]


def read_pickle(source: str | PathLike[str] | bytes | Source, known: Known = KNOWN) -> Any:
    """The value of a pickle of protocol 0 to 5, with nothing executed.

    Python 2's strings become str by latin-1, ordered and default dicts become dicts, tuples and lists stay what they
    are, and scipy's CSR matrices become a `Record` whose `state` holds data, indices and indptr.

    Args:
      source: the file.
      known: the globals it may name.

    Raises:
      InputError: a damaged pickle; one that names anything else (the error says what), or holds sets, extension
        codes, persistent ids or dict keys other than text and numbers.

    >>> read_pickle(b"(dp0\\nS'a'\\np1\\n(lp2\\nI1\\naF2.5\\nas.")
    {'a': [1, 2.5]}
    """
    source = open_source(source, "a pickle")
    data = source.read()
    if (kind := source.kind()) and kind.name != "a pickle":
        raise source.other("a pickle")
    stream = io.BytesIO(data)
    value = read_stream(stream, source.name, known)
    if stream.tell() != len(data):
        raise source.error("a pickle", f"one with {len(data) - stream.tell()} bytes after its end")
    return value


def read_stream(
    stream: io.BytesIO,
    name: str,
    known: Known = KNOWN,
    persistent: Callable[[Any], Any] | None = None,
    advice: str = "",
) -> Any:
    """The next pickle of a stream, which is left just after it; see `read_pickle`.

    Args:
      stream: where several pickles may follow each other, as in a file of PyTorch before 1.6.
      name: of the file, for errors.
      known: the globals it may name.
      persistent: what a persistent id stands for; None = there may be none.
      advice: for the error about an unknown global.
    """
    machine = _Machine(name, known, persistent, room=4 * len(stream.getbuffer()), advice=advice)
    with warnings.catch_warnings(), damage(name, "a pickle"):
        warnings.simplefilter("ignore")  # of escape sequences in damaged strings
        for operation, argument, _ in pickletools.genops(stream):
            machine.step(operation.name, argument)
        (value,) = machine.stack
        return value


class _Global:
    """A known global on the stack."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)


class _Mark:
    pass


class _Machine:
    """The stack and the memo; `step` carries out one instruction."""

    def __init__(
        self, name: str, known: Known, persistent: Callable[[Any], Any] | None, room: int, advice: str
    ) -> None:
        self.name, self.known, self.persistent, self.room, self.advice = name, known, persistent, room, advice
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.places: dict[int, list[int]] = {}  # id of a value that can still be built -> where the memo has it

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _METHODS:
            _METHODS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"instruction {name} is not supported")

    def pop(self) -> Any:
        if isinstance(self.stack[-1], _Mark):
            raise ValueError("a mark where a value should be")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        values = []
        while not isinstance(self.stack[-1], _Mark):
            values.append(self.stack.pop())
        self.stack.pop()
        return values[::-1]

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {type(self.stack[-1]).__name__} where a {kind.__name__} should be")
        return self.stack[-1]

    def charged(self, value: Any) -> Any:
        """Calls copy, and a few bytes can repeat a call: what all make together is limited."""
        size = getattr(value, "nbytes", None)
        self.room -= size if size is not None else len(value) if isinstance(value, bytes | dict | list) else 0
        if self.room < 0:
            raise ValueError("values made from the same bytes again and again")
        return value

    def find(self, argument: Any) -> None:
        if argument not in self.known:
            raise InputError(
                f"{self.name}: expected a pickle of plain data, got one that names the global {str(argument)[:80]!r}; "
                f"nothing was executed{f'; {self.advice}' if self.advice else ''}"
            )
        self.stack.append(_Global(self.known[argument]))

    def find_on_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.find(f"{module} {name}" if isinstance(name, str) and isinstance(module, str) else None)

    def call(self, function: Any, args: Any) -> None:
        if not isinstance(function, _Global) or not isinstance(args, tuple):
            raise ValueError("a call of something that is no function")
        self.stack.append(self.charged(function(*args)))

    def reduce(self, _: Any) -> None:
        args, function = self.pop(), self.pop()
        self.call(function, args)

    def instance(self, argument: Any) -> None:
        args = self.pop_to_mark()
        self.find(argument)
        self.call(self.pop(), tuple(args))

    def build(self, _: Any) -> None:
        state, value = self.pop(), self.pop()
        places = self.places.pop(id(value), [])
        if hasattr(value, "build"):
            built = self.charged(value.build(state))
        elif isinstance(value, dict | list):  # attributes of an OrderedDict, say, which are not kept
            built = value
        else:
            raise ValueError(f"state for a {type(value).__name__}")
        self.memo |= dict.fromkeys(places, built)
        self.stack.append(built)

    def put(self, place: Any) -> None:
        value = self.top(object)
        self.memo[place] = value
        if hasattr(value, "build"):
            self.places.setdefault(id(value), []).append(place)

    def append(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        self.top(dict).update(_pairs(values))

    def resolve(self, argument: Any) -> None:
        if self.persistent is None:
            raise ValueError("a persistent id")
        self.stack.append(self.persistent(argument))


def _pairs(values: list[Any]) -> dict:
    if len(values) % 2:
        raise ValueError("a key without a value")
    return {plain_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


_INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_TEXT = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_LITERALS = {"FLOAT", "BINFLOAT", *_INTEGERS, *_BYTES, *_TEXT}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": _Mark},
    **{"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict},
}
_METHODS: dict[str, Callable[[_Machine, Any], Any]] = {
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.pop_to_mark(),
    "DUP": lambda m, _: m.stack.append(m.top(object)),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, _: m.stack.append((m.pop(),)),
    "TUPLE2": lambda m, _: m.stack.append((m.pop(), m.pop())[::-1]),
    "TUPLE3": lambda m, _: m.stack.append((m.pop(), m.pop(), m.pop())[::-1]),
    "LIST": lambda m, _: m.stack.append(m.pop_to_mark()),
    "DICT": lambda m, _: m.stack.append(_pairs(m.pop_to_mark())),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "GLOBAL": _Machine.find,
    "STACK_GLOBAL": _Machine.find_on_stack,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "INST": _Machine.instance,
    "BUILD": _Machine.build,
    "PERSID": _Machine.resolve,
    "BINPERSID": lambda m, _: m.resolve(m.pop()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, place: m.stack.append(m.memo[place])),
}
