"""Bare pure functions on arrays: what a researcher imports into code of their own."""

from fdl.ops.dropout import dropout
from fdl.ops.norm import layer_norm

__all__ = ["dropout", "layer_norm"]
