"""How each library evaluates: the mean loss and the accuracy over all examples, the last batch smaller than the others.

The counterparts of the functions in `trainers`, which hand over to them where the job says "evaluate".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks.job import Job

Evaluate = Callable[[], np.ndarray]
Forward = Callable[[Any, Any], Any]


def fdl(programs: Any, key: Any, hyper: Any) -> Evaluate:
    """The program that `fdl.run` evaluates with."""
    carry, _ = programs.begin(key, hyper)
    evaluate, names = programs.evaluations["test"]

    def run() -> np.ndarray:
        sums = np.asarray(evaluate(carry.train, programs.arrays["test"], key, hyper)[0], np.float64).sum(0)
        return np.array([sums[names.index(name), 0] / sums[names.index(name), 1] for name in ("loss", "accuracy")])

    return run


def limit(job: Job, forward: Forward) -> Evaluate:
    """One program: a loop over the full batches, then the rest."""
    import jax

    size, total = job.sizes["batch"], len(job.data["y"])
    whole = total - total % size

    def run(params: Any, data: Any) -> Any:
        full = {name: array[:whole].reshape(-1, size, *array.shape[1:]) for name, array in data.items()}
        sums = jax.lax.map(lambda batch: _scores(forward(params, batch), batch), full).sum(0)
        rest = {name: array[whole:] for name, array in data.items()}
        return (sums + _scores(forward(params, rest), rest) if whole < total else sums) / total

    inputs = jax.device_put((job.params, job.data))
    program = jax.jit(run).lower(*inputs).compile()
    return lambda: np.asarray(program(*inputs))


def jax(job: Job, params: Any, forward: Forward, jit: Callable[[Any], Any]) -> Evaluate:
    """A jitted function of a batch, called from Python; `jit` is the library's own."""
    score = jit(lambda params, batch: _scores(forward(params, batch), batch))

    def run(batches: list[Any] | None = None) -> np.ndarray:
        scores = [score(params, batch) for batch in batches or _batches(job)]
        return np.sum([np.asarray(each) for each in scores], 0) / len(job.data["y"])

    run([_batches(job)[0], _batches(job)[-1]])
    return run


def keras(job: Job, model: Any) -> Evaluate:
    def run(data: Any = job.data) -> np.ndarray:
        return np.array(model.evaluate(data["x"], data["y"], batch_size=job.sizes["batch"], verbose=0))

    run(_batches(job)[0])
    return run


def torch(job: Job, called: Any, forward: Forward | None) -> Evaluate:
    import torch
    from torch.nn import functional

    data = {name: torch.from_numpy(array) for name, array in job.data.items()}
    data["y"] = data["y"].long()

    def run(count: int | None = None) -> np.ndarray:
        size, sums = job.sizes["batch"], torch.zeros(2)
        with torch.inference_mode():
            for first in range(0, len(data["y"]) if count is None else count, size):
                batch = {name: array[first : first + size] for name, array in data.items()}
                y = called(batch["x"]) if forward is None else forward(called, batch)
                right = (y.argmax(-1) == batch["y"]).sum()
                sums += torch.stack([functional.cross_entropy(y, batch["y"], reduction="sum"), right])
        return (sums / len(data["y"])).numpy()

    called.eval()
    run(1)
    return run


def _scores(y: Any, batch: Any) -> Any:
    """The sum of the losses, and how many were right."""
    import jax
    import jax.numpy as jnp

    losses = -jnp.take_along_axis(jax.nn.log_softmax(y), batch["y"][:, None], -1)
    return jnp.stack([losses.sum(), (y.argmax(-1) == batch["y"]).sum()])


def _batches(job: Job) -> list[dict[str, np.ndarray]]:
    size, total = job.sizes["batch"], len(job.data["y"])
    return [{name: array[i : i + size] for name, array in job.data.items()} for i in range(0, total, size)]
