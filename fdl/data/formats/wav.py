"""WAV: sampled sound in a RIFF file."""

from __future__ import annotations

from os import PathLike
from typing import NamedTuple

import numpy as np

from fdl.data.formats.source import Source, open_source

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


class Sound(NamedTuple):
    samples: np.ndarray
    """float32 [t, channels]: integers divided by 2^(bits - 1), so in -1..1."""
    rate: int
    """Samples a second."""


def read_wav(source: str | PathLike[str] | bytes | Source) -> Sound:
    """The sound of a WAV file: integers of 8 (unsigned), 16, 24 or 32 bits, or floats of 32 or 64.

    Raises:
      InputError: another format, another encoding (mu-law, ADPCM), or a file that stops before its sound does.

    torchaudio: `load(path, channels_first=False)`.
    """
    source = open_source(source, "a WAV file")
    data = source.read()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise source.error("a WAV file (RIFF, WAVE)", f"one that starts with {data[:12]!r}")
    chunks = _chunks(source, data)
    layout = np.frombuffer(chunks["fmt "][:16].ljust(16, b"\0"), "<u2")
    kind, channels, bits = int(layout[0]), int(layout[1]), int(layout[7])
    if kind == _EXTENSIBLE:
        kind = int.from_bytes(chunks["fmt "][24:26], "little")
    rate = int.from_bytes(chunks["fmt "][4:8], "little")
    if not channels or not rate or (kind, bits) not in _DECODERS:
        expected = "sound as integers of 8, 16, 24, 32 bits or floats of 32, 64, with channels and a rate"
        raise source.error(expected, f"format {kind} of {bits} bits, {channels} channels, rate {rate}")
    sound = chunks["data"]
    if len(sound) % (channels * bits // 8):
        raise source.error(f"a whole number of samples of {channels} x {bits} bits", f"{len(sound)} bytes")
    samples = _DECODERS[kind, bits](sound).reshape(-1, channels)
    if kind == _FLOAT and not np.isfinite(samples).all():
        raise source.error("finite samples", "NaN or infinity")
    return Sound(samples, rate)


def _chunks(source: Source, data: bytes) -> dict[str, bytes]:
    """The first chunk of every name; each is a name, a 32-bit size and as many bytes, padded to an even number."""
    chunks: dict[str, bytes] = {}
    place = 12
    while place + 8 <= len(data) and not {"fmt ", "data"} <= chunks.keys():
        name = data[place : place + 4].decode("latin1")
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        if size > len(data) - place - 8:
            raise source.error(f"a chunk {name!r} of {size} bytes", f"{len(data) - place - 8} bytes to the end")
        chunks.setdefault(name, data[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    if not {"fmt ", "data"} <= chunks.keys():
        raise source.error("chunks 'fmt ' and 'data'", f"{', '.join(map(repr, list(chunks)[:8])) or 'none'}")
    return chunks


def _bytes_24(data: bytes) -> np.ndarray:
    """Three bytes a sample, put in the upper three of four."""
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return _integers(wide.tobytes(), "<i4")


def _integers(data: bytes, dtype: str) -> np.ndarray:
    values = np.frombuffer(data, dtype)
    return (values / np.float64(2 ** (8 * values.itemsize - 1))).astype(np.float32)


def _floats(data: bytes, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # found afterwards
        return np.frombuffer(data, dtype).astype(np.float32)


_DECODERS = {
    (_PCM, 8): lambda data: (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128,
    (_PCM, 16): lambda data: _integers(data, "<i2"),
    (_PCM, 24): _bytes_24,
    (_PCM, 32): lambda data: _integers(data, "<i4"),
    (_FLOAT, 32): lambda data: _floats(data, "<f4"),
    (_FLOAT, 64): lambda data: _floats(data, "<f8"),
}
