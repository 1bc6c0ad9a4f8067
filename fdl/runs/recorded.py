"""Runs as their folders tell of them. Whatever is missing or damaged there becomes a remark, never an exception."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

from fdl.errors import InputError, did_you_mean

FILES = ("config.json", "manifest.json", "metrics.jsonl", "result.json")
ID = re.compile(r"\d{8}-\d{6}-\d{3}-[0-9a-f]{8}")  # as fdl.runs.folder.new_folder makes them
TAIL = 2**16  # bytes at the end of metrics.jsonl that are looked at


class Recorded(NamedTuple):
    """One run folder.

    Args:
      status: "finished", "stopped" (by a hook), "failed", "interrupted", "running"; "died" where the manifest says that
        and no process writes it; "unknown" where the manifest does not say.
      started: ISO 8601, UTC; None where it is not known.
      seconds: from start to end; None where one of them is not known.
      metrics: of result.json; of a run without it, the last values of metrics.jsonl.
      config, manifest: as they were written; {} where they cannot be read.
      problems: what is missing or damaged.
    """

    path: str
    experiment: str
    id: str
    status: str
    started: str | None
    seconds: float | None
    metrics: dict[str, Any]
    config: dict[str, Any]
    manifest: dict[str, Any]
    problems: tuple[str, ...]


def recorded(path: Path) -> Recorded:
    """What the folder at `path` tells."""
    problems: list[str] = []
    manifest = _read(path / "manifest.json", problems)
    config = _read(path / "config.json", problems)
    status = manifest.get("status")
    if status == "finished" or os.path.exists(path / "result.json"):
        metrics = _read(path / "result.json", problems)
    else:
        metrics = {}
    metrics = metrics or _last(path / "metrics.jsonl", problems)
    times = [_time(manifest, name, problems) for name in ("started", "finished")]
    seconds = _seconds(manifest, metrics, times)
    started = None if times[0] is None else str(manifest["started"])
    status = status if isinstance(status, str) else "unknown"
    if status == "running" and _is_free(path / "metrics.jsonl"):
        status = "died"
    at = Path(os.path.abspath(path))
    return Recorded(
        str(path), at.parent.name, at.name, status, started, seconds, metrics, config, manifest, tuple(problems)
    )


def _seconds(manifest: Mapping[str, Any], metrics: Mapping[str, Any], times: list[datetime | None]) -> float | None:
    """How long a run took by a clock that nobody sets; one of an older fdl, by the time of day where that can be."""
    if times[1] is None:
        return None
    known = manifest.get("seconds")
    if isinstance(known, int | float) and not isinstance(known, bool) and known >= 0:
        return float(known)
    seconds = (times[1] - times[0]).total_seconds() if times[0] else None
    if seconds is None or seconds >= 0:
        return seconds
    parts = [metrics.get(name) for name in ("seconds_compile", "seconds_train")]
    return sum(part for part in parts if isinstance(part, int | float)) or None


def _is_free(path: Path) -> bool:
    """Whether no process holds the lock of a run: the one that wrote it is gone, and could not say so."""
    if fcntl is None:
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held, or there are no locks
        return False
    return True


def find(folder: Path) -> list[Path]:
    """The run folders in `folder`, or one level further down, by id, which is by time.

    Raises:
      InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; runs are where fdl run --runs DIR put them (default: runs)")
    return sorted((p for level in ("*", "*/*") for p in folder.glob(level) if _is_run(p)), key=lambda p: p.name)


def resolve(name: str, folder: Path) -> Path:
    """The run that is meant: a path, or the beginning of an id in `folder`, or of the random part of one.

    Raises:
      InputError: none, or more than one.
    """
    if name and Path(name).is_dir():
        if _is_run(Path(name)):
            return Path(name)
        raise InputError(f"{name} is no run folder: expected {', '.join(FILES)} in it")
    runs = find(folder)
    found = [p for p in runs if name and (p.name.startswith(name) or p.name.rpartition("-")[2].startswith(name))]
    if len(found) == 1:
        return found[0]
    if not found:
        ids = [p.name for p in runs]
        raise InputError(f"there is no run {name!r} in {folder}{did_you_mean(name, ids[-8:]) if ids else ''}")
    listed = ", ".join(str(p) for p in found[:4]) + (", ..." if len(found) > 4 else "")
    raise InputError(f"{name!r} is the beginning of {len(found)} runs in {folder}: {listed}; give more of it")


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, with paths as names.

    >>> flat({"a": 1, "b": {"c": 2}})
    {'a': 1, 'b/c': 2}
    """
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves


def _is_run(path: Path) -> bool:
    known = ID.fullmatch(path.name) is not None or any(os.path.exists(path / name) for name in FILES)
    return known and os.path.isdir(path)


def _read(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"no {path.name}")
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
    except (ValueError, RecursionError):
        problems.append(f"{path.name} is damaged")
    else:
        if isinstance(value, dict):
            return value
        if value is not None or path.name != "config.json":  # null: a run from Python without a config
            problems.append(f"{path.name} is damaged")
    return {}


def _last(path: Path, problems: list[str]) -> dict[str, Any]:
    """The last value of each metric, as far as the end of the file has them."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - TAIL)
            file.seek(start)
            lines = file.read().split(b"\n")[1 if start else 0 : -1]
    except FileNotFoundError:
        problems.append(f"no {path.name}")
        return {}
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
        return {}
    metrics: dict[str, Any] = {}
    try:
        for line in lines:
            metrics.update(json.loads(line).items())
    except (ValueError, AttributeError, RecursionError):  # AttributeError: no object
        problems.append(f"{path.name} is damaged")
    if "step" in metrics:
        metrics["steps"] = metrics.pop("step")
    return metrics


def _time(manifest: dict[str, Any], name: str, problems: list[str]) -> datetime | None:
    value = manifest.get(name)
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time
    except (TypeError, ValueError):
        pass
    problems.append(f"{name} is no time")
    return None
