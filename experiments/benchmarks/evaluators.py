"""How each library evaluates and predicts, in batches of which the last is smaller than the others.

The counterparts of the functions in `trainers`, which hand over to them where the job says "evaluate": "scores" are the
mean loss and the accuracy over all examples; "logits" are those of all examples, on the host. When a function returns,
it has met both sizes of batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks.job import Job

Evaluate = Callable[[], np.ndarray]
Forward = Callable[[Any, Any], Any]


def fdl(job: Job, experiment: Any) -> Evaluate:
    """`fdl.make_evaluation`: the program with which `fdl.run` evaluates, alone."""
    import fdl

    evaluate = fdl.make_evaluation(experiment)

    def run() -> np.ndarray:
        found = evaluate(job.params, {})
        return np.array([found["test/loss"], found["test/accuracy"]])

    return run


def limit(job: Job, forward: Forward) -> Evaluate:
    """One program: a loop over the full batches, then the rest."""
    import jax

    size, total = job.sizes["batch"], len(job.data["y"])
    whole = total - total % size

    def run(params: Any, data: Any) -> Any:
        full = {name: array[:whole].reshape(-1, size, *array.shape[1:]) for name, array in data.items()}
        parts = jax.lax.map(lambda batch: _part(job, forward(params, batch), batch), full)
        parts = parts.reshape(-1, parts.shape[-1])
        rest = {name: array[whole:] for name, array in data.items()}
        return jax.numpy.concatenate([parts, _part(job, forward(params, rest), rest)]) if whole < total else parts

    inputs = jax.device_put((job.params, job.data))
    program = jax.jit(run).lower(*inputs).compile()
    return lambda: answer(job, np.asarray(program(*inputs)))


def jax(job: Job, params: Any, forward: Forward, jit: Callable[[Any], Any]) -> Evaluate:
    """A jitted function of a batch, called from Python; `jit` is the library's own."""
    part = jit(lambda params, batch: _part(job, forward(params, batch), batch))

    def run(batches: list[Any] | None = None) -> np.ndarray:
        parts = [part(params, batch) for batch in batches or _batches(job)]
        return answer(job, np.concatenate([np.asarray(each) for each in parts]))

    run([_batches(job)[0], _batches(job)[-1]])
    return run


def keras(job: Job, model: Any) -> Evaluate:
    """`evaluate` and `predict`."""
    options: Any = {"batch_size": job.sizes["batch"], "verbose": 0}

    def run(count: int | None = None) -> np.ndarray:
        x, y = job.data["x"][:count], job.data["y"][:count]
        if job.sizes["evaluate"] == "scores":
            return np.array(model.evaluate(x, y, **options))
        return answer(job, model.predict(x, **options))

    run(_two_batches(job))
    return run


def torch(job: Job, called: Any, forward: Forward | None) -> Evaluate:
    import torch
    from torch.nn import functional

    data = {name: torch.from_numpy(array) for name, array in job.data.items()}
    data["y"] = data["y"].long()

    def part(batch: Any) -> Any:
        y = called(batch["x"]) if forward is None else forward(called, batch)
        if job.sizes["evaluate"] == "logits":
            return y
        right = (y.argmax(-1) == batch["y"]).sum()
        return torch.stack([functional.cross_entropy(y, batch["y"], reduction="sum"), right])[None]

    def run(count: int | None = None) -> np.ndarray:
        batches = zip(*(array[:count].split(job.sizes["batch"]) for array in data.values()), strict=True)
        with torch.inference_mode():
            parts = [part(dict(zip(data, batch, strict=True))) for batch in batches]
            return answer(job, torch.cat(parts).numpy())

    called.eval()
    run(_two_batches(job))
    return run


def _part(job: Job, y: Any, batch: Any) -> Any:
    """What a batch adds as rows: its logits, or one row with the sum of its losses and how many were right."""
    import jax
    import jax.numpy as jnp

    if job.sizes["evaluate"] == "logits":
        return y
    losses = -jnp.take_along_axis(jax.nn.log_softmax(y), batch["y"][:, None], -1)
    return jnp.stack([losses.sum(), (y.argmax(-1) == batch["y"]).sum()])[None]


def answer(job: Job, parts: np.ndarray) -> np.ndarray:
    """What is compared: the two means, or, of logits, the mean of each class and the first, middle and last example."""
    if job.sizes["evaluate"] == "scores":
        return parts.sum(0) / len(job.data["y"])
    return np.concatenate([parts.mean(0), *parts[[0, len(parts) // 2, -1]]])


def _two_batches(job: Job) -> int:
    """Examples that make a full batch and one of the size of the last."""
    return job.sizes["batch"] + len(job.data["y"]) % job.sizes["batch"]


def _batches(job: Job) -> list[dict[str, np.ndarray]]:
    size, total = job.sizes["batch"], len(job.data["y"])
    return [{name: array[i : i + size] for name, array in job.data.items()} for i in range(0, total, size)]
