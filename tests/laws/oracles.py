"""Layers again, in numpy: what a row of the table may be compared with. All work in the dtype of what they get."""

from __future__ import annotations

from typing import Any

import numpy as np


def affine(p: Any, x: Any) -> Any:
    return x @ p["kernel"] + p.get("bias", 0.0)


def relu(x: Any) -> Any:
    return np.maximum(x, 0.0)


def silu(x: Any) -> Any:
    return x / (1.0 + np.exp(-x))


def standardized(x: Any, axis: Any, eps: float = 1e-5) -> Any:
    centred = x - x.mean(axis, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis, keepdims=True) + eps)


def layer_norm(p: Any, x: Any) -> Any:
    return standardized(x, -1) * p["scale"] + p["bias"]


def rms_norm(p: Any, x: Any) -> Any:
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * p["scale"]


def group_norm(num_groups: int) -> Any:
    def oracle(p: Any, x: Any) -> Any:
        groups = np.split(x, num_groups, axis=-1)
        axes = tuple(range(1, x.ndim))
        return np.concatenate([standardized(group, axes) for group in groups], -1) * p["scale"] + p["bias"]

    return oracle


def fresh_batch_norm(p: Any, x: Any) -> Any:
    """With the initial running statistics, mean 0 and variance 1."""
    return x / np.sqrt(1.0 + 1e-5) * p["scale"] + p["bias"]


def prelu(p: Any, x: Any) -> Any:
    return np.where(x > 0, x, p["slope"] * x)


def swiglu(p: Any, x: Any) -> Any:
    return affine(p["value"], x) * silu(affine(p["gate"], x))


def weight_norm(p: Any, x: Any) -> Any:
    v = p["layer"]["kernel"]
    return affine(p["layer"] | {"kernel": p["scale"] * v / np.linalg.norm(v, axis=0)}, x)


def identity(p: Any, x: Any) -> Any:
    return x


def copy(p: Any, i: int) -> Any:
    """Copy i of stacked params."""
    return {name: copy(leaf, i) if isinstance(leaf, dict) else leaf[i] for name, leaf in p.items()}


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def rnn(p: Any, x: Any) -> Any:
    h = [np.zeros((x.shape[0], p["recurrent"]["kernel"].shape[0]))]
    for t in range(x.shape[1]):
        h.append(np.tanh(affine(p["input"], x[:, t]) + h[-1] @ p["recurrent"]["kernel"]))
    return np.stack(h[1:], 1)


def lstm(p: Any, x: Any) -> Any:
    """Gates in the order of Hochreiter & Schmidhuber's block as PyTorch stores it: input, forget, cell, output."""
    h = c = np.zeros((x.shape[0], p["recurrent"]["kernel"].shape[0]))
    ys = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(affine(p["input"], x[:, t]) + h @ p["recurrent"]["kernel"], 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        ys.append(h)
    return np.stack(ys, 1)


def adjacency(edges: Any, nodes: int) -> Any:
    a = np.zeros((nodes, nodes))
    a[edges[1], edges[0]] = 1.0
    return a


def gcn(edges: Any) -> Any:
    def oracle(p: Any, x: Any) -> Any:
        a = adjacency(edges, len(x)) + np.eye(len(x))
        d = np.diag(a.sum(1) ** -0.5)
        return affine(p, d @ a @ d @ x)

    return oracle


def first_three_max(p: Any, x: Any) -> Any:
    """Of two graphs, of three nodes and of one."""
    return np.stack([x[:3].max(0), x[3]])


def sinusoidal(p: Any, x: Any) -> Any:
    """Vaswani et al., 2017, section 3.5: sin and cos of t / 10000^(2i / D) in turn."""
    t, i = np.arange(x.shape[1])[:, None], np.arange(x.shape[2] // 2)
    angle = t / 10000.0 ** (2 * i / x.shape[2])
    return x + np.stack([np.sin(angle), np.cos(angle)], -1).reshape(x.shape[1:])


def conv(*pads: tuple[int, int], stride: int = 1, dilation: int = 1, groups: int = 1) -> Any:
    """Cross-correlation as its definition: one product of matrices for each offset of the kernel."""

    def oracle(p: Any, x: Any) -> Any:
        sizes = p["kernel"].shape[:-2]
        x = np.pad(x, [(0, 0), *pads, (0, 0)])
        reach = [(n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(x.shape[1:-1], sizes, strict=True)]
        inputs = np.split(x, groups, axis=-1)
        kernels = np.split(p["kernel"], groups, axis=-1)
        ys = []
        for part, kernel in zip(inputs, kernels, strict=True):
            y = np.zeros((len(x), *reach, kernel.shape[-1]))
            for offset in np.ndindex(*sizes):
                at = [
                    slice(dilation * o, dilation * o + stride * n, stride) for o, n in zip(offset, reach, strict=True)
                ]
                y += part[(slice(None), *at)] @ kernel[offset]
            ys.append(y)
        return np.concatenate(ys, -1) + p.get("bias", 0.0)

    return oracle


def stamped_twice_as_large(p: Any, x: Any) -> Any:
    """A transposed convolution, kernel 2 and stride 2: every pixel becomes a block of 2 x 2."""
    blocks = np.einsum("bhwc,klco->bhkwlo", x, p["kernel"])
    b, h, _, w, _, o = blocks.shape
    return blocks.reshape(b, 2 * h, 2 * w, o) + p["bias"]


def blocks(reduce: Any) -> Any:
    """Pooling of an image in blocks of 2 x 2."""

    def oracle(p: Any, x: Any) -> Any:
        b, h, w, c = x.shape
        return reduce(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))

    return oracle


def attention(visible: Any = True) -> Any:
    """softmax(q k^T / sqrt(K)) v of every head, written out."""

    def oracle(p: Any, x: Any) -> Any:
        q, k, v = (np.einsum("btd,dhk->bhtk", x, p[n]["kernel"]) + heads(p[n]) for n in ("query", "key", "value"))
        scores = np.where(visible, q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]), -np.inf)
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        return np.einsum("bhtk,hkd->btd", weights @ v, p["out"]["kernel"]) + p["out"].get("bias", 0.0)

    def heads(p: Any) -> Any:
        return p["bias"][:, None] if "bias" in p else 0.0

    return oracle
