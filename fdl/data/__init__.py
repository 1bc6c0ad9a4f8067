"""Datasets: where batches come from."""

from fdl.data import augment, tokens
from fdl.data.auditing import Audit, audit
from fdl.data.dataset import Arrays, Dataset, Full
from fdl.data.load import load
from fdl.data.stream import Stream, from_indexable
from fdl.data.windows import Windows

__all__ = [
    "Arrays",
    "Audit",
    "Dataset",
    "Full",
    "Stream",
    "Windows",
    "audit",
    "augment",
    "from_indexable",
    "load",
    "tokens",
]
