"""Run as `python -m tests.laws.sharded`: every row on one device and with its batch split over four.

Prints one line of JSON: for each row None, or what went wrong. A process of its own, for JAX fixes the number of
devices when it starts.
"""

from __future__ import annotations

import json
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.laws.case import assert_close, case, key
from tests.laws.table import ROWS, Row


def difference(row: Row, mesh: Mesh) -> str | None:
    it = case(row)
    train = it.modes[-1]

    def run(inputs: Any, key: jax.Array) -> Any:
        params, state, x, keywords = inputs
        return row.layer.apply(params, state, x, key=key, train=train, **keywords)

    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
    alone = it.params, it.state, it.x, it.keywords
    spread = (*jax.device_put(alone[:2], whole), *jax.device_put(alone[2:], split))
    program = jax.jit(run)
    try:
        assert all(len(leaf.sharding.device_set) == 4 for leaf in jax.tree.leaves(spread))
        assert_close(program(spread, jax.device_put(key(1), whole)), program(alone, key(1)), 1e-5)
    except Exception as error:  # reported by name; the other rows go on
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_disable_most_optimizations", True)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    with jax.numpy_dtype_promotion("strict"):
        print(json.dumps({row.id: difference(row, mesh) for row in ROWS if row.batched}))


if __name__ == "__main__":
    main()
