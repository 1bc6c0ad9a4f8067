"""Layers: frozen records that give the functions of `fdl.ops` names, shapes, initialisers and axes."""

from fdl.nn.activations import GatedLinear, PReLU
from fdl.nn.attention import Attention
from fdl.nn.batch_norm import BatchNorm
from fdl.nn.containers import Parallel, Residual, Serial
from fdl.nn.conv import Conv, Conv1d, Conv3d, ConvTranspose
from fdl.nn.dropout import Dropout, DropPath, FeatureDropout
from fdl.nn.embedding import Embedding
from fdl.nn.flatten import Flatten
from fdl.nn.graph import GraphAttentionPool, GraphPool
from fdl.nn.graph_attention import GAT, GATv2
from fdl.nn.graph_conv import GCN, GIN, GraphSAGE
from fdl.nn.linear import Linear
from fdl.nn.lora import LoRA
from fdl.nn.maps import Projection
from fdl.nn.norm import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from fdl.nn.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool, Upsample
from fdl.nn.positions import LearnedPositions, Rotary, SinusoidalPositions
from fdl.nn.recurrence import Recurrence
from fdl.nn.recurrent import GRU, LSTM, RNN
from fdl.nn.recurrent_containers import Bidirectional, StackedRNN
from fdl.nn.remat import Remat
from fdl.nn.reparametrize import SpectralNorm, WeightNorm
from fdl.nn.stack import Ensemble, Stack, stack, unstack

__all__ = [
    "GAT",
    "GCN",
    "GIN",
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "Attention",
    "AvgPool",
    "BatchNorm",
    "Bidirectional",
    "Conv",
    "Conv1d",
    "Conv3d",
    "ConvTranspose",
    "DropPath",
    "Dropout",
    "Embedding",
    "Ensemble",
    "FeatureDropout",
    "Flatten",
    "GATv2",
    "GatedLinear",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GraphAttentionPool",
    "GraphPool",
    "GraphSAGE",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "LoRA",
    "MaxPool",
    "PReLU",
    "Parallel",
    "Projection",
    "RMSNorm",
    "Recurrence",
    "Remat",
    "Residual",
    "Rotary",
    "Serial",
    "SinusoidalPositions",
    "SpectralNorm",
    "Stack",
    "StackedRNN",
    "Upsample",
    "WeightNorm",
    "stack",
    "unstack",
]
