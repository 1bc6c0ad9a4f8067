"""Bare pure functions on arrays: what a researcher imports into code of their own.

Activations are in `fdl.ops.activations`, most of them JAX's own.
"""

from fdl.ops.attention import dot_product_attention, padding_mask
from fdl.ops.conv import conv, conv_transpose
from fdl.ops.dropout import dropout
from fdl.ops.graph import add_self_loops, degree, disjoint_union, graph_ids, propagate, symmetric_weights
from fdl.ops.linear import linear
from fdl.ops.norm import group_norm, layer_norm, rms_norm
from fdl.ops.pool import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    max_pool,
)
from fdl.ops.recurrent import gru_cell, length_mask, lstm, lstm_cell, rnn_cell, scan_time
from fdl.ops.resize import upsample
from fdl.ops.rotary import rotary, sinusoidal
from fdl.ops.segment import gather, segment_max, segment_mean, segment_softmax, segment_sum

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "add_self_loops",
    "avg_pool",
    "conv",
    "conv_transpose",
    "degree",
    "disjoint_union",
    "dot_product_attention",
    "dropout",
    "gather",
    "global_avg_pool",
    "global_max_pool",
    "graph_ids",
    "group_norm",
    "gru_cell",
    "layer_norm",
    "length_mask",
    "linear",
    "lstm",
    "lstm_cell",
    "max_pool",
    "padding_mask",
    "propagate",
    "rms_norm",
    "rnn_cell",
    "rotary",
    "scan_time",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "sinusoidal",
    "symmetric_weights",
    "upsample",
]
