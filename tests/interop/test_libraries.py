"""The libraries are imported at the first use; what is missing is named; the example is one network four times."""

from __future__ import annotations

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import fdl
from experiments.interop import Config, build
from fdl.interop import from_equinox, from_linen, from_nnx, library

LIBRARIES = {"linen": "flax", "nnx": "flax", "equinox": "equinox"}
each = pytest.mark.parametrize("name", LIBRARIES)


def test_importing_interop_imports_neither_library():
    code = "import sys, fdl.interop; sys.exit(any(name in sys.modules for name in ('flax', 'equinox')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("make", "requirement"),
    [
        (lambda: from_linen(None, jnp.ones(1)), "pip install 'flax"),
        (lambda: from_nnx(lambda rngs: None), "pip install 'flax"),
        (lambda: from_equinox(lambda key: None), "pip install 'equinox"),
        (lambda: build(Config(library="nnx")), "pip install 'flax"),
    ],
    ids=["linen", "nnx", "equinox", "example"],
)
def test_a_missing_library_is_named(monkeypatch, make, requirement):
    loaded = [name for name in sys.modules if name.split(".")[0] in ("flax", "equinox")]
    for name in {*loaded, "flax", "flax.linen", "flax.nnx", "equinox"}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(fdl.InputError, match=requirement):
        make()


def test_a_library_that_fails_itself_is_not_taken_for_missing(monkeypatch, tmp_path):
    (tmp_path / "broken_library.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        library("broken_library")


@pytest.mark.slow
@each
def test_the_example_runs_in_each_library(name):
    pytest.importorskip(LIBRARIES[name])
    result = fdl.run(build(Config(library=name)).smoke())
    assert result.info["steps"] == 8
    assert all(math.isfinite(value) for value in result.metrics.values())
    count = sum(leaf.size for leaf in jax.tree.leaves(result.params))
    assert count == 64 * 128 + 2 * 128 + 128 * 10 + 10  # the same network as that of fdl


@pytest.mark.slow
@each
def test_the_example_reaches_the_accuracy_of_its_docstring(name):
    """Three standard deviations below the mean: 97 %."""
    pytest.importorskip(LIBRARIES[name])
    assert fdl.run(build(Config(library=name))).metrics["test/accuracy"] >= 0.97
