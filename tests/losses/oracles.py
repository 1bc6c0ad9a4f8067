"""The losses again, in float64 numpy and SciPy and straight from their definitions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, log_softmax, logsumexp, rel_entr, softmax
from scipy.stats import norm, poisson


def cross_entropy(z: Any, y: Any, smoothing: float = 0.0, ignore: int | None = None) -> Any:
    ignored = np.zeros(y.shape, bool) if ignore is None else y == ignore
    target = np.eye(z.shape[-1])[np.where(ignored, 0, y)] * (1 - smoothing) + smoothing / z.shape[-1]
    return np.where(ignored, 0.0, soft_cross_entropy(z, target))


def soft_cross_entropy(z: Any, p: Any, smoothing: float = 0.0) -> Any:
    p = (1 - smoothing) * np.asarray(p, np.float64) + smoothing / z.shape[-1]
    return -(p * log_softmax(z, -1)).sum(-1)


def binary_cross_entropy(z: Any, y: Any, positive_weight: Any = 1.0) -> Any:
    return -positive_weight * y * log_expit(z) - (1 - y) * log_expit(-z)


def sigmoid_focal(z: Any, y: Any, gamma: float, alpha: float | None) -> Any:
    right = y * expit(z) + (1 - y) * expit(-z)
    share = 1.0 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
    return share * (1 - right) ** gamma * binary_cross_entropy(z, y)


def softmax_focal(z: Any, y: Any, gamma: float) -> Any:
    p = np.take_along_axis(softmax(z, -1), y[..., None], -1)[..., 0]
    return -((1 - p) ** gamma) * np.log(p)


def huber(p: Any, t: Any, delta: float) -> Any:
    e = np.abs(p - t)
    return np.where(e <= delta, e**2 / 2, delta * (e - delta / 2))


def kl(log_p: Any, t: Any) -> Any:
    return rel_entr(t, np.exp(log_p)).sum(-1)


def gaussian_kl(m: Any, v: Any, n: Any, w: Any) -> Any:
    """E_p[log p - log q] by Gauss-Hermite quadrature, exact for the quadratic integrand."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    x = m[..., None] + np.exp(v / 2)[..., None] * nodes
    log_p = norm.logpdf(x, m[..., None], np.exp(v / 2)[..., None])
    log_q = norm.logpdf(x, n[..., None], np.exp(w / 2)[..., None])
    return ((log_p - log_q) * weights / weights.sum()).sum(-1).sum(-1)


def gaussian_nll(m: Any, v: Any, t: Any) -> Any:
    return -norm.logpdf(t, m, np.exp(v / 2))


def poisson_nll(z: Any, counts: Any) -> Any:
    return -poisson.logpmf(counts, np.exp(z))


def multiclass_hinge(z: Any, y: Any) -> Any:
    rows = z.reshape(-1, z.shape[-1])
    losses = [
        max([0.0, *(1 + r[c] - r[k] for c in range(len(r)) if c != k)]) for r, k in zip(rows, y.ravel(), strict=True)
    ]
    return np.array(losses).reshape(y.shape)


def cosine_distance(a: Any, b: Any) -> Any:
    return 1 - (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def triplet(a: Any, p: Any, n: Any, margin: float, power: int) -> Any:
    near, far = np.linalg.norm(a - p, axis=-1) ** power, np.linalg.norm(a - n, axis=-1) ** power
    return np.maximum(near - far + margin, 0)


def nt_xent(a: Any, b: Any, temperature: float, rows: Any = None) -> Any:
    """One view at a time, over an explicit list of the others."""
    rows = range(len(a)) if rows is None else list(rows)
    views = [(i, x[i] / np.linalg.norm(x[i])) for x in (a, b) for i in rows]
    loss = np.zeros(len(a))
    for j, (i, view) in enumerate(views):
        others = [(k, view @ other / temperature) for n, (k, other) in enumerate(views) if n != j]
        positive = next(s for k, s in others if k == i)
        loss[i] += (logsumexp([s for _, s in others]) - positive) / 2
    return loss


def dice(p: Any, y: Any, smooth: float) -> Any:
    """p, y [B, pixels]."""
    return 1 - (2 * (p * y).sum(1) + smooth) / (p.sum(1) + y.sum(1) + smooth)


def softmax_dice(z: Any, y: Any, smooth: float, ignore: int | None = None, weights: Any = None) -> Any:
    losses = []
    for logits, labels in zip(z.reshape(len(z), -1, z.shape[-1]), y.reshape(len(y), -1), strict=True):
        p, hot = softmax(logits[labels != ignore], -1), np.eye(z.shape[-1])[labels[labels != ignore]]
        losses.append(np.average(dice(p.T, hot.T, smooth), weights=weights))
    return np.array(losses)


def ctc(z: Any, labels: Any, frames: Any, counts: Any, blank: int = 0) -> Any:
    """Every path there is, one by one."""
    losses = []
    for logits, label, T, N in zip(z, labels, frames, counts, strict=True):
        log_p = log_softmax(logits, -1)
        paths = [
            p for p in itertools.product(range(z.shape[-1]), repeat=int(T)) if _spells(p, blank) == tuple(label[:N])
        ]
        losses.append(-np.logaddexp.reduce([sum(log_p[t, c] for t, c in enumerate(path)) for path in paths]))
    return np.array(losses)


def _spells(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(c for c, _ in itertools.groupby(path) if c != blank)


def log_cosh(p: Any, t: Any) -> Any:
    return np.log(np.cosh(p - t))
