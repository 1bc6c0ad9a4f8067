"""The work that all variants of a workload are given: initial values, data and the order of the batches, as NumPy."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np


class Job(NamedTuple):
    """One training run.

    Args:
      sizes: of the workload; "steps", "rate", "optimizer" ("adam" or "sgd") and "loss" ("cross_entropy", per label and
        by the weights `mask` where the data have one, or "squared_error") are read by the training loops.
      params: fdl's initial values, a nested dict.
      data: arrays by name, "x" and "y" among them.
      order: [steps, B] which examples make the batch of each step; None: all of them, every step.
    """

    sizes: dict[str, Any]
    params: dict[str, Any]
    data: dict[str, np.ndarray]
    order: np.ndarray | None

    @property
    def steps(self) -> int:
        return self.sizes["steps"]

    def epoch_steps(self) -> int:
        """Steps in an epoch; one, where every step sees everything."""
        return 1 if self.order is None else max(1, len(self.data["y"]) // self.order.shape[1])

    def save(self, folder: Path) -> None:
        """One file an array, without compression: what loading costs is the same for every variant, and little."""
        (folder / "sizes.json").write_text(json.dumps(self.sizes))
        arrays: dict[str, Any] = {f"data/{name}": array for name, array in self.data.items()}
        arrays |= dict(_flat(self.params, "params")) | ({} if self.order is None else {"order": self.order})
        np.savez(folder / "arrays.npz", **arrays)

    @classmethod
    def load(cls, folder: Path) -> Job:
        tree: dict[str, Any] = {"params": {}, "data": {}}
        with np.load(folder / "arrays.npz") as arrays:
            for path in arrays.files:
                *parents, name = path.split("/")
                place = tree
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[name] = arrays[path]
        return cls(json.loads((folder / "sizes.json").read_text()), tree["params"], tree["data"], tree.get("order"))


def make(workload: ModuleType, sizes: dict[str, Any]) -> Job:
    """The job of a workload: initial values and batches are those that `fdl.run` draws from seed 0."""
    import jax

    from fdl.training.programs import epoch_order
    from fdl.training.run import run_key

    data = workload.data(sizes)
    experiment, key = workload.experiment(sizes, data), run_key(0)
    params = jax.tree.map(np.asarray, experiment.update().init(key).params)
    if (size := experiment.batch_size) is None:
        return Job(sizes, params, data, None)
    per_epoch = experiment.steps_per_epoch()
    epochs = [np.asarray(epoch_order(experiment, key, i)) for i in range(-(-sizes["steps"] // per_epoch))]
    order = np.concatenate([epoch[: per_epoch * size].reshape(per_epoch, size) for epoch in epochs])
    return Job(sizes, params, data, order[: sizes["steps"]].astype(np.int32))


def _flat(tree: Any, path: str) -> Any:
    for name, branch in tree.items():
        if isinstance(branch, dict):
            yield from _flat(branch, f"{path}/{name}")
        else:
            yield f"{path}/{name}", branch


if __name__ == "__main__":
    sizes = json.loads(sys.argv[1])
    make(importlib.import_module(f"experiments.benchmarks.workloads.{sizes['workload']}"), sizes).save(
        Path(sys.argv[2])
    )
