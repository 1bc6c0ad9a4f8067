"""Any pytree as a nested dict, and back: what checkpoints and rules over paths read."""

from __future__ import annotations

from typing import Any

import jax

from fdl.errors import InputError
from fdl.rules import path_of


def to_dict(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree in nested dicts: attributes, items and entries are named alike.

    >>> to_dict({"layers": [1.0, 2.0]})
    {'layers': {'0': 1.0, '1': 2.0}}
    """
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = _names(path)
        node = nested
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return nested


def from_dict(like: Any, nested: Any) -> Any:
    """A pytree of the structure of `like` with the leaves of `nested`; what `like` lacks is left out.

    Raises:
      InputError: a leaf that `nested` lacks.
    """

    def leaf(path: Any, _: Any) -> Any:
        node = nested
        for name in _names(path):
            if name not in node:
                raise InputError(f"the arrays do not fit the model: there is none at {path_of(path)!r}")
            node = node[name]
        return node

    return jax.tree_util.tree_map_with_path(leaf, like)


def _names(path: Any) -> list[str]:
    return [path_of((entry,)) for entry in path]
