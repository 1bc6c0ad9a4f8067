"""Executables of this process, found again by their programs: a loop over `fdl.run(build, Config(rate))` compiles once.

A run is traced every time, which takes a small part of the time of compiling, and its program as text is the key. So
whatever the program depends on decides: a global variable that `build` reads and that was changed in the meantime, or
a constant of a closure, makes another text, while the identity of functions does not matter.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import jax

T = TypeVar("T")

MOST = 64  # executables that are kept: those of a dozen experiments. They hold machine code, no arrays.


@dataclass(frozen=True)
class Executable:
    """A compiled program, and its FLOPs before optimisation (0 where nobody asked)."""

    call: Any
    flops: float = 0.0


_kept: OrderedDict[Any, Executable] = OrderedDict()
_lock = threading.Lock()


def lower(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The program of a function for these arguments, with every one of them as an argument of the program."""
    # Without the unused ones, f(x, y) = x and f(x, y) = y would be the same text.
    return jax.jit(function, keep_unused=True, **options).lower(*arguments)


def compile_once(
    lowered: Any, options: dict[str, Any] | None = None, measured: bool = False
) -> tuple[Executable, bool]:
    """The executable of what `lower` returned, and whether it was there already; `measured` wants its FLOPs."""
    key = _key(lowered, options, measured)
    with _lock:
        if key is not None and key in _kept:
            _kept.move_to_end(key)
            return _kept[key], True
    cost = later(lowered.cost_analysis) if measured else None
    call = lowered.compile(options)
    flops = 0.0 if cost is None else float((cost.result() or {}).get("flops", 0.0))
    executable = Executable(call, flops)
    with _lock:
        if key is not None:
            _kept[key] = executable
        while len(_kept) > MOST:
            _kept.popitem(last=False)
    return executable, False


def later(call: Callable[[], T]) -> Future[T]:
    """What will be `call()`, on a thread: compiling leaves Python free to trace the next program."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


def forget() -> None:
    """Drops all executables, as `jax.clear_caches` does with JAX's own."""
    with _lock:
        _kept.clear()


def _key(lowered: Any, options: dict[str, Any] | None, measured: bool) -> Any:
    """Everything that an executable depends on; None where the text of the program does not say it all."""
    text = lowered.as_text()
    leaves = jax.tree.leaves(lowered.in_avals)
    # A callback is an address in this process. Constants that JAX passes as arguments of their own are not in the text.
    if "callback" in text or len(_arguments(text)) != len(leaves):
        return None
    types = [(leaf.shape, str(leaf.dtype), leaf.weak_type) for leaf in leaves]
    results = jax.tree.leaves(lowered.out_info)
    outs = [(leaf.shape, str(leaf.dtype), leaf.weak_type, _placed(leaf.sharding)) for leaf in results]
    digest = hashlib.sha256(text.encode()).hexdigest()
    placed = str(getattr(jax.config, "jax_default_device", None)), jax.default_backend()
    trees = lowered.in_tree, lowered.out_tree
    donated = lowered.donate_argnums
    return digest, trees, repr(types), repr(outs), donated, repr(options), placed, measured


def _placed(sharding: Any) -> Any:
    """A sharding and the devices in its order, which its text leaves out."""
    mesh = getattr(sharding, "mesh", None)
    return None if sharding is None else (str(sharding), mesh is not None and [d.id for d in mesh.devices.flat])


def _arguments(text: str) -> list[str]:
    """The arguments of the main function."""
    head = text[text.index("@main(") :].partition(" -> ")[0].partition("\n")[0]
    return re.findall(r"%arg\d+:", head)
