"""Compiling, with a record of what it took and what came out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import get_ident
from typing import Any, NamedTuple

import jax

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
    """

    name: str
    seconds_trace: float
    seconds_compile: float
    cache_hit: bool
    flops: float
    steps: int
    bytes_arguments: int
    bytes_temporaries: int


def compiled(name: str, function: Callable[..., Any], *arguments: Any, steps: int = 1, **options: Any) -> Any:
    """`(executable, Program)` of `jax.jit(function, **options)` for these arguments."""
    started = time.perf_counter()
    lowered = jax.jit(function, **options).lower(*arguments)
    traced = time.perf_counter()
    hits = _hits[get_ident()]
    executable = lowered.compile()
    done = time.perf_counter()
    flops = (lowered.cost_analysis() or {}).get("flops", 0.0)
    memory = executable.memory_analysis()
    sizes = [int(getattr(memory, f"{kind}_size_in_bytes", 0)) for kind in ("argument", "temp")]
    record = Program(name, traced - started, done - traced, _hits[get_ident()] > hits, float(flops), steps, *sizes)
    return executable, record


def compiling(lowered: Any) -> Future[Any]:
    """What will be `lowered.compile()`, on a thread: meanwhile Python can trace the next program."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(lowered.compile)
    pool.shutdown(wait=False)
    return future


_hits = Counter[int]()  # by thread: programs may compile side by side


def _count(event: str, **details: Any) -> None:
    _hits[get_ident()] += event == HIT


jax.monitoring.register_event_listener(_count)
