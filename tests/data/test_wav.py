"""Sound as recorders and programs write it, into files and into pipes: the same samples, or an error by name."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io.wavfile

from fdl.data.formats.wav import read_wav
from fdl.errors import InputError

RAMP = [[0.0], [0.25], [-0.5], [-1.0]]
SHORT = np.array([0, 2**13, -(2**14), -(2**15)], "<i2").tobytes()
LIST = b"LIST\1\0\0\0x\0"
PCM = b"\1\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
"""The end of the identifier of a kind of samples, of which the first two bytes are the kind."""


def wav(
    data: bytes, kind: int = 1, bits: int = 16, channels: int = 1, size: int | None = None, riff: int | None = None,
    before: bytes = b"", behind: bytes = b"", order: str = "<", name: bytes = b"RIFF", more: bytes = b"",
) -> bytes:  # fmt: skip
    """A file with chosen sizes in its header; None = the true ones."""
    block = channels * ((bits + 7) // 8)
    layout = struct.pack(order + "HHIIHH", kind, channels, 8000, 8000 * block, block, bits) + more
    chunks = before + b"fmt " + struct.pack(order + "I", len(layout)) + layout
    chunks += b"data" + struct.pack(order + "I", len(data) if size is None else size) + data + behind
    return name + struct.pack(order + "I", len(chunks) + 4 if riff is None else riff) + b"WAVE" + chunks


def extensible(kind: int, bits: int, data: bytes) -> bytes:
    return wav(data, 0xFFFE, bits, more=struct.pack("<HHIH", 22, bits, 4, kind) + PCM[2:])


ALL, HALF, KNOWN = 0xFFFFFFFF, 0x7FFFFFFF, 36 + len(SHORT)
READ: dict[str, tuple[bytes, Any]] = {
    "as the standard says": (wav(SHORT), RAMP),
    "by ffmpeg into a pipe": (wav(SHORT, size=ALL, riff=ALL), RAMP),
    "and with a list of tags": (wav(SHORT, size=ALL, riff=ALL, before=LIST), RAMP),
    "by arecord into a pipe": (wav(SHORT, size=0x80000000, riff=0x80000024), RAMP),
    "by sox into a pipe": (wav(SHORT, size=0x7FFFF000, riff=0x7FFFF024), RAMP),
    "with the largest signed size": (wav(SHORT, size=HALF, riff=HALF), RAMP),
    "by a recorder that was switched off": (wav(SHORT, size=0, riff=0), RAMP),
    "and before a sample was whole": (wav(SHORT + b"\1", size=0, riff=36), RAMP),
    "streamed, two channels": (
        wav(SHORT, channels=2, size=ALL, riff=ALL), [[0.0, 0.25], [-0.5, -1.0]]),
    "streamed, of a known size of sound": (wav(SHORT, riff=ALL), RAMP),
    "nothing recorded": (wav(b""), np.zeros((0, 1))),
    "tags behind the sound": (wav(SHORT, behind=LIST), RAMP),
    "an odd chunk that is not padded": (wav(SHORT, before=b"junk\1\0\0\0x"), RAMP),
    "big-endian": (wav(np.frombuffer(SHORT, "<i2").astype(">i2").tobytes(), order=">", name=b"RIFX"), RAMP),
    "beyond 4 GB (RF64)": (
        wav(SHORT, size=ALL, riff=ALL, name=b"RF64", before=b"ds64" + struct.pack("<IQQQI", 28, 80, 8, 4, 0)), RAMP),
    "8 bits": (wav(bytes([128, 160, 64, 0]), bits=8), RAMP),
    "24 bits": (wav(b"\0\0\x40\0\0\x80\xff\xff\xff", bits=24), [[0.5], [-1.0], [-(2.0**-23)]]),
    "32 bits": (wav(np.array([2**29, -(2**31)], "<i4").tobytes(), bits=32), [[0.25], [-1.0]]),
    "64 bits": (wav(np.array([2**61, -(2**63)], "<i8").tobytes(), bits=64), [[0.25], [-1.0]]),
    "floats": (wav(np.array([0.25, -1.5], "<f4").tobytes(), 3, 32), [[0.25], [-1.5]]),
    "doubles": (wav(np.array([0.25, -1.5], "<f8").tobytes(), 3, 64), [[0.25], [-1.5]]),
    "extensible integers": (extensible(1, 16, SHORT), RAMP),
    "extensible floats": (extensible(3, 32, np.array([0.25], "<f4").tobytes()), [[0.25]]),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_sound_is_read(name: str) -> None:
    file, samples = READ[name]
    sound = read_wav(file)
    assert (sound.samples.dtype, sound.rate) == (np.float32, 8000)
    np.testing.assert_array_equal(sound.samples, samples)


REFUSED = {
    "mu-law": (wav(b"ab", 7, 8), "got format 7 of 8 bits"),
    "half floats": (wav(b"ab", 3, 16), "integers of up to 64 bits or floats of 32, 64"),
    "half a sample": (wav(b"abc"), "a whole number of samples of 2 bytes, got 3 bytes"),
    "not a number": (wav(struct.pack("<f", float("nan")), 3, 32), "finite samples"),
    "cut off": (wav(SHORT)[:-2], "a chunk 'data' of 8 bytes, got 6 bytes to the end"),
    "no sound": (wav(SHORT)[:36], "chunks 'fmt ' and 'data', got 'fmt '"),
    "no channels": (wav(SHORT, channels=0), "0 channels"),
    "FLAC": (b"fLaC" + bytes(99), r"got a FLAC file \(convert it to WAV\)"),
    "AIFF": (b"FORM\0\0\0\0AIFF" + bytes(99), "got an AIFF file"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "got a Git LFS pointer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_sound_is_refused(name: str) -> None:
    file, message = REFUSED[name]
    with pytest.raises(InputError, match=f"<bytes>: expected .*{message}"):
        read_wav(file)


def test_the_home_folder_of_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.wav").write_bytes(wav(SHORT))
    assert read_wav("~/a.wav").samples.tolist() == RAMP


@pytest.mark.parametrize("dtype", ["u1", "<i2", "<i4", "<f4", "<f8"])
def test_wav_as_scipy(dtype: str) -> None:
    whole = np.array([[0, 255], [128, 1]]) if dtype == "u1" else np.array([[0, -(2**15)], [2**15 - 1, 1]])
    samples = (whole / 2**15 if "f" in dtype else whole).astype(dtype)
    file = io.BytesIO()
    scipy.io.wavfile.write(file, 8000, samples)
    sound = read_wav(file.getvalue())
    scale = {"u1": 2.0**7, "<i2": 2.0**15, "<i4": 2.0**31}.get(dtype, 1.0)
    assert sound.rate == 8000
    np.testing.assert_array_equal(
        sound.samples, ((samples - (128.0 if dtype == "u1" else 0)) / scale).astype(np.float32)
    )
