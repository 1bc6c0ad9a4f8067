"""The table: every layer of fdl is (at least) one row, and every law of this folder holds for every row.

To add a layer, add one row: the record, an input whose leading axis is 4, and `None`; the golden law then prints the
number to commit. Everything else is derived: whether a layer has state or parameters from its specs, whether it is
random from its own demand for a key, a wrong input from the right one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pytest

from fdl import initializers, nn
from fdl.core import Layer
from fdl.records import flat
from fdl.surgery import edit
from tests.laws import oracles as o


@dataclass(frozen=True, eq=False)
class Row:
    """One layer with an example of its use.

    Args:
      layer: the record.
      x: its input, numpy arrays (any pytree) whose leading axis is the batch, of 4.
      golden: sum of |y| where y is the evaluation of `init(layer, key(0))` on x, to six digits.
      oracle: `(params, x) -> y` in numpy: the same evaluation by an independent route.
      keywords: further arguments of the layer's call, arrays.
      wrong: an input that must be refused; by default x with one feature more.
      any_shape: there is no wrong input.
      batched: the leading axis holds independent examples (that of a graph does not).
      idle: names of parameters that change nothing, and so have no gradient.
      stops_gradient: training keeps part of the gradient back on purpose, so finite differences cannot agree.
    """

    layer: Layer
    x: Any
    golden: float | None
    oracle: Callable[[Any, Any], Any] | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    wrong: Any = None
    any_shape: bool = False
    batched: bool = True
    idle: tuple[str, ...] = ()
    stops_gradient: bool = False

    @property
    def id(self) -> str:
        return "-".join([flat(repr(self.layer)), *map(str, jax.tree.leaves(self.x)[0].shape), *self.keywords])

    @property
    def wrong_x(self) -> Any:
        wider = lambda x: np.concatenate([x, x[..., :1]], -1)  # noqa: E731
        return jax.tree.map(wider, self.x) if self.wrong is None else self.wrong


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def ints(*shape: int, below: int) -> np.ndarray:
    return np.random.default_rng(0).integers(below, size=shape).astype(np.int32)


FEATURES, SEQUENCE, IMAGE = floats(4, 3), floats(4, 5, 3), floats(4, 2, 2, 3)  # few shapes: each compiles anew
PICTURE, WIDE = floats(4, 4, 4, 3), floats(4, 5, 4)
CONTEXT = {"context": SEQUENCE}
MASK = {"mask": np.arange(5) < np.array([5, 3, 2, 4])[:, None]}
LENGTHS = {"lengths": np.array([5, 3, 1, 2], np.int32)}
EDGES = {"edges": np.array([[0, 1, 2, 3, 1, 2, 0], [1, 2, 3, 0, 3, 0, 2]], np.int32)}
LORA = functools.partial(nn.LoRA, rank=2, alpha=4.0)
SIZES = {"sizes": np.array([3, 1], np.int32)}

# fmt: off
LINEAR = [
    Row(nn.Linear(3, 2), FEATURES, 1.75897, o.affine),
    Row(nn.Linear(3, 2, use_bias=False, kernel_init=initializers.Normal(0.5)), SEQUENCE, 9.43445, o.affine),
    Row(nn.WeightNorm(nn.Linear(3, 2)), FEATURES, 3.34976, o.weight_norm),
    Row(nn.SpectralNorm(nn.Linear(3, 2)), FEATURES, 3.95754, stops_gradient=True),
    Row(nn.GatedLinear(3, 2), FEATURES, 0.320951, o.swiglu),
    Row(nn.PReLU(3), FEATURES, 4.34011, o.prelu),
    Row(nn.PReLU(), SEQUENCE, 29.1888, o.prelu, any_shape=True),
    Row(nn.LoRA(nn.Linear(3, 2), 2, 4.0), FEATURES, 3.79707, lambda p, x: o.affine(p["linear"], x)),  # b starts at 0
    Row(nn.Projection((5, 3), (2, 2)), SEQUENCE, 7.87165, lambda p, x: np.tensordot(x, p["kernel"], 2) + p["bias"]),
    Row(nn.LoRA(nn.Projection((3,), (2, 2)), 2, 4.0), FEATURES, 6.95205),
    Row(edit(nn.GatedLinear(3, 2), "gate", LORA), FEATURES, 0.399266),
    Row(nn.Flatten(), IMAGE, 33.9209, lambda p, x: x.reshape(4, 12), any_shape=True),
]

CONVOLUTION = [
    Row(nn.Conv(3, 2, 3), PICTURE, 72.0792, o.conv((1, 1), (1, 1))),
    Row(nn.Conv(3, 6, 2, 2, "VALID", groups=3), PICTURE, 66.2958, o.conv((0, 0), (0, 0), stride=2, groups=3)),
    Row(nn.Conv(3, 2, 2, padding=1, dilation=2), PICTURE, 58.6855, o.conv((1, 1), (1, 1), dilation=2)),
    Row(nn.Conv1d(3, 2, 3, padding="CAUSAL"), SEQUENCE, 22.5066, o.conv((2, 0))),
    Row(nn.Conv3d(3, 2, 2), floats(4, 2, 3, 2, 3), 33.3195, o.conv((0, 1), (0, 1), (0, 1))),
    Row(nn.ConvTranspose(3, 2, 2, 2), PICTURE, 155.586, o.stamped_twice_as_large),
    Row(nn.WeightNorm(nn.Conv(3, 2, (2, 1))), PICTURE, 92.1267),
    Row(nn.MaxPool(2), PICTURE, 47.338, o.blocks(np.max), wrong=FEATURES),
    Row(nn.AvgPool(3, 2, "SAME"), PICTURE, 15.6582, wrong=FEATURES),
    Row(nn.AdaptiveMaxPool(2), PICTURE, 47.338, o.blocks(np.max), wrong=FEATURES),
    Row(nn.AdaptiveAvgPool((2, 1)), PICTURE, 6.67817, wrong=FEATURES),
    Row(nn.GlobalMaxPool(), PICTURE, 19.2556, lambda p, x: x.max((1, 2)), wrong=FEATURES),
    Row(nn.GlobalAvgPool(), PICTURE, 2.59439, lambda p, x: x.mean((1, 2)), wrong=FEATURES),
    Row(nn.Upsample(2), PICTURE, 600.795, lambda p, x: x.repeat(2, 1).repeat(2, 2), wrong=FEATURES),
    Row(nn.Upsample(2, "bilinear"), PICTURE, 419.324, wrong=FEATURES),
]

TOKENS = [
    Row(nn.Embedding(7, 3), ints(4, 5, below=7), 0.906178, lambda p, x: p["embedding"][x], wrong=floats(4, 5)),
    Row(nn.LearnedPositions(6, 3), SEQUENCE, 44.1054, lambda p, x: x + p["embedding"][:5]),
    Row(nn.SinusoidalPositions(4), floats(4, 5, 4), 83.7676, o.sinusoidal),
]

NORMALIZATION = [
    Row(nn.LayerNorm(3), FEATURES, 10.6413, o.layer_norm),
    Row(nn.RMSNorm(3), FEATURES, 10.2666, o.rms_norm),
    Row(nn.GroupNorm(1, 3), IMAGE, 39.3592, o.group_norm(1)),
    Row(nn.GroupNorm(2, 4), floats(4, 2, 2, 4), 53.2025, o.group_norm(2)),
    Row(nn.InstanceNorm(3), IMAGE, 41.9429, o.group_norm(3)),
    Row(nn.BatchNorm(3), FEATURES, 6.78523, o.fresh_batch_norm),
    Row(nn.BatchNorm(3, momentum=0.5), IMAGE, 33.9207, o.fresh_batch_norm),
    Row(nn.BatchNorm(3), SEQUENCE, 43.9192, o.fresh_batch_norm, keywords={"mask": SEQUENCE[..., 0] > -0.5}),
]

DROPOUT = [
    Row(nn.Dropout(0.5), FEATURES, 6.78526, o.identity, any_shape=True),
    Row(nn.FeatureDropout(0.5), IMAGE, 33.9209, o.identity, any_shape=True),
    Row(nn.DropPath(0.5), IMAGE, 33.9209, o.identity, any_shape=True),
]

IDLE = ("key/bias",)  # it adds the same to all scores of a query, which softmax takes away; peers have it too
ATTENTION = [
    Row(nn.Attention(4, 2), WIDE, 18.4875, o.attention(), idle=IDLE),
    Row(edit(nn.Attention(4, 2, use_bias=False), "out", LORA), WIDE, 19.5634),
    Row(nn.Attention(4, 2, causal=True), WIDE, 19.1699, o.attention(np.tri(5, dtype=bool)), idle=IDLE),
    Row(nn.Attention(4, 2, num_kv_heads=1, rotary=nn.Rotary(), use_bias=False), WIDE, 21.7885, keywords=MASK),
    Row(nn.Attention(4, 2, context_features=3, dropout_rate=0.5), WIDE, 17.1937, keywords=CONTEXT, idle=IDLE),
]

RECURRENT = [
    Row(nn.RNN(3, 2), SEQUENCE, 25.0653, o.rnn),
    Row(nn.LSTM(3, 2), SEQUENCE, 5.8918, o.lstm),
    Row(nn.LSTM(3, 2), SEQUENCE, 2.87104, keywords=LENGTHS),
    Row(nn.GRU(3, 2), SEQUENCE, 6.52738, keywords=LENGTHS),
    Row(nn.Bidirectional(nn.GRU(3, 2), nn.GRU(3, 2)), SEQUENCE, 11.4059, keywords=LENGTHS),
    Row(nn.StackedRNN(nn.RNN(3, 2), nn.Dropout(0.5), head=nn.Linear(2, 1)), SEQUENCE, 4.02245),
]

GRAPH = [
    Row(nn.GCN(3, 2), FEATURES, 0.941814, o.gcn(EDGES["edges"]), keywords=EDGES, batched=False),
    Row(nn.GraphSAGE(3, 2, normalize=True), FEATURES, 5.30161, keywords=EDGES, batched=False),
    Row(nn.GIN(3, 2, train_eps=True), FEATURES, 0.585297, keywords=EDGES, batched=False),
    Row(nn.GAT(3, 2, num_heads=2, dropout=0.5), FEATURES, 1.04359, keywords=EDGES, batched=False),
    Row(nn.GATv2(3, 4, num_heads=2, concat=False), FEATURES, 3.63491, keywords=EDGES, batched=False),
    Row(nn.GraphPool("max"), FEATURES, 4.82153, o.first_three_max, keywords=SIZES, batched=False, any_shape=True),
    Row(nn.GraphAttentionPool(3), FEATURES, 2.6341, keywords=SIZES, batched=False),
]

CONTAINERS = [
    Row(
        nn.Serial(
            nn.Linear(3, 4, use_bias=False), nn.BatchNorm(4), jax.nn.relu, nn.Dropout(0.25), head=nn.Linear(4, 2)
        ),
        FEATURES, 3.58217,
        lambda p, x: o.affine(p["head"], o.relu(o.fresh_batch_norm(p["1"], o.affine(p["0"], x)))),
    ),
    Row(
        nn.Residual(nn.Serial(norm=nn.LayerNorm(3), body=nn.Linear(3, 2)), nn.Linear(3, 2, use_bias=False)),
        FEATURES, 6.05175,
        lambda p, x: o.affine(p["block"]["body"], o.layer_norm(p["block"]["norm"], x)) + o.affine(p["shortcut"], x),
    ),
    Row(
        nn.Residual(nn.Serial(nn.BatchNorm(3), nn.DropPath(0.5))), FEATURES, 13.5705,
        lambda p, x: x + o.fresh_batch_norm(p["block"]["0"], x),
    ),
    Row(
        nn.Parallel(nn.Linear(3, 2), skip=nn.Linear(3, 2, use_bias=False)), FEATURES, 7.40114,
        lambda p, x: o.affine(p["0"], x) + o.affine(p["skip"], x),
    ),
    Row(
        nn.Parallel(nn.Linear(3, 2), nn.LayerNorm(3), combine="concat"), FEATURES, 15.003,
        lambda p, x: np.concatenate([o.affine(p["0"], x), o.layer_norm(p["1"], x)], -1),
    ),
    Row(
        nn.Stack(nn.Serial(nn.Linear(3, 3), jax.nn.tanh), 2), FEATURES, 7.28652,
        lambda p, x: np.tanh(o.affine(o.copy(p["0"], 1), np.tanh(o.affine(o.copy(p["0"], 0), x)))),
    ),
    Row(
        nn.Stack(nn.Serial(nn.BatchNorm(3), nn.Dropout(0.5)), 2, remat=True), FEATURES, 6.78519,
        lambda p, x: o.fresh_batch_norm(o.copy(p["0"], 1), o.fresh_batch_norm(o.copy(p["0"], 0), x)),
    ),
    Row(
        nn.Remat(nn.Serial(nn.Linear(3, 3, use_bias=False), nn.BatchNorm(3), nn.Dropout(0.5))), FEATURES, 7.79256,
        lambda p, x: o.fresh_batch_norm(p["1"], o.affine(p["0"], x)),
    ),
    Row(
        nn.Ensemble(nn.Serial(nn.Linear(3, 2), nn.Dropout(0.5)), 2), FEATURES, 11.4645,
        lambda p, x: np.stack([o.affine(o.copy(p["0"], i), x) for i in (0, 1)]),
    ),
]
# fmt: on

ROWS: list[Row] = [
    *LINEAR,
    *CONVOLUTION,
    *TOKENS,
    *NORMALIZATION,
    *DROPOUT,
    *ATTENTION,
    *RECURRENT,
    *GRAPH,
    *CONTAINERS,
]


def over(rows: Iterable[Row]) -> pytest.MarkDecorator:
    """Runs a law for each of the rows, one row after the other: what its laws share is compiled once."""
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in rows], scope="module")


every_row = over(ROWS)
