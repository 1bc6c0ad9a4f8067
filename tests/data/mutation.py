"""Files to damage, and damage: what chance, a broken disk or malice makes of the bytes of a good one."""

from __future__ import annotations

import pickle

import numpy as np
import scipy.sparse
from hypothesis import strategies as st

_NUMBERS = [bytes(4), b"\0\0\0\1", b"\1\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\xff" * 4]


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """One to four changes: bytes overwritten, a size overwritten, bytes put in, taken out or repeated, the end lost."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["byte", "number", "insert", "remove", "repeat", "truncate"]))
        if kind == "byte":
            data[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "number":
            data[place : place + 4] = draw(st.sampled_from(_NUMBERS))
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "remove":
            del data[place : place + draw(st.integers(1, 16))]
        elif kind == "repeat":
            data[place:place] = data[place : place + draw(st.integers(1, 64))]
        else:
            del data[place:]
    return bytes(data)


def planetoid_files() -> dict[str, bytes]:
    """700 nodes in a ring: 100 to train on, the last 50 to test on."""
    features, labels = np.eye(700, 5), np.eye(3)[np.arange(700) % 3]
    rows = {"x": slice(100), "allx": slice(650), "tx": slice(650, 700)}
    files = {name: pickle.dumps(scipy.sparse.csr_matrix(features[part]), 2) for name, part in rows.items()}
    files |= {name.replace("x", "y"): pickle.dumps(labels[part], 2) for name, part in rows.items()}
    files["graph"] = pickle.dumps({n: [(n + 1) % 700] for n in range(700)}, 2)
    return files | {"test.index": "".join(f"{n}\n" for n in range(650, 700)).encode()}
