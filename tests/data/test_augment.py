"""Augmentation: laws of each, and of their draws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl import losses
from fdl.data.augment import Augmentation, compose, crop, cutmix, cutout, flip, mixup, noise
from tests.compiling import QUICK

KEY = jax.random.key(3)
B, H, W, C, CLASSES = 64, 6, 8, 2, 5

# name -> factory by strength
EACH = {
    "cutmix probability": lambda s: cutmix(1.0, probability=s),
    "flip": lambda s: flip(s),
    "cutout": lambda s: cutout(4, probability=s),
    "cutout size": lambda s: cutout(4.0 * s),
    "mixup": lambda s: mixup(s),
    "mixup probability": lambda s: mixup(1.0, probability=s),
    "cutmix": lambda s: cutmix(s),
    "noise": lambda s: noise(s),
}


def images(dtype: str = "float32") -> dict[str, Any]:
    """Every pixel of every image is a number of its own, as far as the dtype goes; soft targets."""
    x = np.arange(B * H * W * C).reshape(B, H, W, C) % 251
    y = np.random.default_rng(0).dirichlet(np.ones(CLASSES), B).astype(np.float32)
    return {"x": jnp.asarray(x).astype(dtype), "y": jnp.asarray(y)}


def augmented(augmentation: Any, batch: Any, key: Any = KEY) -> dict[str, Any]:
    return jax.tree.map(np.asarray, jax.jit(augmentation, compiler_options=QUICK)(batch, key))


def bits(array: Any) -> bytes:
    return np.asarray(array).tobytes()


QUICKLY = [("flip", "float32"), ("cutout", "uint8"), ("mixup", "float32"), ("noise", "bfloat16")]
ROWS = [(name, dtype) for name in EACH for dtype in ("float32", "bfloat16", "uint8")]


@pytest.mark.parametrize(
    ("name", "dtype"), [row if row in QUICKLY else pytest.param(*row, marks=pytest.mark.slow) for row in ROWS]
)
def test_strength_0_is_the_input_to_the_bit_and_dtypes_stay(name, dtype):
    batch = images(dtype)
    if dtype == "float32":
        batch["x"] = batch["x"].at[0, 0, 0, 0].set(-0.0).at[1, 0, 0, 0].set(jnp.inf)

    def swept(batch, key):
        with jax.numpy_dtype_promotion("strict"):
            return jax.vmap(lambda s: EACH[name](s)(batch, key))(jnp.array([0.0, 0.7]))

    got = augmented(swept, batch)
    assert (bits(got["x"][0]), bits(got["y"][0])) == (bits(batch["x"]), bits(batch["y"]))
    assert got["x"].dtype == batch["x"].dtype
    assert bits(got["x"][1]) != bits(batch["x"])


def test_padding_0_is_the_input_to_the_bit():
    batch = images("uint8")
    assert bits(augmented(crop(0), batch)["x"]) == bits(batch["x"])


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_a_traced_strength_draws_what_a_python_float_does(name):
    """And the same key gives the same result."""
    batch = images()
    fixed = jax.jit(EACH[name](0.7), compiler_options=QUICK)
    first, again, other = fixed(batch, KEY), fixed(batch, KEY), fixed(batch, jax.random.key(4))
    assert bits(first["x"]) == bits(again["x"]) != bits(other["x"])
    traced = jax.jit(lambda s, batch, key: EACH[name](s)(batch, key), compiler_options=QUICK)(0.7, batch, KEY)
    np.testing.assert_allclose(traced["x"], first["x"], rtol=1e-6)
    # Mixup's share may round otherwise where alpha is folded into the program, and 1 - share keeps that rounding of 1.
    np.testing.assert_allclose(traced["y"], first["y"], rtol=1e-6, atol=float(np.finfo(np.float32).eps))


@pytest.mark.parametrize("axis", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_flip_twice_is_the_identity(axis):
    batch, always = images(), flip(1.0, axis=axis)
    once = augmented(always, batch)
    np.testing.assert_array_equal(once["x"], np.flip(batch["x"], axis))
    np.testing.assert_array_equal(augmented(always, once)["x"], batch["x"])


@pytest.mark.parametrize("probability", [0.1, pytest.param(0.5, marks=pytest.mark.slow)])
def test_flip_flips_as_often_as_it_says(probability):
    """Within 4 standard deviations of a binomial of 4000."""
    x = jnp.tile(jnp.arange(2.0).reshape(1, 1, 2, 1), (4000, 1, 1, 1))
    flipped = int((augmented(flip(probability), {"x": x})["x"][:, 0, 0, 0] == 1).sum())
    assert abs(flipped - 4000 * probability) < 4 * (4000 * probability * (1 - probability)) ** 0.5


def test_entries_that_go_together_are_flipped_and_cropped_together():
    x = images()["x"]
    batch = {"x": x, "mask": x[..., :1].astype(jnp.int32)}
    got = augmented(compose(flip(entry=("x", "mask")), crop(2, entry=("x", "mask"))), batch)
    np.testing.assert_array_equal(got["x"][..., :1].astype(np.int32), got["mask"])
    assert got["mask"].dtype == jnp.int32


@pytest.mark.parametrize(
    ("mode", "size"), [("constant", None), pytest.param("reflect", (3, 5), marks=pytest.mark.slow)]
)
def test_crop_is_a_window_of_the_padded_image(mode, size):
    """Each result is one of the possible windows; every corner is drawn, uniformly by a chi-squared test."""
    x, padding = np.arange(1.0, 4 * 6 * 2 + 1).reshape(1, 4, 6, 2), 2
    padded = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)], mode=mode)[0]
    height, width = size or (4, 6)
    corners = [(i, j) for i in range(8 - height + 1) for j in range(10 - width + 1)]
    windows = {padded[i : i + height, j : j + width].tobytes(): (i, j) for i, j in corners}
    assert len(windows) == len(corners)
    many = {"x": jnp.tile(jnp.asarray(x, jnp.float32), (6000, 1, 1, 1))}
    got = augmented(crop(padding, size=size, mode=mode), many)["x"].astype(np.float64)
    drawn = [windows[image.tobytes()] for image in got]
    expected = len(drawn) / len(corners)
    chi_squared = sum((drawn.count(corner) - expected) ** 2 / expected for corner in corners)
    assert chi_squared < len(corners) - 1 + 4 * (2 * (len(corners) - 1)) ** 0.5


def test_cutout_is_a_square_around_a_pixel():
    """Area, width and height of what is cut, and that the border cuts it off."""
    batch = {"x": jnp.ones((500, 9, 9, 2))}
    got = augmented(cutout(3, value=-2.0), batch)["x"]
    gone = got[..., 0] == -2
    np.testing.assert_array_equal(got[..., 0], got[..., 1])
    rows, columns = gone.any(2).sum(1), gone.any(1).sum(1)
    np.testing.assert_array_equal(gone.sum((1, 2)), rows * columns)
    assert set(rows) == set(columns) == {2, 3}  # a centre on the border loses one row
    assert gone.any(0).all()


@pytest.mark.parametrize("alpha", [0.1, pytest.param(1.0, marks=pytest.mark.slow)])
def test_mixup_is_convex_and_its_labels_say_how(alpha):
    """x is a line between two images, y its place on it; both come from one weight."""
    labels = jnp.arange(B, dtype=jnp.int32) % CLASSES
    one_hot = jax.nn.one_hot(labels, CLASSES, dtype=jnp.float32)
    x = one_hot.reshape(B, 1, CLASSES, 1)  # so that the image must become what the label becomes
    got = augmented(mixup(alpha, num_classes=CLASSES), {"x": x, "y": labels})
    np.testing.assert_array_equal(got["x"].reshape(B, CLASSES), got["y"])
    assert got["y"].dtype == jnp.float32
    np.testing.assert_allclose(got["y"].sum(-1), 1.0, atol=1e-6)
    assert ((got["y"] >= 0) & (got["y"] <= 1)).all()
    assert ((got["y"] > 0).sum(-1) <= 2).all()


@pytest.mark.slow
def test_mixup_weights_are_beta():
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1)), within 4 standard errors; and each example has its own."""
    size, alpha = 5000, 0.4
    batch = {"x": jnp.zeros((size, 1)), "y": jax.nn.one_hot(jnp.arange(size), size)}
    soft = augmented(mixup(alpha), batch)["y"]
    weight = np.diagonal(soft)[(soft > 0).sum(-1) == 2].astype(np.float64)
    assert len(set(weight)) > 0.95 * len(weight) > 0.9 * size
    assert abs(weight.mean() - 0.5) < 4 * weight.std() / len(weight) ** 0.5
    error = ((weight - 0.5) ** 2).std() / len(weight) ** 0.5
    assert abs(weight.var() - 0.25 / (2 * alpha + 1)) < 4 * error


@pytest.mark.slow
def test_tiny_alpha_stays_finite():
    """Beta(1e-4, 1e-4) is 0 or 1 but for rounding."""
    got = augmented(mixup(1e-4), images())
    assert np.isfinite(got["x"]).all()
    np.testing.assert_allclose(got["y"].sum(-1), 1.0, atol=1e-6)


def test_cutmix_label_weight_is_the_pasted_area_exactly():
    labels = jnp.arange(B, dtype=jnp.int32)  # each image holds its number everywhere
    x = jnp.broadcast_to(labels[:, None, None, None], (B, H, W, C)).astype(jnp.uint8)
    got = augmented(cutmix(1.0, num_classes=B), {"x": x, "y": labels})
    pixels, y = got["x"], got["y"]
    assert y.dtype == np.float32
    areas = []
    for i in range(B):
        np.testing.assert_array_equal(pixels[i, ..., 0], pixels[i, ..., 1])
        foreign = pixels[i, ..., 0] != i
        areas.append(int(foreign.sum()))
        assert foreign.any(1).sum() * foreign.any(0).sum() == areas[-1]  # a box
        partner = int(pixels[i, ..., 0][foreign][0]) if areas[-1] else i
        expected = np.zeros(B, np.float32)
        expected[partner] = np.float32(areas[-1] / (H * W))
        expected[i] = np.float32((H * W - areas[-1]) / (H * W))
        np.testing.assert_array_equal(y[i], expected)
    assert len(set(areas)) > 10


def test_noise_has_its_standard_deviation():
    got = augmented(noise(0.3), {"x": jnp.ones((100, 100))})["x"]
    assert abs(float(got.std()) / 0.3 - 1) < 4 / (2 * 10_000) ** 0.5
    assert abs(float(got.mean()) - 1) < 4 * 0.3 / 100


def test_integer_images_are_rounded_and_keep_their_range():
    x = jnp.asarray(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1))
    got = augmented(noise(20.0), {"x": x})["x"].astype(int)
    shift = got - np.asarray(x).astype(int)
    assert abs(shift).max() < 100  # 255 + 1 is 255 and not 0
    assert got.min() == 0
    assert got.max() == 255


@pytest.mark.slow
def test_mixed_integer_images_are_rounded():
    values = np.arange(0, 251, 10)
    half = augmented(mixup(1.0), {"x": values.astype(np.uint8), "y": values.astype(np.float32)})
    np.testing.assert_array_equal(half["x"], np.round(half["y"]))


def test_examples_draw_differently():
    """64 equal images become many different ones."""
    x = jnp.broadcast_to(jnp.arange(float(H * W)).reshape(1, H, W, 1), (B, H, W, 1))
    parts = {"crop": crop(2), "cutout": cutout(3), "noise": noise(0.1), "flip": flip()}
    drawn = augmented(lambda batch, key: {name: part(batch, key)["x"] for name, part in parts.items()}, {"x": x})
    kinds = {name: len({bits(image) for image in result}) for name, result in drawn.items()}
    assert kinds["noise"] == B
    assert kinds["crop"] > 15
    assert kinds["cutout"] > 30
    assert kinds["flip"] == 2


def test_leaving_one_out_does_not_change_the_others():
    batch = images()
    cropped = augmented(crop(2), batch)["x"]
    np.testing.assert_array_equal(augmented(compose(compose(flip(0.0)), crop(2)), batch)["x"], cropped)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EACH, "crop"])
def test_64_bits_are_kept(name):
    """Where JAX makes its indices and draws in 64 bits as well."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        batch = images("float64")
        got = augmented((EACH | {"crop": lambda s: crop(2)})[name](0.5), batch, jax.random.key(3))
        assert (got["x"].dtype, got["y"].dtype) == (np.float64, np.float32)


@pytest.mark.slow
def test_functions_compose_by_their_name():
    def shout(batch, key):
        return batch | {"x": batch["x"] + jax.random.normal(key, ())}

    batch = images()
    by_name = augmented(Augmentation("shout", shout), batch)["x"]
    np.testing.assert_array_equal(augmented(compose(flip(0.0), shout), batch)["x"], by_name)


def test_two_of_one_name_are_refused():
    """They would draw the same: of two flips in different directions, both or none."""
    with pytest.raises(fdl.InputError, match="2 parts are named 'flip'"):
        compose(flip(), flip(axis=1))
    compose(flip(), flip(axis=1, name="upside down"))


@pytest.mark.slow
def test_mixup_then_cutmix_keep_distributions_that_the_loss_takes():
    batch = {"x": images("bfloat16")["x"], "y": jnp.arange(B, dtype=jnp.int32) % CLASSES}
    both = compose(mixup(0.4, num_classes=CLASSES), cutmix(1.0, num_classes=CLASSES))
    got = augmented(both, batch)
    logits = np.random.default_rng(0).normal(size=(B, CLASSES)).astype(np.float32)
    loss = losses.softmax_cross_entropy_with_probabilities(logits, got["y"])  # checks range and sum
    assert np.isfinite(loss).all()
    assert got["x"].dtype == jnp.bfloat16


@pytest.mark.slow
def test_a_run_mixes_in_training_only():
    """Float targets from the start: one loss for both, and evaluation sees them unmixed."""
    digits = fdl.data.load("digits", split="test")
    data = fdl.data.Arrays(x=digits["x"].reshape(-1, 64), y=np.eye(10, dtype=np.float32)[digits["y"]])
    task = fdl.supervised(fdl.nn.Linear(64, 10), losses.softmax_cross_entropy_with_probabilities)
    settings: dict[str, Any] = {"evaluate": {"test": data}, "batch_size": 60, "num_steps": 2}
    experiment = fdl.Experiment(task, optax.sgd(0.0), data, augment=mixup(1.0), **settings)
    result = fdl.run(experiment, seed=0)
    logits = data["x"] @ np.asarray(result.params["kernel"]) + np.asarray(result.params["bias"])
    plain = losses.softmax_cross_entropy_with_probabilities(jnp.asarray(logits), jnp.asarray(data["y"])).mean()
    np.testing.assert_allclose(result.metrics["test/loss"], plain, rtol=1e-6)


@pytest.mark.slow
def test_a_traced_label_that_is_no_class_is_nan():
    batch = {"x": jnp.zeros((2, 3)), "y": jnp.array([0, 7])}
    got = augmented(mixup(1.0, num_classes=5, probability=0.0), batch)["y"]
    np.testing.assert_array_equal(np.isnan(got), [[False] * 5, [True] * 5])


BAD = {
    "probability must be in 0..1": lambda batch: flip(1.5),
    "stddev must be at least 0": lambda batch: noise(-1.0),
    "alpha must be at least 0": lambda batch: mixup(float("nan")),
    "padding must be at least 0": lambda batch: crop(-1),
    r"no window \[9, 9\]": lambda batch: crop(1, size=(9, 9))(batch, KEY),
    "no axis of an example": lambda batch: flip(axis=4)(batch, KEY),
    "no entry 'X'": lambda batch: noise(1.0, entry="X")(batch, KEY),
    r"expected x of shape \[B, H, W, C\]": lambda batch: crop(1)(batch | {"x": batch["x"][..., 0]}, KEY),
    "together with num_classes": lambda batch: mixup(1.0)(batch, KEY),
    r"label 6 at index 1 is outside 0\.\.4": lambda batch: cutmix(1.0, num_classes=5)(batch, KEY),
    "has no __name__": lambda batch: compose(noise(1.0), jnp.ones(1)),  # pyright: ignore
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    batch = {"x": jnp.zeros((2, 4, 4, 1)), "y": jnp.array([0, 6])}
    with pytest.raises(fdl.InputError, match=message):
        BAD[message](batch)
