"""G1, on a GPU: GPT-2 of 124 million parameters in bfloat16, contexts of 1024, batches of 16.

The model of W5 in other sizes, with fused attention: cuDNN's in JAX, its own in PyTorch, here as in nanoGPT, which also
pads the vocabulary from 50257 to 50304. JAX's other libraries are missing: their attention is not fused unless told.
"""

from __future__ import annotations

from typing import Any

from experiments.benchmarks import trainers
from experiments.benchmarks.job import Job
from experiments.benchmarks.workloads import gpt

DEVICE, UNIT = "gpu", "tokens"
SIZES = {
    **{"steps": 40, "examples": 320, "batch": 16, "length": 1024, "vocabulary": 50_304},
    **{"layers": 12, "heads": 12, "features": 768, "precision": "bfloat16"},
    **{"rate": 3e-4, "optimizer": "adam", "loss": "cross_entropy"},
}
SMOKE = {
    **{"steps": 3, "examples": 16, "batch": 4, "length": 16, "vocabulary": 97},
    **{"layers": 2, "heads": 2, "features": 32, "rate": 1e-3},
}

data, experiment, torch = gpt.data, gpt.experiment, gpt.torch


def units(sizes: dict[str, Any]) -> int:
    """Tokens of a run."""
    return sizes["steps"] * sizes["batch"] * sizes["length"]


def parameters(sizes: dict[str, Any]) -> int:
    """Each once: the embedding is also the last layer."""
    width = sizes["features"]
    block = 12 * width**2 + 13 * width  # four projections and two layers of 4 times the width; biases and norms
    return (sizes["vocabulary"] + sizes["length"]) * width + sizes["layers"] * block + 2 * width


def flops(sizes: dict[str, Any]) -> float:
    """Of a run, as PaLM (appendix B) and nanoGPT count: attention in full, although half of it is masked."""
    matrices = parameters(sizes) - sizes["length"] * sizes["features"]  # positions are added, not multiplied
    return units(sizes) * (6.0 * matrices + 12.0 * sizes["layers"] * sizes["features"] * sizes["length"])


def ours(job: Job) -> trainers.Train:
    return trainers.fdl(job, experiment)


def forward(params: Any, batch: Any) -> Any:
    return gpt.forward(params, batch, attention)


def attention(q: Any, k: Any, v: Any) -> Any:
    import jax

    fused = "cudnn" if jax.default_backend() == "gpu" else "xla"
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=fused)


def limit(job: Job) -> trainers.Train:
    return trainers.limit(job, forward)


def step_loop(job: Job) -> trainers.Train:
    return trainers.jax_loop(job, job.params, forward)
