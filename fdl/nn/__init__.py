"""Layers: frozen records that give the functions of `fdl.ops` names, shapes, initialisers and axes."""

from fdl.nn.activations import GatedLinear, PReLU
from fdl.nn.batch_norm import BatchNorm
from fdl.nn.containers import Parallel, Residual, Serial
from fdl.nn.dropout import Dropout, DropPath, FeatureDropout
from fdl.nn.flatten import Flatten
from fdl.nn.linear import Linear
from fdl.nn.norm import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from fdl.nn.reparametrize import SpectralNorm, WeightNorm
from fdl.nn.stack import Ensemble, Stack, stack, unstack

__all__ = [
    "BatchNorm", "DropPath", "Dropout", "Ensemble", "FeatureDropout", "Flatten", "GatedLinear", "GroupNorm",
    "InstanceNorm", "LayerNorm", "Linear", "PReLU", "Parallel", "RMSNorm", "Residual", "Serial", "SpectralNorm",
    "Stack", "WeightNorm", "stack", "unstack",
]  # fmt: skip
