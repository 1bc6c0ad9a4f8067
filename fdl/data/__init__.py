"""Datasets: where batches come from."""

from fdl.data.dataset import Arrays, Dataset, Full
from fdl.data.load import load

__all__ = ["Arrays", "Dataset", "Full", "load"]
