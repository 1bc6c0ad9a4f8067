"""Rules that read the declaration of a model: which parameters decay."""

from __future__ import annotations

from typing import Any

from fdl.core import Layer, Param, Tree

COPIES = ("layers", "members")  # axes that count copies of an array and are no dimension of it


def decay_mask(layer: Layer) -> Tree:
    """A tree of booleans like `params`: True for matrices and kernels, False for biases, scales and other vectors.

    An array decays where it has two axes or more, those that count the copies of a `Stack` or `Ensemble` aside: the
    bias of a stacked layer is [layers, features] and still a bias. For `optax.adamw(..., mask=fdl.decay_mask(model))`.

    >>> from fdl import nn
    >>> decay_mask(nn.Stack(nn.Linear(3, 3), 4))
    {'kernel': True, 'bias': False}
    """
    return _decays(layer.specs())


def _decays(specs: Tree) -> Any:
    mask = {}
    for name, spec in specs.items():
        if not isinstance(spec, Param):
            mask[name] = _decays(spec)
        elif spec.kind == "param":
            copies = sum(axis in COPIES for axis in spec.axes or ())
            mask[name] = len(spec.shape) - copies >= 2
    return mask
