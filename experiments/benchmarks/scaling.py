"""Sizes of W2's dense network, one growing at a time, for the curves of time against size."""

from __future__ import annotations

from typing import Any

STEPS = {"steps": 100, "examples": 12_800}


def _curve(axis: str, *sizes: int, **others: Any) -> list[dict[str, Any]]:
    return [{**STEPS, **others, axis: size} for size in sizes]


CURVES = {
    "batch": _curve("batch", 8, 32, 128, 512, steps=25),
    "width": _curve("width", 64, 256, 1024, 2048, steps=25),
    "depth": _curve("depth", 1, 4, 16, 64, width=128, steps=50),
    "steps": _curve("steps", 10, 100, 1000, 10_000, width=32),
}
