"""What else the machine is doing while something is measured."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Watch:
    """The clock, and the work of all other processes and of the host, since it was made."""

    def __init__(self) -> None:
        self.started, self.cpu, self.all = time.perf_counter(), _mine(), _everyone()

    def read(self) -> tuple[float, bool]:
        """Seconds, and whether others took more than a tenth of a core meanwhile (the system counts in ticks of 10 ms).

        What this process and the children it has waited for did does not count.
        """
        seconds, cpu, now = time.perf_counter() - self.started, _mine() - self.cpu, _everyone()
        others = 0.0 if now is None or self.all is None else now - self.all - cpu
        return seconds, others > 0.1 * seconds + 0.03


def _mine() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _everyone() -> float | None:
    """Seconds that all cores together have worked since the start, or were taken by the host; None where unknown."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, *rest = map(int, fields)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
