"""Augmentation on the device: pure functions `(batch, key) -> batch`, for `fdl.Experiment(augment=...)`.

    augment = compose(flip(), crop(4), cutout(8), mixup(0.2, num_classes=10))

A batch is a dict; images are [B, H, W, C] in `batch["x"]` and labels in `batch["y"]` unless told otherwise, and entries
that are not named pass through. Every example draws for itself, and every augmentation from the key folded with its own
name, so that leaving one out does not change what the others draw. Strengths may be traced (swept); strength 0 gives
the input to the bit. All of it compiles into the training step, with fixed shapes and no loop over examples.

The dtype of images is kept. Where values are computed (`mixup`, `noise`), that is done in float32 (or wider), and
integer images (8 and 16 bits) are rounded to the nearest value within their range.

`mixup` and `cutmix` change the labels. Integers [B] become probabilities, float32 [B, num_classes], for
`fdl.losses.softmax_cross_entropy_with_probabilities`; floats (regression targets, labels that are soft already) are
mixed as they are. Evaluation is not augmented and would still see integers, so give the data its probabilities from the
start, `Arrays(x=x, y=np.eye(10, dtype=np.float32)[labels])`, or take a loss for both kinds:

    def loss(logits, y):
        kind = losses.softmax_cross_entropy if y.ndim == 1 else losses.softmax_cross_entropy_with_probabilities
        return kind(logits, y)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fdl.core import fold
from fdl.data.permutation import permutation
from fdl.errors import InputError, did_you_mean
from fdl.losses.contract import class_numbers, option
from fdl.ops.norm import widen
from fdl.shapes import expect

Batch = dict[str, Any]


@dataclass(frozen=True)
class Augmentation:
    """`(batch, key) -> batch` with a name, which is folded into the key.

    Args:
      name: unlike those of its neighbours in `compose`: the same name draws the same.
      function: (batch, key) -> batch.
    """

    name: str
    function: Callable[[Batch, jax.Array], Batch]

    def __call__(self, batch: Batch, key: jax.Array) -> Batch:
        return self.function(batch, fold(key, self.name))


@dataclass(frozen=True)
class Composed:
    """One augmentation after the other; what `compose` makes."""

    parts: tuple[Augmentation, ...]

    def __call__(self, batch: Batch, key: jax.Array) -> Batch:
        for part in self.parts:
            batch = part(batch, key)
        return batch


def compose(*parts: Callable[[Batch, jax.Array], Batch]) -> Composed:
    """One augmentation after the other, each with draws of its own that depend on the key and its name alone.

    Args:
      parts: augmentations, compositions of them, or functions (batch, key) -> batch, whose name is their `__name__`.

    Raises:
      InputError: two parts of one name, whose draws would be the same; a part without a name.

    >>> both = compose(flip(), flip(axis=1, name="upside down"))
    >>> batch = both({"x": jnp.ones((2, 4, 4, 1))}, jax.random.key(0))
    """
    flat: list[Augmentation] = []
    for part in parts:
        flat += part.parts if isinstance(part, Composed) else [_named(part)]
    names = [part.name for part in flat]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"compose: {names.count(name)} parts are named {name!r} and would draw the same; "
                f"give one another name: {name}(..., name='another')"
            )
    return Composed(tuple(flat))


def flip(
    probability: ArrayLike = 0.5, *, axis: int = 2, entry: str | Sequence[str] = "x", name: str = "flip"
) -> Augmentation:
    """Mirrors each example with the given probability.

    Args:
      probability: in 0..1; may be traced.
      axis: of the batch: 2 swaps left and right of an image, 1 turns it upside down.
      entry: the images, or several entries that are flipped together (an image and its segmentation).

    Raises:
      InputError: a probability outside 0..1; an axis that the entry has not; no such entry.

    >>> flip(1.0)({"x": jnp.array([[[[1.0], [2.0]]]])}, jax.random.key(0))["x"].tolist()
    [[[[2.0], [1.0]]]]
    """
    probability = option(name, "probability", probability, "in 0..1", jnp.float32)

    def apply(batch: Batch, key: jax.Array) -> Batch:
        entries = _entries(name, batch, entry)
        for which, x in entries.items():
            if not 1 <= axis < x.ndim:
                raise InputError(f"{name}: axis {axis} is no axis of an example of {which!r} {list(x.shape)}")
        chosen = jax.random.bernoulli(key, probability, next(iter(entries.values())).shape[:1])
        flipped = {which: jnp.where(_column(chosen, x), jnp.flip(x, axis), x) for which, x in entries.items()}
        return batch | flipped

    return Augmentation(name, apply)


def crop(
    padding: int,
    *,
    size: tuple[int, int] | None = None,
    mode: str = "constant",
    entry: str | Sequence[str] = "x",
    name: str = "crop",
) -> Augmentation:
    """A window at a random place of each padded image: with the size of the image, a shift by up to `padding` pixels.

    Args:
      padding: pixels added on all four sides.
      size: (height, width) of the window; None = that of the image.
      mode: what is added: "constant" (zeros), "edge", "reflect", ... as in `jnp.pad`.
      entry: images [B, H, W, C], or several entries, of one height and width, that are cropped together.

    Raises:
      InputError: padding below 0, a window larger than the padded image, entries that are no images.

    torchvision: `RandomCrop(size, padding)`.
    """
    if padding < 0:
        raise InputError(f"{name}: padding must be at least 0, got {padding}")

    def apply(batch: Batch, key: jax.Array) -> Batch:
        images = _images(name, batch, entry)
        examples, *old = next(iter(images.values())).shape[:3]
        new = tuple(old) if size is None else size
        room = [have + 2 * padding - want for have, want in zip(old, new, strict=True)]
        if min(room) < 0 or min(new) < 1:
            raise InputError(f"{name}: no window {list(new)} in images {old} with padding {padding}")
        corners = [
            jax.random.randint(fold(key, which), [examples], 0, most + 1, jnp.int32)
            for which, most in zip(("row", "column"), room, strict=True)
        ]
        return batch | {which: _windows(x, padding, mode, corners, new) for which, x in images.items()}

    return Augmentation(name, apply)


def cutout(
    size: ArrayLike, *, probability: ArrayLike = 1.0, value: float = 0.0, entry: str = "x", name: str = "cutout"
) -> Augmentation:
    """A square of each image replaced by one value. Its centre is any pixel, so that it may reach beyond the border.

    Args:
      size: its side in pixels; 0 = no square. May be traced, and a float is rounded down.
      probability: how often an image gets a square; may be traced.
      value: what is put there; in images of mean 0 that is 0.
      entry: images [B, H, W, C].

    Raises:
      InputError: size below 0, a probability outside 0..1, entries that are no images.

    Reference: DeVries & Taylor, Improved regularization of convolutional neural networks with Cutout, 2017. Their
    code takes an odd size for the even one below it.
    """
    side = option(name, "size", size, "at least 0", jnp.int32)
    probability = option(name, "probability", probability, "in 0..1", jnp.float32)

    def apply(batch: Batch, key: jax.Array) -> Batch:
        (x,) = _images(name, batch, entry).values()
        chosen = jax.random.bernoulli(fold(key, "chosen"), probability, x.shape[:1])
        inside = _boxes(key, x.shape, side, side) & chosen[:, None, None]
        return batch | {entry: jnp.where(inside[..., None], jnp.asarray(value).astype(x.dtype), x)}

    return Augmentation(name, apply)


def mixup(
    alpha: ArrayLike,
    *,
    num_classes: int | None = None,
    probability: ArrayLike = 1.0,
    entry: str = "x",
    targets: str = "y",
    name: str = "mixup",
) -> Augmentation:
    """x = w x_i + (1 - w) x_j and y = w y_i + (1 - w) y_j with w ~ Beta(alpha, alpha); j is a permutation of the batch.

    Args:
      alpha: at least 0; 0 mixes nothing, 1 draws w uniformly. May be traced.
      num_classes: C, needed where the targets are integers.
      probability: how often an example is mixed; may be traced.
      entry: numbers of any shape [B, ...].
      targets: integers [B], which become float32 [B, C] whose rows have sum 1 (NaN for a traced label that is no
        class), or floats [B, ...], which stay in their dtype.

    Raises:
      InputError: alpha below 0, a probability outside 0..1, targets that do not fit, labels out of range.

    Reference: Zhang et al., mixup: beyond empirical risk minimization, 2018. Their code draws one w a batch, this one
    an example.
    """
    alpha = option(name, "alpha", alpha, "at least 0", jnp.float32)
    probability = option(name, "probability", probability, "in 0..1", jnp.float32)

    def apply(batch: Batch, key: jax.Array) -> Batch:
        (x,) = _entries(name, batch, entry).values()
        y = _mixable_targets(name, batch, targets, num_classes)
        partner = permutation(fold(key, "partner"), x.shape[0])
        weight = _beta(key, alpha, probability, x.shape[0])
        mixed = {
            which: _mixed(name, weight, 1.0 - weight, old, old[partner]) for which, old in ((entry, x), (targets, y))
        }
        return batch | mixed

    return Augmentation(name, apply)


def cutmix(
    alpha: ArrayLike,
    *,
    num_classes: int | None = None,
    probability: ArrayLike = 1.0,
    entry: str = "x",
    targets: str = "y",
    name: str = "cutmix",
) -> Augmentation:
    """A box of another image pasted at the same place, and y = w y_i + (1 - w) y_j, 1 - w the part of the area pasted.

    With v ~ Beta(alpha, alpha) the box has sides floor(H sqrt(1 - v)) and floor(W sqrt(1 - v)) and any pixel for its
    centre; what reaches beyond the border is cut off, and w is the part of the pixels that is left, counted.

    Args:
      alpha: at least 0; 0 pastes nothing; the paper's is 1. May be traced.
      num_classes, probability, targets: as in `mixup`.
      entry: images [B, H, W, C].

    Raises:
      InputError: as `mixup`; entries that are no images.

    Reference: Yun et al., CutMix: regularization strategy to train strong classifiers, 2019, section 3.1. Their code
    draws one box a batch, this one an image.
    """
    alpha = option(name, "alpha", alpha, "at least 0", jnp.float32)
    probability = option(name, "probability", probability, "in 0..1", jnp.float32)

    def apply(batch: Batch, key: jax.Array) -> Batch:
        (x,) = _images(name, batch, entry).values()
        y = _mixable_targets(name, batch, targets, num_classes)
        examples, height, width = x.shape[:3]
        partner = permutation(fold(key, "partner"), examples)
        side = jnp.sqrt(1.0 - _beta(key, alpha, probability, examples))
        heights, widths = (jnp.floor(side * size).astype(jnp.int32) for size in (height, width))
        inside = _boxes(key, x.shape, heights, widths)
        # Hidden: XLA would multiply by the rounded reciprocal of a constant; and 1 - pasted would be rounded twice.
        area = jax.lax.optimization_barrier(jnp.float32(height * width))
        kept, pasted = (part.sum((1, 2)).astype(jnp.float32) / area for part in (~inside, inside))
        mixed = jnp.where(inside[..., None], x[partner], x)
        return batch | {entry: mixed, targets: _mixed(name, kept, pasted, y, y[partner])}

    return Augmentation(name, apply)


def noise(stddev: ArrayLike, *, entry: str = "x", name: str = "noise") -> Augmentation:
    """x + stddev * n, n ~ N(0, 1) for every number.

    Args:
      stddev: at least 0, in the units of x; may be traced.
      entry: numbers of any shape [B, ...].

    Raises:
      InputError: stddev below 0; no such entry.
    """
    stddev = option(name, "stddev", stddev, "at least 0", jnp.float32)

    def apply(batch: Batch, key: jax.Array) -> Batch:
        (x,) = _entries(name, batch, entry).values()
        wide = widen(x)
        noisy = wide + stddev.astype(wide.dtype) * jax.random.normal(key, x.shape, wide.dtype)
        # where(): the sum would turn -0.0 into 0.0
        return batch | {entry: jnp.where(stddev == 0.0, x, _narrowed(name, noisy, x.dtype))}

    return Augmentation(name, apply)


def _named(part: Callable[[Batch, jax.Array], Batch]) -> Augmentation:
    if isinstance(part, Augmentation):
        return part
    name = getattr(part, "__name__", None)
    if name is None:
        raise InputError(f"compose: {part!r} has no __name__ to fold into its key; use Augmentation(name, function)")
    return Augmentation(name, part)


def _entries(where: str, batch: Batch, names: str | Sequence[str]) -> dict[str, jax.Array]:
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in batch:
            raise InputError(f"{where}: the batch has no entry {name!r}{did_you_mean(name, batch)}")
    return {name: jnp.asarray(batch[name]) for name in names}


def _images(where: str, batch: Batch, names: str | Sequence[str]) -> dict[str, jax.Array]:
    images = _entries(where, batch, names)
    for name, x in images.items():
        expect(where, x, "[B, H, W, C]", name)
    sizes = {name: x.shape[:3] for name, x in images.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"{where}: entries that go together need one [B, H, W], got {sizes}")
    return images


def _mixable_targets(where: str, batch: Batch, name: str, num_classes: int | None) -> jax.Array:
    """Floats as they are, integer labels as float32 [B, C]."""
    (y,) = _entries(where, batch, name).values()
    if jnp.issubdtype(y.dtype, jnp.floating):
        return y
    if num_classes is None or y.ndim != 1 or not jnp.issubdtype(y.dtype, jnp.integer):
        raise InputError(
            f"{where}: expected {name!r} as integers [B] together with num_classes, or as floats, got "
            f"{y.dtype}{list(y.shape)} and num_classes={num_classes}"
        )
    chosen = class_numbers(where, batch[name], num_classes)
    # A row of zeros would be a loss of 0 for a label that is no class.
    return jnp.where(chosen.outside[:, None], jnp.nan, chosen.one_hot(num_classes).astype(jnp.float32))


def _column(values: jax.Array, x: jax.Array) -> jax.Array:
    """[B] as [B, 1, ..., 1] with as many axes as x."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def _windows(x: jax.Array, padding: int, mode: str, corners: Sequence[jax.Array], size: Sequence[int]) -> jax.Array:
    padded = jnp.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)], mode=mode)
    window = (*size, x.shape[-1])

    def cut(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (row, column, jnp.zeros_like(row)), window)

    return jax.vmap(cut)(padded, *corners)


def _boxes(key: jax.Array, shape: Sequence[int], heights: jax.Array, widths: jax.Array) -> jax.Array:
    """[B, H, W]: True in a box of that size around a random pixel, as far as it is in the image."""
    examples, height, width = shape[:3]
    rows = _interval(fold(key, "row"), examples, height, heights)
    columns = _interval(fold(key, "column"), examples, width, widths)
    return rows[:, :, None] & columns[:, None, :]


def _interval(key: jax.Array, examples: int, size: int, lengths: jax.Array) -> jax.Array:
    """[B, size]: True in an interval of that length around a random position."""
    lengths = jnp.broadcast_to(lengths, [examples])
    start = jax.random.randint(key, [examples], 0, size, jnp.int32) - lengths // 2
    position = jnp.arange(size, dtype=jnp.int32)
    return (position >= start[:, None]) & (position < (start + lengths)[:, None])


def _beta(key: jax.Array, alpha: jax.Array, probability: jax.Array, examples: int) -> jax.Array:
    """w ~ Beta(alpha, alpha), one an example; 1 where it is not chosen, and everywhere for alpha 0."""
    positive = jnp.where(alpha > 0.0, alpha, 1.0)
    weight = jax.random.beta(fold(key, "weight"), positive, positive, [examples], jnp.float32)
    chosen = jax.random.bernoulli(fold(key, "chosen"), probability, [examples])
    return jnp.where(chosen & (alpha > 0.0), weight, 1.0)


def _mixed(where: str, weight: jax.Array, rest: jax.Array, x: jax.Array, other: jax.Array) -> jax.Array:
    """weight x + rest other, in the dtype of x; x itself where its weight is 1."""
    wide = widen(x)
    weight, rest = (_column(each, x).astype(wide.dtype) for each in (weight, rest))
    mixed = weight * wide + rest * widen(other)
    # where(): 0 * inf is NaN, and -0.0 + 0.0 is 0.0
    return jnp.where(weight == 1.0, x, _narrowed(where, mixed, x.dtype))


def _narrowed(where: str, values: jax.Array, dtype: Any) -> jax.Array:
    """Computed values in the dtype of the images."""
    if jnp.issubdtype(dtype, jnp.floating):
        return values.astype(dtype)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise InputError(f"{where}: expected numbers to compute with, got {dtype}")
    limits = jnp.iinfo(dtype)
    return jnp.clip(jnp.round(values), float(limits.min), float(limits.max)).astype(dtype)
