"""Compiling, with a record of what it took and what came out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

import jax

from fdl.training.executable_cache import compile_once, lower

HIT = "/jax/compilation_cache/cache_hits"


class Program(NamedTuple):
    """What is known of a compiled program.

    Args:
      name: "chunk", or "evaluate/<set>".
      seconds_trace: from Python to StableHLO.
      seconds_compile: from there to machine code, or to reading it from the cache.
      cache_hit: whether it came from the persistent compilation cache.
      flops: of one pass, before optimisation; the body of a loop counts once: for a chunk, one step.
      steps: passes of the body that a whole run takes.
      bytes_arguments, bytes_temporaries: memory while it runs.
      reused: whether this process had compiled it before, for another run.
    """

    name: str
    seconds_trace: float
    seconds_compile: float
    cache_hit: bool
    flops: float
    steps: int
    bytes_arguments: int
    bytes_temporaries: int
    reused: bool = False


def compiled(name: str, function: Callable[..., Any], *arguments: Any, steps: int = 1, **options: Any) -> Any:
    """`(executable, Program)` of `jax.jit(function, **options)` for these arguments."""
    started = time.perf_counter()
    lowered = lower(function, *arguments, **options)
    traced = time.perf_counter()
    hits = _hits[get_ident()]
    executable, known = compile_once(lowered, measured=True)
    done = time.perf_counter()
    memory = executable.call.memory_analysis()
    sizes = [int(getattr(memory, f"{kind}_size_in_bytes", 0)) for kind in ("argument", "temp")]
    hit = _hits[get_ident()] > hits
    record = Program(name, traced - started, done - traced, hit, executable.flops, steps, sizes[0], sizes[1], known)
    return executable.call, record


def compiled_quickly(lowered: Any) -> Any:
    """The executable of a program that runs once: on a CPU, optimising it would take far longer than that.

    Initial values make such programs: random numbers are long ones. The bits are the same; with level 0 they are not.
    """
    if jax.default_backend() != "cpu":
        return compile_once(lowered)[0].call
    options = _quick[0]
    try:
        return compile_once(lowered, options)[0].call
    except jax.errors.JaxRuntimeError:
        if options is None:
            raise
        _quick[:] = [None]
        return compile_once(lowered)[0].call


QUICK = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
_quick: list[dict[str, Any] | None] = [QUICK]  # options of XLA come and go: None once it has refused them


_hits = Counter[int]()  # by thread: programs may compile side by side


def _count(event: str, **details: Any) -> None:
    _hits[get_ident()] += event == HIT


jax.monitoring.register_event_listener(_count)
