"""Small files that unpack to gigabytes, read by a process that may not have them: an InputError, and it goes on."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOM = 2**29  # bytes that the process may take beyond what it starts with

READ = """
import lzma, re, resource, sys, zipfile
import numpy as np
from fdl.data.formats.cifar import read_cifar
from fdl.data.formats.idx import read_idx
from fdl.data.formats.npz import read_npz
from fdl.data.formats.table import read_table
from fdl.data.formats.text import read_text
from fdl.data.formats.wav import read_wav
from fdl.errors import InputError

size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[1]),) * 2)
readers = {"table": lambda file: read_table(file, {"a": "float"}), "text": read_text, "wav": read_wav,
           "idx": read_idx, "cifar": read_cifar, "npz": read_npz}
for file in sys.argv[2:]:
    try:
        readers[file.rpartition("/")[2].split(".")[0]](file)
        print("accepted")
    except InputError as error:
        print("InputError", error)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])  # ru_maxrss has the parent's peak in it
"""


def bomb(head: bytes, count: int) -> bytes:
    """A gzip stream of `head` and then so many MiB of zeros, each the same block: its check sum is never reached."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + start + block * count


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_a_bomb_is_an_input_error_where_there_is_no_memory_for_it(tmp_path: Path) -> None:
    heads = {"table": b"a\n1\n", "text": b"a", "wav": b"RIFF\xff\xff\xff\xffWAVE", "cifar": b"\1",
             "idx": bytes([0, 0, 8, 1, 0x40, 0, 0, 0])}  # fmt: skip
    for name, head in heads.items():
        (tmp_path / f"{name}.gz").write_bytes(bomb(head, 3 * 2**10))

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out, out.open("x.npy", "w") as member:
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1072693248,), }".ljust(117) + b"\n"
        member.write(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
        for _ in range(1023):  # just below what an archive may hold by itself
            member.write(bytes(2**20))
    (tmp_path / "npz.npz").write_bytes(archive.getvalue())
    files = sorted(str(file) for file in tmp_path.iterdir())
    assert all(os.path.getsize(file) < 2**22 for file in files)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", READ, str(ROOM), *files]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    *answers, peak = done.stdout.splitlines()
    assert [answer.split()[0] for answer in answers] == ["InputError"] * len(files), answers
    assert int(peak) * 1024 < ROOM + 2**28  # numpy and Python beside it
