"""The batch split over four devices gives what one device gives, in training where that differs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.laws.table import ROWS, Row, over


@pytest.fixture(scope="module")
def differences() -> dict[str, str | None]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.laws.sharded"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@over(row for row in ROWS if row.batched)
def test_four_devices_are_one(row: Row, differences: dict[str, str | None]):
    assert differences[row.id] is None
