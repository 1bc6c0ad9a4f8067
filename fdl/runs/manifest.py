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

LIBRARIES = ("jax", "jaxlib", "optax", "numpy")


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
        "git": git_state(_source_folder(config)),
    }


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
