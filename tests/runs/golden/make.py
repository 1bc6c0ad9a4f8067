"""Writes the golden checkpoint of the format that this version of fdl writes: `python -m tests.runs.golden.make`.

That was done once for each version of the format, and is done again only for a new one: what an older fdl has written
is what has to stay readable.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from fdl import nn
from fdl.runs.checkpoints import FORMAT

HERE = Path(__file__).parent
MODEL = nn.Serial(nn.Linear(2, 3, use_bias=False), nn.BatchNorm(3), head=nn.Linear(3, 2))


def experiment() -> fdl.Experiment:
    """Of everything a bit: statistics, a random key, a counter of eight bits, bfloat16, averages, selection."""
    task = fdl.supervised(MODEL, fdl.losses.softmax_cross_entropy)

    def init(key: jax.Array) -> tuple[Any, Any]:
        params, state = task.init(key)
        params["extra"] = jnp.ones((2, 2), jnp.bfloat16)
        return params, {**state, "key": jax.random.fold_in(key, 1), "count": jnp.int8(3)}

    def objective(params: Any, state: Any, batch: Any, *, key: jax.Array, train: bool) -> fdl.Outcome:
        model = {name: params[name] for name in ("0", "1", "head")}
        outcome = task.objective(model, {"1": state["1"]}, batch, key=key, train=train)  # pyright: ignore
        loss = outcome.loss + params["extra"].astype(jnp.float32).sum()
        return fdl.Outcome(loss, state=state if outcome.state is None else {**state, **outcome.state})

    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)
    data = fdl.data.Arrays(x=x, y=np.arange(6) % 2)
    return fdl.Experiment(
        fdl.Task(init, objective), fdl.with_ema(optax.adam(0.1)), data, {"val": data}, batch_size=3, num_steps=5,
        eval_every=2, select="val/loss", eval_params=fdl.ema_params,
    )  # fmt: skip


def make(place: Path) -> None:
    """Writes `place`, which must not exist."""
    with tempfile.TemporaryDirectory() as folder:
        fdl.run(experiment(), folder=Path(folder) / "run")
        (written,) = (Path(folder) / "run" / "checkpoints").iterdir()
        shutil.copytree(written, place)


if __name__ == "__main__":
    make(HERE / f"format-{FORMAT}" / "00000005")
