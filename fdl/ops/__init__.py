"""Bare pure functions on arrays: what a researcher imports into code of their own.

Activations are in `fdl.ops.activations`, most of them JAX's own.
"""

from fdl.ops.attention import dot_product_attention, padding_mask
from fdl.ops.conv import conv, conv_transpose
from fdl.ops.dropout import dropout
from fdl.ops.graph import add_self_loops, degree, propagate, symmetric_weights
from fdl.ops.norm import group_norm, layer_norm, rms_norm
from fdl.ops.pool import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    max_pool,
)
from fdl.ops.recurrent import gru_cell, lstm_cell, rnn_cell
from fdl.ops.resize import upsample
from fdl.ops.rotary import rotary, sinusoidal
from fdl.ops.segment import segment_max, segment_mean, segment_softmax, segment_sum

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "add_self_loops",
    "avg_pool",
    "conv",
    "conv_transpose",
    "degree",
    "dot_product_attention",
    "dropout",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "gru_cell",
    "layer_norm",
    "lstm_cell",
    "max_pool",
    "padding_mask",
    "propagate",
    "rms_norm",
    "rnn_cell",
    "rotary",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "sinusoidal",
    "symmetric_weights",
    "upsample",
]
