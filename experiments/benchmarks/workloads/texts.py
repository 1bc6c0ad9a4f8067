"""Texts to learn, without a download: a Markov chain in which each token has four followers."""

from __future__ import annotations

from typing import Any

import numpy as np


def markov(sizes: dict[str, Any]) -> dict[str, np.ndarray]:
    """x [examples, length], and y one token later."""
    rng = np.random.default_rng(0)
    followers = rng.integers(0, sizes["vocabulary"], (sizes["vocabulary"], 4))
    text = np.zeros((sizes["examples"], sizes["length"] + 1), np.int32)
    text[:, 0] = rng.integers(0, sizes["vocabulary"], sizes["examples"])
    for t in range(sizes["length"]):
        text[:, t + 1] = followers[text[:, t], rng.integers(0, 4, sizes["examples"])]
    return {"x": text[:, :-1].copy(), "y": text[:, 1:].copy()}
