"""Batches that come one by one, for data that does not fit on the device or in memory."""

from __future__ import annotations

import functools
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from fdl.data.conversion import host_tree, spelled_leaves, tree_path
from fdl.data.dataset import Batch, Dataset
from fdl.errors import InputError
from fdl.records import listed, source
from fdl.signatures import check_signature

CHUNK_BYTES = 2**25  # of batches that travel to the device together
AHEAD = 2  # chunks read before they are needed
SMALL, MAPPED, ALIGNED = 2**20, 2**25, 64  # bytes


class Stream(Dataset):
    """`batch_at(step)`, a pure function of the step, gives the batch of every step: a dict of numpy arrays.

    A thread reads ahead while the device computes, so that a run goes at the speed of the slower of the two, and holds
    a few chunks of at most 32 MiB (or of one batch). As nothing is kept between calls, a run resumes anywhere.

    Args:
      batch_at: (step: int) -> dict of numpy arrays, the same shapes and dtypes at every step. It is called on another
        thread, in the order of the steps. There is no epoch: the experiment gives `num_steps`.

    >>> rows = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    >>> Stream(lambda step: {"x": rows[[step % 3]]}).read(4)["x"].tolist()
    [[2.0, 3.0]]
    """

    streamed = True

    def __init__(self, batch_at: Callable[[int], Batch]) -> None:
        check_signature("Stream: batch_at", batch_at, "(step) -> dict of arrays")
        self.batch_at = batch_at
        self._first: Batch = None

    def __repr__(self) -> str:
        known = spelled_leaves(self._first) if self._first is not None else [("batch_at", source(self.batch_at))]
        return listed("Stream of batches:", known)

    def read(self, step: int) -> Batch:
        """The batch of a step as host arrays, like that of step 0.

        Raises:
          InputError: a batch of other entries, shapes or dtypes than that of step 0; values that are no numbers.
        """
        try:
            batch = host_tree(self.batch_at(step), "")
        except InputError as error:
            raise InputError(f"Stream: the batch of step {step}: {error}") from None
        if self._first is None:
            if not jax.tree.leaves(batch):
                raise InputError(f"Stream: the batch of step {step} has no arrays: {batch!r}")
            self._first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
        got = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
        if got != self._first:
            raise InputError(f"Stream: the batch of step {step} is {got}, that of step 0 was {self._first}")
        return batch

    @property
    def arrays(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What a chunk of one step gets."""
        return jax.tree.map(lambda leaf: leaf[None], self.read(0))

    def steps_per_epoch(self, batch_size: int | None) -> int:
        if batch_size is not None:
            raise InputError(f"Stream: batch_at decides how large a batch is, so there is no batch_size ({batch_size})")
        return 0

    def order(self, key: jax.Array, batch_size: int | None) -> jax.Array:
        return jax.numpy.zeros((0,), np.int32)

    def batch(self, arrays: Any, order: jax.Array, position: Any, batch_size: int | None) -> Batch:
        return jax.tree.map(lambda leaf: leaf[position], arrays)

    def batch_rows(self) -> int | None:
        if self._first is None:
            self.read(0)
        sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(self._first)}
        return sizes.pop() or None if len(sizes) == 1 else None

    def sample(self, batch_size: int | None) -> tuple[Batch, list[int]]:
        return self.read(0), []

    def capacity(self, most: int) -> int:
        """The steps whose batches fit into one chunk."""
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self.read(0)))
        return max(1, min(most, CHUNK_BYTES // max(size, 1)))


class Prefetch:
    """Reads the chunks of a stream ahead of their use, on a thread of its own.

    Args:
      stream: where batches come from.
      capacity: of a chunk; shorter ones are padded with whatever the memory holds.
      plan: step -> how many steps the chunk that begins there has; called on the thread.
      total, start: the steps of a run, and those that are done already.
    """

    def __init__(self, stream: Stream, capacity: int, plan: Callable[[int], int], total: int, start: int = 0) -> None:
        self.stream, self.capacity, self.plan, self.total, self.start = stream, capacity, plan, total, start
        self.waited = 0.0
        self._chunks: queue.Queue[Any] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True, name="fdl stream")
        self._thread.start()

    def next(self) -> tuple[int, Any]:
        """`(count, arrays)` of the chunk that comes next; waits for it, and raises what reading it raised."""
        started = time.perf_counter()
        chunk = self._chunks.get()
        self.waited += time.perf_counter() - started
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def close(self) -> None:
        """Ends the thread; chunks that were read and not used are dropped."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._chunks.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _read(self) -> None:
        step = self.start
        try:
            while step < self.total and not self._stopped.is_set():
                count = self.plan(step)
                self._chunks.put((count, jax.device_put(read_chunk(self.stream, self.capacity, step, count))))
                step += count
        except BaseException as error:
            error.add_note(f"while the stream read the batches from step {step} on")
            self._chunks.put(error)


def read_chunk(stream: Stream, capacity: int, start: int, count: int) -> Any:
    """`count` batches one after the other, as a compiled chunk wants them; whatever the memory holds after them.

    It is new memory each time: the device may still read the last one, or keep this one as it is.
    """
    chunk: Any = None
    for row in range(count):
        batch = stream.read(start + row)
        if chunk is None:
            chunk = jax.tree.map(lambda leaf: _memory((capacity, *leaf.shape), leaf.dtype), batch)
        jax.tree.map(lambda into, leaf, row=row: into.__setitem__(row, leaf), chunk, batch)
    return chunk


def _memory(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory of its own, which goes back to the system as soon as nothing uses it.

    glibc keeps what is freed of up to 32 MiB on its heap, which grows by hundreds of MiB where chunks overlap in time;
    above, it maps pages, of which those that nobody touches cost nothing. Aligned as the CPU device takes it uncopied.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    room = np.empty(max(size, MAPPED) + ALIGNED, np.uint8)
    first = -room.ctypes.data % ALIGNED
    return room[first : first + size].view(dtype).reshape(shape)


def from_indexable(source: Any, batch_size: int, *, names: tuple[str, ...] = ("x", "y"), seed: int = 0) -> Stream:
    """A stream of shuffled batches from anything with a length and an index: a PyTorch map dataset, a Grain dataset.

    Args:
      source: `source[i]` is example i: a dict of arrays, or a tuple of them, named by `names`. A list of numbers is one
        array, as in `Arrays`.
      batch_size: examples a batch; each epoch is a new permutation, its remainder left out.
      seed: of the permutations. Sets that fit into memory train faster as `Arrays`.

    Raises:
      InputError: no length or index, fewer examples than a batch; examples of unequal shapes.

    >>> pairs = [(np.float32(i), i % 2) for i in range(6)]
    >>> stream = from_indexable(pairs, 3)
    >>> sorted([*stream.read(0)["x"].tolist(), *stream.read(1)["x"].tolist()])
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise InputError(f"from_indexable: expected something with len() and [i], got {type(source).__name__}")
    if isinstance(source, Mapping | str | bytes) or hasattr(source, "columns"):
        advice = "Arrays(**columns) takes a dict of columns, and of a dict of splits one is to be picked"
        raise InputError(f"from_indexable: source[i] must be example i, got a {type(source).__name__}; {advice}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or not 1 <= batch_size <= len(source):
        raise InputError(f"from_indexable: batch_size {batch_size} does not fit {len(source)} examples")
    per_epoch = len(source) // batch_size

    @functools.lru_cache(2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(len(source))

    def batch_at(step: int) -> Batch:
        first = step % per_epoch * batch_size
        rows = order(step // per_epoch)[first : first + batch_size].tolist()
        return _joined([_example(source, row, names) for row in rows], rows)

    return Stream(batch_at)


def _example(source: Any, row: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Example `row` as a dict of trees of arrays."""
    try:
        example = _named(source[row], names)
        for name, value in example.items():
            if value is None:
                raise InputError(f"{name!r} is None; leave it out, or fill it")
        return {name: host_tree(value, str(name)) for name, value in example.items()}
    except InputError as error:
        raise InputError(f"from_indexable: example {row}: {error}") from None
    except Exception as error:
        error.add_note(f"while from_indexable read example {row}")
        raise


def _named(example: Any, names: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(example, Mapping):
        return dict(example)
    whole = isinstance(example, list) and all(isinstance(item, int | float | np.number) for item in example)
    if whole or not isinstance(example, tuple | list):
        return {names[0]: example}
    if len(example) != len(names):
        raise InputError(f"it has {len(example)} parts, and names are {names}")
    return dict(zip(names, example, strict=True))


def _joined(examples: list[dict[str, Any]], rows: list[int]) -> Batch:
    """Examples as one batch: those of equal entries and shapes."""
    shapes = [{tree_path(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(e)} for e in examples]
    for row, mine in zip(rows, shapes, strict=True):
        if mine != shapes[0]:
            raise InputError(
                f"from_indexable: examples must have equal shapes; example {rows[0]} is {_spelled(shapes[0])}, "
                f"example {row} is {_spelled(mine)}; pad them: fdl.data.pad"
            )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def _spelled(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
