"""The benchmark of sweeps compares like with like: every variant trains the same members."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "experiments/benchmarks/sweeps.py"
NETWORKS = ("mlp", "cnn", "lstm")


@pytest.mark.slow
def test_the_losses_of_all_variants_agree(tmp_path):
    """Relative differences of the losses of five steps, of float32 programs that take sums in another order.

    Four epsilons are 5e-7; Adam's first steps are nearly the sign of the gradient, so that a rounding can grow. Another
    order of the examples, or other initial values, would change the losses by several per cent.
    """
    output = tmp_path / "sweeps.json"
    subprocess.run([sys.executable, str(FILE), "--quick", "--output", str(output)], check=True)
    results = json.loads(output.read_text())
    rows = {(row["workload"], row["variant"], row["members"]): row["loss_differs"] for row in results["rows"]}
    jax_variants = ["fdl.sweep", "vmap by hand", "fdl, solo runs", "scan by hand, solo runs", "jitted step loop"]
    torch_variants = ["torch.func vmap", "torch, one by one"] if importlib.util.find_spec("torch") else []
    expected = {(w, v, n) for w in NETWORKS for v in jax_variants + torch_variants for n in (1, 4)}
    assert set(rows) == expected | {("cnn", "vmap by hand, XLA's convolution", n) for n in (1, 4)}
    assert max(rows.values()) < 1e-5
    assert results["digits"]["loss_differs"] < 1e-3  # batch norm divides by deviations, which may be small
