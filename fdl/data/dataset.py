"""Datasets that live on the device: `Arrays` of examples, and `Full`, one batch for ever.

A dataset is host arrays plus pure functions of them, so that batch i is a pure function of (seed, i) inside the
compiled program: there is no iterator, and nothing to restore when a run resumes.
"""

from __future__ import annotations

import copy
from collections.abc import Sized
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.conversion import host_tree, spelled_leaves, tree_path
from fdl.data.permutation import permutation
from fdl.errors import InputError
from fdl.fields import is_whole
from fdl.records import listed, short

Batch = Any


class Dataset:
    """What the engine asks of a dataset. `arrays` below is `self.arrays` as placed on the device."""

    arrays: Any
    """Pytree of host arrays, passed to the compiled program as an argument."""
    streamed = False
    """Whether a chunk of steps gets batches of its own as `arrays`, instead of all data once."""

    def __repr__(self) -> str:
        size = f" of {len(self)} examples" if isinstance(self, Sized) else ""  # pyright: ignore[reportArgumentType]
        return listed(f"{type(self).__name__}{size}:", spelled_leaves(self._entries()))

    def _entries(self) -> Any:
        """The arrays under the names that a user gave them."""
        return self.arrays

    def steps_per_epoch(self, batch_size: int | None) -> int:
        """Full batches in one pass over the data."""
        raise NotImplementedError

    def order(self, key: jax.Array, batch_size: int | None) -> jax.Array:
        """The order of the examples in one epoch (int32); empty where there is nothing to shuffle."""
        raise NotImplementedError

    def batch(self, arrays: Any, order: jax.Array, position: Any, batch_size: int | None) -> Batch:
        """Training batch number `position` of the epoch."""
        raise NotImplementedError

    def num_eval_batches(self, batch_size: int | None) -> int:
        """Batches, the last perhaps partial, that cover every example once."""
        raise NotImplementedError

    def eval_batch(self, arrays: Any, number: Any, batch_size: int | None) -> tuple[Batch, jax.Array | None]:
        """Evaluation batch and its row mask (True = an example, False = padding); None where there are no rows."""
        raise NotImplementedError

    def batch_rows(self) -> int | None:
        """The examples of a batch, where the dataset itself decides how large one is and they can be counted."""
        return None

    def sample(self, batch_size: int | None) -> tuple[Batch, list[int]]:
        """A host batch of real rows, those with the smallest and largest targets first, and their row numbers."""
        raise NotImplementedError

    def join(self, batches: Any) -> Any:
        """What all evaluation batches gave, [batches, B, ...], as one array with a row for each example."""
        raise NotImplementedError

    def head(self, count: int) -> Dataset:
        """The first `count` examples, or everything where there are no examples to count."""
        raise NotImplementedError


class Examples(Dataset):
    """What sets of countable examples have in common: epochs are permutations, evaluation goes through them in order.

    A subclass has `_size`, and `_gather(arrays, places)`, the batch of some examples.
    """

    _size: int

    def __len__(self) -> int:
        return self._size

    def steps_per_epoch(self, batch_size: int | None) -> int:
        if batch_size is None:
            return 1
        if not is_whole(batch_size, 1):
            raise InputError(f"batch_size: expected a whole number >= 1, or None for all, got {batch_size!r}")
        if batch_size > self._size:
            raise InputError(
                f"batch_size {batch_size} is larger than the {self._size} examples of the training set "
                f"({self._spelled()}): an epoch would have no batch; use batch_size <= {self._size}, or None for all"
            )
        return self._size // batch_size

    def order(self, key: jax.Array, batch_size: int | None) -> jax.Array:
        all_in_turn = batch_size is None
        return self._places(jnp.arange(self._size, dtype=jnp.int32) if all_in_turn else permutation(key, self._size))

    def batch(self, arrays: Any, order: jax.Array, position: Any, batch_size: int | None) -> Batch:
        if batch_size is not None:
            order = jax.lax.dynamic_slice_in_dim(order, position * batch_size, batch_size)
        return self._gather(arrays, order)

    def num_eval_batches(self, batch_size: int | None) -> int:
        return -(-self._size // self._eval_size(batch_size))

    def eval_batch(self, arrays: Any, number: Any, batch_size: int | None) -> tuple[Batch, jax.Array]:
        size = self._eval_size(batch_size)
        index = number * size + jnp.arange(size)
        return self._gather(arrays, self._places(jnp.minimum(index, self._size - 1))), index < self._size

    def join(self, batches: Any) -> Any:
        return batches.reshape(-1, *batches.shape[2:])[: self._size]

    def _eval_size(self, batch_size: int | None) -> int:
        return min(batch_size or self._size, self._size)

    def _places(self, numbers: Any) -> Any:
        """Where the examples of these numbers are."""
        return numbers

    def _gather(self, arrays: Any, places: Any) -> Batch:
        raise NotImplementedError

    def _spelled(self) -> str:
        """The names of the entries, for errors."""
        raise NotImplementedError


class Arrays(Examples):
    """Named arrays whose leading axis counts the examples: `Arrays(x=images, y=labels)`.

    Training goes through fresh permutations of the examples, `n // batch_size` full batches an epoch (the rest of the
    epoch's permutation is left out); with `batch_size=None` every step sees all examples in their order. Evaluation
    sees every example exactly once.

    Args:
      named: arrays, or pytrees of them, all with the same leading axis: of numpy, JAX or torch, lists of numbers,
        columns of data frames (see `fdl.data.conversion.host_array`). Kept as numpy until the engine places them.

    Raises:
      InputError: no arrays, no examples, unequal leading axes, values that are no numbers, traced values.
    """

    def __init__(self, *unnamed: Any, **named: Any) -> None:
        _refuse_unnamed(unnamed, "Arrays(x=images, y=labels)")
        if not named:
            raise InputError("Arrays: expected at least one named array, e.g. Arrays(x=images, y=labels)")
        tree = {name: host_tree(value, name) for name, value in named.items()}
        for name, value in tree.items():
            if not jax.tree.leaves(value):
                raise InputError(f"Arrays: {name!r} has no array (got {named[name]!r}); leave it out")
        sizes = {path: leaf.shape[0] if leaf.ndim else -1 for path, leaf in _paths(tree)}
        if -1 in sizes.values() or len(set(sizes.values())) != 1:
            spelled = ", ".join(f"{path}: {'a scalar' if n < 0 else n}" for path, n in sizes.items())
            raise InputError(f"Arrays: all leading axes must be equal (the number of examples), got {spelled}")
        self._size = next(iter(sizes.values()))
        if not self._size:
            raise InputError(f"Arrays: no examples ({', '.join(sizes)} have a leading axis of 0)")
        self.arrays = {"tree": tree, "rows": None}

    def _entries(self) -> Any:
        sized = lambda leaf: jax.ShapeDtypeStruct((self._size, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
        return jax.tree.map(sized, self.arrays["tree"])

    def __getitem__(self, name: str) -> Any:
        """The named host array of these examples."""
        return self._gather(self.arrays, slice(None))[name]

    def take(self, index: Any) -> Arrays:
        """A view of some examples (folds, subsets, bootstraps): the arrays are shared, never copied.

        Args:
          index: integers in 0 .. n - 1 (repeats allowed), or booleans [n].
        """
        index = np.asarray(index)
        if index.dtype == bool and index.shape == (self._size,):
            index = np.flatnonzero(index)
        if index.ndim != 1 or not (np.issubdtype(index.dtype, np.integer) or not index.size):
            raise InputError(f"take: expected a list of row numbers, or {self._size} booleans, got {index!r}")
        if not index.size:
            raise InputError("take: no examples left")
        if index.min() < 0 or index.max() >= self._size:
            bad = int(index[(index < 0) | (index >= self._size)][0])
            raise InputError(f"take: row {bad} is outside 0..{self._size - 1}")
        view = copy.copy(self)
        rows = self.arrays["rows"]
        rows = index.astype(np.int32) if rows is None else rows[index]
        view.arrays, view._size = {"tree": self.arrays["tree"], "rows": rows}, len(rows)
        return view

    def head(self, count: int) -> Arrays:
        return self.take(np.arange(min(count, self._size)))

    def order(self, key: jax.Array, batch_size: int | None) -> jax.Array:
        return jnp.zeros((0,), jnp.int32) if batch_size is None else super().order(key, batch_size)

    def batch(self, arrays: Any, order: jax.Array, position: Any, batch_size: int | None) -> Batch:
        if batch_size is None:
            return self._gather(arrays, slice(None))  # all of them: nothing to gather
        return super().batch(arrays, order, position, batch_size)

    def sample(self, batch_size: int | None) -> tuple[Batch, list[int]]:
        extremes: list[int] = []
        rows = self.arrays["rows"]
        for leaf in jax.tree.leaves(self.arrays["tree"]):
            # A number for each example is a target, most often; looking through all floats would take too long.
            if (np.issubdtype(leaf.dtype, np.integer) and leaf.size) or leaf.size == len(leaf):
                mine = (leaf if rows is None else leaf[rows]).reshape(self._size, -1)
                extremes += [int(mine.min(1).argmin()), int(mine.max(1).argmax())]
        size = self._eval_size(batch_size)
        index = list(dict.fromkeys([*extremes, *range(min(size, self._size))]))
        index = index[: max(size, len(set(extremes)))]
        return self._gather(self.arrays, np.asarray(index)), index

    def _gather(self, arrays: Any, places: Any) -> Batch:
        if arrays["rows"] is not None:
            places = arrays["rows"][places]
        return jax.tree.map(lambda leaf: leaf[places], arrays["tree"])

    def _spelled(self) -> str:
        return ", ".join(path for path, _ in _paths(self.arrays["tree"]))


class Full(Dataset):
    """Named arrays that together are the batch of every step, never permuted: one graph with node masks, say.

    An epoch is one step and there is no batch size. Without any array the batch is `{}`: for tasks that make their own
    data.

    Raises:
      InputError: values that are no numbers, traced values.
    """

    def __init__(self, *unnamed: Any, **named: Any) -> None:
        _refuse_unnamed(unnamed, "Full(x=nodes, edges=edges)")
        self.arrays = {name: host_tree(value, name) for name, value in named.items()}

    def steps_per_epoch(self, batch_size: int | None) -> int:
        if batch_size is not None:
            raise InputError(f"Full: the whole tree is the batch, so there is no batch_size (got {batch_size})")
        return 1

    def order(self, key: jax.Array, batch_size: int | None) -> jax.Array:
        return jnp.zeros((0,), jnp.int32)

    def batch(self, arrays: Any, order: jax.Array, position: Any, batch_size: int | None) -> Batch:
        return arrays

    def num_eval_batches(self, batch_size: int | None) -> int:
        return 1

    def eval_batch(self, arrays: Any, number: Any, batch_size: int | None) -> tuple[Batch, None]:
        return arrays, None

    def sample(self, batch_size: int | None) -> tuple[Batch, list[int]]:
        return self.arrays, []

    def join(self, batches: Any) -> Any:
        return batches[0]

    def head(self, count: int) -> Full:
        return self


def _refuse_unnamed(unnamed: tuple[Any, ...], example: str) -> None:
    """Arrays without a name would have none in the batch."""
    if unnamed:
        raise InputError(f"{example.split('(')[0]}: every array has a name, such as {example}; got {short(unnamed[0])}")


def _paths(tree: Any) -> list[tuple[str, Any]]:
    return [(tree_path(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
