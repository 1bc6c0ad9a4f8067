"""What has to be equal from process to process, and what tells where it need not be; the table is in the README."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from fdl.runs import manifest

REPOSITORY = Path(__file__).parents[2]

TRAIN = """
import hashlib, json, os, sys
if sys.argv[1] == "one":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, numpy as np
import fdl
from experiments.digits import Config, build

result = fdl.run(build, Config(num_epochs=3), seed=5, chunk=int(sys.argv[2]))
digest = hashlib.sha256()
for leaf in jax.tree.leaves((result.params, result.state, result.history)):
    digest.update(np.asarray(leaf).tobytes())
print(json.dumps([digest.hexdigest(), result.history["train/loss"].tolist()]))
"""


def trained(cores: str, chunk: int) -> tuple[str, list[float]]:
    command = [sys.executable, "-c", TRAIN, cores, str(chunk)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.skipif(manifest.cores() < 2 or not hasattr(os, "sched_setaffinity"), reason="needs two cores to choose")
def test_another_process_is_the_same_and_another_number_of_cores_is_close():
    """A convolutional network with batch norm, dropout and augmentation. Bits are the same on the same cores only.

    On one core its sums are taken in another order than on two; those of the perceptron in the README are not.
    """
    (one, alone), (both, together), (again, _) = trained("one", 7), trained("all", 7), trained("all", 40)
    assert both == again
    assert one == trained("one", 40)[0]
    np.testing.assert_allclose(alone[:20], together[:20], rtol=1e-5)


def test_random_numbers_are_those_of_this_version():
    """JAX changed its stream once (threefry_partitionable); should it do so again, published figures move."""
    assert jax.random.bits(jax.random.key(0), (4,)).tolist() == GOLDEN_BITS
    folded = jax.random.fold_in(jax.random.key(0), 7)
    assert jax.random.permutation(folded, 8).tolist() == GOLDEN_ORDER


GOLDEN_BITS = [4070199207, 4202968722, 1427181096, 2012915765]
GOLDEN_ORDER = [0, 7, 5, 2, 4, 1, 3, 6]


def test_the_manifest_tells_machines_apart(monkeypatch: pytest.MonkeyPatch):
    """AVX2 and AVX-512 sum in another order: their hashes differ, and the order of the flags does not matter."""

    def flags(*names: str) -> str | None:
        text = f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: {' '.join(names)}\n\nprocessor\t: 1\n"
        monkeypatch.setattr(Path, "read_text", lambda self: text)
        assert manifest.processor()["model"] == "A CPU"
        return manifest.processor()["flags"]

    assert flags("fma", "avx2") == flags("avx2", "fma") != flags("avx2", "fma", "avx512f")

    def missing(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert manifest.processor().keys() == {"model", "flags"}
