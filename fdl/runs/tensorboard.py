"""The metrics of a run as TensorBoard events, for those who watch runs there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from fdl.errors import InputError


class Events:
    """A watcher that writes into `folder` what metrics.jsonl holds, as scalars of the same names.

    Raises:
      InputError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import tensorboardX
        except ImportError:
            raise InputError("--tensorboard needs tensorboardX: pip install 'fdl[tensorboard]'") from None
        self._module, self._folder, self._writer = tensorboardX, folder, None

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def __call__(self, steps: Any, columns: Mapping[str, Any]) -> None:
        if self._writer is None:  # only now: a run takes no folder that has files in it
            self._writer = self._module.SummaryWriter(str(self._folder))
        now = time.time()
        for name, values in columns.items():
            for step, value in zip(steps.tolist(), values.tolist(), strict=True):
                self._writer.add_scalar(name, value, step, walltime=now)
        self._writer.flush()
