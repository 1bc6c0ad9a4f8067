"""CIFAR-10 and CIFAR-100, binary version: records of label bytes and three colour planes."""

from __future__ import annotations

from os import PathLike

import numpy as np

from fdl.data.formats.source import Source, open_source

_PIXELS = 3 * 32 * 32
_MOST = 100_000


def read_cifar(
    source: str | PathLike[str] | bytes | Source, num_labels: int = 1, num_classes: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one batch file, plain, gzipped or xz.

    Args:
      source: the file.
      num_labels: label bytes a record: 1 for CIFAR-10, 2 (coarse, fine) for CIFAR-100.
      num_classes: labels are below it (100 for CIFAR-100).

    Returns:
      Images uint8 [n, 32, 32, 3] and labels uint8 [n, num_labels].

    Raises:
      InputError: a size that is no whole number of records; labels that are too large.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images" (2009).

    >>> images, labels = read_cifar(bytes([7]) + bytes(1024) + bytes([9]) * 2048)
    >>> images[0, 0, 0].tolist(), labels.tolist()
    ([0, 9, 9], [[7]])
    """
    source = open_source(source, "a CIFAR batch")
    record = num_labels + _PIXELS
    data = source.read(record * _MOST)
    if not data or (source.kind() and len(data) % record):
        raise source.other(f"a CIFAR batch of records of {record} bytes")
    if len(data) % record:
        raise source.error(f"a CIFAR batch of records of {record} bytes", f"{len(data)} bytes")
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    labels = rows[:, :num_labels].copy()
    if labels.max() >= num_classes:
        number = int(labels.max(1).argmax())
        raise source.error(f"labels below {num_classes}", f"{labels[number].max()} in record {number}")
    images = rows[:, num_labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels
