"""Merging pairs of bytes into tokens, and text as bytes and back."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


def merged(parts: Sequence[bytes], ranks: Mapping[bytes, float]) -> list[bytes]:
    """The parts, of which the pair of lowest rank is joined until none has a rank; of equal ranks the first.

    A heap of pairs, so that n parts take n log n.

    >>> merged([b"a", b"b", b"c", b"b"], {b"ab": 1, b"bc": 0, b"abc": 2})
    [b'abc', b'b']
    """
    piece, size = b"".join(parts), len(parts)
    at = [0]  # where in the piece each part starts
    for part in parts:
        at.append(at[-1] + len(part))
    end = [*range(1, size + 1), 0]  # the part that follows the one that starts here; 0 inside of a part
    before = list(range(-1, size))
    heap: list[tuple[float, int, int]] = []

    def propose(left: int, right: int) -> None:
        rank = ranks.get(piece[at[left] : at[right]])
        if rank is not None:
            heapq.heappush(heap, (rank, left, right))

    for i in range(size - 1):
        propose(i, i + 2)
    while heap:
        _, start, stop = heapq.heappop(heap)
        middle = end[start]
        if not middle or end[middle] != stop:
            continue  # one of the two parts has been merged with another
        end[start], end[middle], before[stop] = stop, 0, start
        if before[start] >= 0:
            propose(before[start], stop)
        if end[stop]:
            propose(start, end[stop])
    joined, start = [], 0
    while start < size:
        joined.append(piece[at[start] : at[end[start]]])
        start = end[start]
    return joined


def to_utf8(text: str) -> bytes:
    """A text in UTF-8; half a surrogate pair is a str too."""
    return text.encode("utf-8", "surrogatepass")


def from_utf8(data: bytes) -> str:
    """The text of bytes; U+FFFD for bytes that are not UTF-8."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")
