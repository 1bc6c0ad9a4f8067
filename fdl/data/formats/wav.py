"""WAV: sampled sound in a RIFF file. SciPy decodes the samples.

The chunks are found here: SciPy takes the sizes in the header at their word, so that a streamed file is empty to it,
and one that is cut off is shorter than it says.
"""

from __future__ import annotations

import io
import struct
import warnings
from os import PathLike
from typing import NamedTuple

import numpy as np

from fdl.data.formats.source import Source, open_source
from fdl.errors import InputError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_ORDERS = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}
_UNKNOWN = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000)
"""Sizes that programs write into a header which they cannot come back to: ffmpeg, arecord and sox into a pipe."""


class Sound(NamedTuple):
    samples: np.ndarray
    """float32 [t, channels]: integers divided by 2^(bits - 1), so in -1..1."""
    rate: int
    """Samples a second."""


def read_wav(source: str | PathLike[str] | bytes | Source) -> Sound:
    """The sound of a WAV file (RIFF, RIFX, RF64): integers of up to 64 bits, or floats of 32 or 64.

    A streamed file, whose header says no size, goes on to the end of the file.

    Args:
      source: the file, in whose path `~` is the home folder; or its bytes.

    Raises:
      InputError: another format, another encoding (mu-law, ADPCM), or a file that stops before its sound does.

    torchaudio: `load(path, channels_first=False)`. SciPy: `io.wavfile.read`, which does not scale integers.

    >>> import io
    >>> import scipy.io.wavfile
    >>> file = io.BytesIO()
    >>> scipy.io.wavfile.write(file, 8000, np.array([0, -32768, 16384], np.int16))
    >>> read_wav(file.getvalue()).samples[:, 0].tolist()
    [0.0, -1.0, 0.5]
    """
    source = open_source(source, "a WAV file")
    data = source.read()
    order = _ORDERS.get(data[:4])
    if order is None or data[8:12] != b"WAVE":
        raise source.other("a WAV file (RIFF, WAVE)")
    layout, sound = _chunks(source, data, order)
    kind, channels, rate, _, block, bits = struct.unpack(order + "HHIIHH", layout[:16].ljust(16, b"\0"))
    if kind == _EXTENSIBLE:
        kind = int.from_bytes(layout[24:26], "little" if order == "<" else "big")
    if not channels or not rate or not block or block % channels or kind not in (_PCM, _FLOAT):
        expected = "sound as integers of up to 64 bits or floats of 32, 64, with channels and a rate"
        raise source.error(expected, f"format {kind} of {bits} bits, {channels} channels, rate {rate}")
    if len(sound) % block:
        raise source.error(f"a whole number of samples of {block} bytes", f"{len(sound)} bytes")
    samples = _decoded(source, order, layout, sound).reshape(-1, channels)
    if not np.isfinite(samples).all():
        raise source.error("finite samples", "NaN or infinity")
    return Sound(samples, rate)


def _chunks(source: Source, data: bytes, order: str) -> tuple[bytes, bytes]:
    """The first chunks "fmt " and "data"; each is a name, a 32-bit size and as many bytes, padded to an even number."""
    chunks: dict[str, bytes] = {}
    place = 12
    streamed = struct.unpack(order + "I", data[4:8])[0] + 8 != len(data)
    while place + 8 <= len(data) and not {"fmt ", "data"} <= chunks.keys():
        name = data[place : place + 4].decode("latin1")
        size = struct.unpack(order + "I", data[place + 4 : place + 8])[0]
        place += 8
        if name == "data" and size == 0xFFFFFFFF and len(chunks.get("ds64", b"")) >= 16:  # RF64: sizes of 64 bits
            size = struct.unpack("<Q", chunks["ds64"][8:16])[0]
        elif name == "data" and size in _UNKNOWN and streamed:
            size = len(data) - place
            size -= size % max(1, int.from_bytes(chunks.get("fmt ", b"")[12:14], "little" if order == "<" else "big"))
        if size > len(data) - place:
            raise source.error(f"a chunk {name!r} of {size} bytes", f"{len(data) - place} bytes to the end")
        chunks.setdefault(name, data[place : place + size])
        place += size
        place += size % 2 and data[place : place + 1] == b"\0"  # some programs forget the byte that pads
    if not {"fmt ", "data"} <= chunks.keys():
        raise source.error("chunks 'fmt ' and 'data'", f"{', '.join(map(repr, list(chunks)[:8])) or 'none'}")
    return chunks["fmt "], chunks["data"]


def _decoded(source: Source, order: str, layout: bytes, sound: bytes) -> np.ndarray:
    """The samples as SciPy reads them from a file of these two chunks alone, in -1..1."""
    import scipy.io.wavfile

    rate, block = struct.unpack(order + "I", layout[4:8])[0], struct.unpack(order + "H", layout[12:14])[0]
    layout = layout[:8] + struct.pack(order + "I", min(rate * block, 2**32 - 1)) + layout[12:]  # it must agree
    layout += b"\0" * (len(layout) % 2)
    body = b"WAVEfmt " + struct.pack(order + "I", len(layout)) + layout
    body += b"data" + struct.pack(order + "I", len(sound)) + sound
    file = (b"RIFF" if order == "<" else b"RIFX") + struct.pack(order + "I", len(body)) + body
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):  # what overflows is found afterwards
        warnings.simplefilter("ignore")
        try:
            samples = scipy.io.wavfile.read(io.BytesIO(file))[1]
        except (ValueError, TypeError, ArithmeticError, LookupError, struct.error) as error:
            expected = "sound as integers of up to 64 bits or floats of 32, 64"
            raise InputError(f"{source.name}: expected {expected}, got another ({error})") from None
        if samples.dtype == np.uint8:
            return (samples.astype(np.float32) - 128) / 128
        if samples.dtype.kind == "i":
            samples = samples / np.float64(2 ** (8 * samples.itemsize - 1))
        return samples.astype(np.float32)
