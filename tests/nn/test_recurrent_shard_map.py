"""Recurrent layers inside `shard_map`, in a process of its own: JAX fixes the number of devices when it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import jax, numpy as np, fdl
from fdl import nn
from jax.sharding import AxisType, PartitionSpec as P
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype(np.float32)
lengths = np.array([5, 1, 2, 3, 4, 5, 0, 2], np.int32)
for layer in (nn.RNN(3, 2), nn.LSTM(3, 2), nn.GRU(3, 2)):
    params, _ = fdl.init(layer, jax.random.key(0))
    for keywords in ({}, {"lengths": lengths}):
        run = lambda params, x, keywords: layer(params, x, **keywords)
        split = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P("data")))
        np.testing.assert_allclose(split(params, x, keywords), run(params, x, keywords), rtol=1e-5, atol=1e-6)
"""


def test_a_batch_split_by_hand_is_the_whole_batch():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
