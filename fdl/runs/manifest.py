"""The manifest: what one has to know about a run to repeat it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fdl
from fdl.runs.files import plain

LIBRARIES = ("jax", "jaxlib", "optax", "numpy", "safetensors")
NUMERICS = ("default_prng_impl", "threefry_partitionable", "enable_x64", "default_matmul_precision")  # of jax.config


def describe(config: Any, seed: Any) -> dict[str, Any]:
    """Everything that is known about a run before it starts."""
    import jax

    devices = jax.devices()
    return {
        "seed": plain(seed),
        "config_hash": config_hash(config),
        "command": sys.argv,
        "directory": os.getcwd(),
        "pid": os.getpid(),
        "versions": {"fdl": fdl.__version__, **{name: _version(name) for name in LIBRARIES}},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "numerics": numerics(),
        "git": git_state(_source_folder(config)),
    }


def numerics() -> dict[str, Any]:
    """What decides bits beside code, seed and versions: generator of random numbers, precisions, flags, processor."""
    import jax

    config = {name: getattr(jax.config, f"jax_{name}", None) for name in NUMERICS}
    flags = {name: os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")}
    return {**config, **flags, "processes": jax.process_count(), "cores": cores(), "cpu": processor()}


def processor() -> dict[str, str | None]:
    """The model of the CPU, and a hash of its instruction sets: other ones sum in another order."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {"model": platform.processor() or None, "flags": None}
    known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    sets = known.get("flags", known.get("Features"))
    hashed = sets and hashlib.sha256(" ".join(sorted(sets.split())).encode()).hexdigest()[:16]
    return {"model": known.get("model name", platform.processor() or None), "flags": hashed}


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def config_hash(config: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the config as sorted JSON.

    >>> config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    True
    """
    text = json.dumps(plain(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit that is checked out at `folder`, and whether tracked files differ from it; None outside of git."""
    describe = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # only look
    try:
        done = subprocess.run(describe, capture_output=True, text=True, timeout=10, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    revision = done.stdout.strip()
    return {"revision": revision.removesuffix("-dirty"), "dirty": revision.endswith("-dirty")}


def _source_folder(config: Any) -> Path:
    """Where the code of the experiment lies, which need not be where the command was typed."""
    file = getattr(sys.modules.get(type(config).__module__), "__file__", None)
    return Path.cwd() if config is None or file is None else Path(file).parent


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
