"""Protocol buffers without their schema: the fields of a message by number."""

from __future__ import annotations

from typing import Any


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where reading goes on."""
    value = 0
    for k in range(10):
        value |= (data[at + k] & 0x7F) << 7 * k
        if not data[at + k] & 0x80:
            return value, at + k + 1
    raise ValueError("a number of more than ten bytes")


def message(data: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer by number: varints and fixed sizes as int, the rest as bytes."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"a field of wire type {kind}")
        if at > len(data):
            raise ValueError("a field that is cut off")
        fields.setdefault(tag >> 3, []).append(value)
    return fields
