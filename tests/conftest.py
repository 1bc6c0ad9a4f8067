"""What every test runs under: keys are never reused, no compilation cache of a user is read or filled.

Tests of layers and losses also run under strict dtype promotion: a bfloat16 array that meets a float32 one is an error
there, not a silent float32. Losses and metrics refuse to broadcast as well; layers may add a vector to every row.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # for subprocesses
jax.config.update("jax_enable_compilation_cache", False)
jax.config.update("jax_debug_key_reuse", True)
hypothesis.settings.register_profile("fdl", deadline=None)  # the first example compiles
hypothesis.settings.load_profile("fdl")

# The laws hold every layer, and are quick. What is particular to a family of layers, to an option of the engine, to a
# command or to an experiment runs in the slow tier, and so do the examples in those docstrings.
SLOW = (
    *("bad_input", "commands", "experiments", "interop", "losses", "models", "nn", "ops", "parity", "pretrained"),
    *("data/test_stream.py", "laws/test_lengths.py", "runs/test_crash.py", "runs/test_mutation.py"),
    *("training/test_halving.py", "training/test_memory.py", "training/test_nonfinite.py", "training/test_options.py"),
    *("training/test_reports.py", "training/test_resume.py", "training/test_resume_otherwise.py"),
    *("training/test_selection.py", "training/test_skipped.py", "training/test_statistics.py"),
    "training/test_sweep.py",
)

STRICT_RANKS = ("losses", "metrics", "test_losses.py", "test_metrics.py")
STRICT_DTYPES = ("laws", "nn", "ops", *STRICT_RANKS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {_folder(item.path), _file(item.path)} & set(SLOW) or _package(item.path) in SLOW:
            item.add_marker(pytest.mark.slow)


def _folder(path: Path) -> str:
    """The folder (or file) of `tests` that a test is in; the doctests of fdl are in none."""
    return _file(path).partition("/")[0]


def _file(path: Path) -> str:
    """Where in `tests` a file is, "" for the doctests of fdl."""
    tests = Path(__file__).parent
    return path.relative_to(tests).as_posix() if path.is_relative_to(tests) else ""


def _package(path: Path) -> str:
    """The package of fdl that a doctest is in."""
    fdl = Path(__file__).parents[1] / "fdl"
    return path.relative_to(fdl).parts[0] if path.is_relative_to(fdl) else ""


@pytest.fixture(autouse=True)
def _strict(request: pytest.FixtureRequest) -> Iterator[None]:
    top = _folder(request.path)
    with ExitStack() as stack:
        if top in STRICT_DTYPES:
            stack.enter_context(jax.numpy_dtype_promotion("strict"))
        if top in STRICT_RANKS:
            stack.enter_context(jax.numpy_rank_promotion("raise"))
        yield


@pytest.fixture(autouse=True)
def _own_numbers(request: pytest.FixtureRequest) -> None:
    """A module's generator begins anew for each test, so that no test depends on those before it."""
    for value in vars(request.module).values() if hasattr(request, "module") else ():
        if isinstance(value, np.random.Generator):
            value.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture(scope="session")
def fdl_data() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    folder = os.environ.get("FDL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FDL_DATA is not a folder")
    return Path(folder)


needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
