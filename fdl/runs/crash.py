"""crash.json: what is known of a run at the moment it ended as it should not have."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fdl.runs.files import plain, write_json
from fdl.runs.manifest import now

CRASH = "crash.json"


def write_crash(folder: Path, error: BaseException, **known: Any) -> None:
    """Writes crash.json; failing to write it must not hide the error, and raises nothing."""
    with suppress(Exception):
        about = {
            "time": now(),
            "error": type(error).__name__,
            "message": str(error),
            "notes": getattr(error, "__notes__", []),
            **known,
            "traceback": "".join(traceback.format_exception(error)).splitlines(),
        }
        write_json(folder / CRASH, plain(about))


class Latest:
    """A watcher of what was measured last."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.metrics: dict[str, Any] = {}

    def __call__(self, steps: Any, columns: Mapping[str, Any]) -> None:
        if len(steps):
            self.step = int(steps[-1])
            self.metrics |= {name: values[..., -1] for name, values in columns.items()}
