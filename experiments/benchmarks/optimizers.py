"""The optimisers of the training loops, by the names that jobs give them: "adam", "sgd", "momentum" (0.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MOMENTUM = 0.9


def by_hand(name: str, params: Any) -> tuple[Callable[..., Any], Any]:
    """(rate, step, params, gradients, moments) -> (params, moments); and the moments to begin with."""
    import jax

    zeros = jax.tree.map(jax.numpy.zeros_like, params)
    return {"adam": (_adam, (zeros, zeros)), "sgd": (_sgd, ()), "momentum": (_momentum, zeros)}[name]


def optax(sizes: dict[str, Any]) -> Any:
    """Optax's."""
    import optax

    name, rate = sizes["optimizer"], sizes["rate"]
    return optax.adam(rate) if name == "adam" else optax.sgd(rate, MOMENTUM if name == "momentum" else None)


def torch(sizes: dict[str, Any], weights: Any) -> Any:
    """PyTorch's, each as one kernel for all weights."""
    import torch

    name, rate = sizes["optimizer"], sizes["rate"]
    if name == "adam":
        return torch.optim.Adam(weights, rate, fused=True)
    return torch.optim.SGD(weights, rate, MOMENTUM if name == "momentum" else 0, fused=True)


def _adam(rate: float, i: Any, params: Any, grads: Any, moments: Any) -> Any:
    """Adam (Kingma & Ba, 2015, algorithm 1)."""
    import jax
    import jax.numpy as jnp

    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], grads)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], grads)
    unbias1, unbias2 = 1 / (1 - 0.9 ** (i + 1.0)), 1 / (1 - 0.999 ** (i + 1.0))
    new = lambda p, m, v: p - rate * m * unbias1 / (jnp.sqrt(v * unbias2) + 1e-8)  # noqa: E731
    return jax.tree.map(new, params, first, second), (first, second)


def _sgd(rate: float, i: Any, params: Any, grads: Any, moments: Any) -> Any:
    import jax

    return jax.tree.map(lambda p, g: p - rate * g, params, grads), moments


def _momentum(rate: float, i: Any, params: Any, grads: Any, moments: Any) -> Any:
    import jax

    moments = jax.tree.map(lambda m, g: MOMENTUM * m + g, moments, grads)
    return jax.tree.map(lambda p, m: p - rate * m, params, moments), moments
