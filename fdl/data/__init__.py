"""Datasets: where batches come from. `read_...` reads files of other programs into arrays."""

from fdl.data import augment, tokens
from fdl.data.auditing import Audit, audit
from fdl.data.dataset import Arrays, Dataset, Full
from fdl.data.formats.cifar import read_cifar
from fdl.data.formats.graph_sets import read_graph_text, read_tudataset
from fdl.data.formats.idx import read_idx
from fdl.data.formats.image import read_image
from fdl.data.formats.images import read_image_folder
from fdl.data.formats.matlab import read_matlab
from fdl.data.formats.npz import read_npy, read_npz
from fdl.data.formats.pickled import read_pickle
from fdl.data.formats.planetoid import read_planetoid
from fdl.data.formats.table import read_table
from fdl.data.formats.text import pad, read_text
from fdl.data.formats.wav import read_wav
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
    "pad",
    "read_cifar",
    "read_graph_text",
    "read_idx",
    "read_image",
    "read_image_folder",
    "read_matlab",
    "read_npy",
    "read_npz",
    "read_pickle",
    "read_planetoid",
    "read_table",
    "read_text",
    "read_tudataset",
    "read_wav",
    "tokens",
]
