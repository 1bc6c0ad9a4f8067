"""What a loss refuses, in words that say what to do; and what a trace cannot refuse is NaN, never a number."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import losses
from fdl.errors import InputError

X, Y = jnp.zeros((4, 3)), np.array([0, 1, 2, 1])
HALF = jnp.full((4, 2), 0.5)
CTC = (jnp.zeros((2, 5, 3)), np.array([[1, 2], [1, 0]]), np.array([5, 4]), np.array([2, 1]))


def ctc(position: int, value):
    arguments: list[Any] = [*CTC[:position], value, *CTC[position + 1 :]]
    return lambda: losses.ctc_loss(*arguments)


REFUSED = {
    "targets (B, 1)": (
        lambda: losses.squared_error(X[:, 0], X[:, :1]),
        ["squared_error", "predictions [4]", "targets [4, 1]", "drop the last axis of the targets: y[..., 0]"],
    ),
    "predictions (B, 1)": (
        lambda: losses.huber_loss(X[:, :1], X[:, 0]),
        ["huber_loss", "drop the last axis of the predictions: y[..., 0]"],
    ),
    "transposed": (lambda: losses.absolute_error(X, X.T), ["[4, 3]", "[3, 4]", "axes in another order?"]),
    "a row against a batch": (lambda: losses.log_cosh(X, X[0]), ["predictions [4, 3] and targets [3]"]),
    "integers for predictions": (
        lambda: losses.squared_error(Y, Y.astype(np.float32)),
        ["expected predictions of floats, got int32[4]", "swapped?"],
    ),
    "swapped logits and labels": (lambda: losses.sigmoid_binary_cross_entropy(Y % 2, X[:, 0]), ["swapped?"]),
    "delta 0": (lambda: losses.huber_loss(X, X, delta=0.0), ["huber_loss: delta must be above 0, got 0.0"]),
    "gaussian shapes": (lambda: losses.gaussian_nll(X, X[:, :1], X), ["means [4, 3] and log_variances [4, 1]"]),
    "negative counts": (lambda: losses.poisson_nll(X[:, 0], Y - 1), ["target -1 at index 0", "0..inf"]),
    "one-hot integers": (
        lambda: losses.softmax_cross_entropy(X, np.eye(3, dtype=int)[Y]),
        ["need labels [4], got [4, 3]", "labels.argmax(-1)", "softmax_cross_entropy_with_probabilities"],
    ),
    "labels (B, 1)": (lambda: losses.softmax_focal_loss(X, Y[:, None]), ["labels[..., 0]"]),
    "float labels": (
        lambda: losses.softmax_cross_entropy(X, Y.astype(np.float32)),
        ["expected integers, got float32"],
    ),
    "boolean labels": (lambda: losses.softmax_cross_entropy(X, Y > 0), ["expected integers, got bool"]),
    "classes first": (
        lambda: losses.softmax_cross_entropy(jnp.zeros((4, 3, 6)), np.zeros((4, 6), int)),
        ["jnp.moveaxis(logits, 1, -1)"],
    ),
    "label == C": (lambda: losses.softmax_cross_entropy(X, Y + 1), ["label 3 at index 2 is outside 0..2"]),
    "label -1": (lambda: losses.multiclass_hinge_loss(X, Y - 1), ["label -1 at index 0 is outside 0..2"]),
    "another label than the ignored one": (
        lambda: losses.softmax_cross_entropy(X, np.array([0, -100, -1, 2]), ignore_label=-100),
        ["label -1 at index 2"],
    ),
    "uint8 255": (
        lambda: losses.softmax_cross_entropy(X, np.array([0, 255, 1, 2], np.uint8), ignore_label=-100),
        ["label 255 at index 1"],
    ),
    "ignore_label True": (lambda: losses.softmax_cross_entropy(X, Y, ignore_label=True), ["got True"]),
    "ignore_label 0.5": (lambda: losses.softmax_cross_entropy(X, Y, ignore_label=0.5), ["got 0.5"]),  # pyright: ignore
    "no classes": (
        lambda: losses.softmax_cross_entropy(jnp.zeros((4, 0)), Y),
        ["last axis of logits holds the classes, got logits of shape [4, 0]"],
    ),
    "scalar logits": (lambda: losses.softmax_cross_entropy(jnp.float32(1), jnp.array(0)), ["of shape []"]),
    "smoothing 1.5": (
        lambda: losses.softmax_cross_entropy(X, Y, label_smoothing=1.5),
        ["label_smoothing must be in 0..1, got 1.5"],
    ),
    "smoothing NaN": (lambda: losses.softmax_cross_entropy(X, Y, label_smoothing=float("nan")), ["got nan"]),
    "class numbers for probabilities": (
        lambda: losses.softmax_cross_entropy_with_probabilities(X, Y),
        ["expected [4, 3], got [4]", "class numbers go to softmax_cross_entropy"],
    ),
    "multi-hot probabilities": (
        lambda: losses.softmax_cross_entropy_with_probabilities(X, np.array([[1, 0, 0]] * 3 + [[0, 1, 1]])),
        ["probabilities at index 3 have sum 2", "sigmoid_binary_cross_entropy"],
    ),
    "one-hot of a label out of range": (
        lambda: losses.softmax_cross_entropy_with_probabilities(X, jax.nn.one_hot(Y + 1, 3)),
        ["probabilities at index 2 have sum 0, expected 1"],
    ),
    "logits for probabilities": (
        lambda: losses.softmax_cross_entropy_with_probabilities(X, X + 2.0),
        ["probability 2.0 at index (0, 0) is outside 0..1"],
    ),
    "binary labels of 2": (lambda: losses.sigmoid_binary_cross_entropy(X[:, 0], Y), ["label 2 at index 2"]),
    "NaN labels": (
        lambda: losses.sigmoid_binary_cross_entropy(X[:, 0], np.array([0, np.nan, 1, 0])),
        ["label nan at index 1"],
    ),
    "positive_weight of another size": (
        lambda: losses.sigmoid_binary_cross_entropy(X, X, positive_weight=jnp.ones(4)),
        ["one per class, [3], got [4]"],
    ),
    "negative positive_weight": (
        lambda: losses.sigmoid_binary_cross_entropy(X, X, positive_weight=-1.0),
        ["positive_weight must be at least 0, got -1.0"],
    ),
    "gamma -1": (lambda: losses.sigmoid_focal_loss(X, X, gamma=-1.0), ["gamma must be at least 0"]),
    "alpha 2": (lambda: losses.sigmoid_focal_loss(X, X, alpha=2.0), ["alpha must be in 0..1"]),
    "probabilities for log-probabilities": (
        lambda: losses.kl_divergence(HALF, HALF),
        ["log_predictions holds 0.5 at (0, 0)", "jax.nn.log_softmax(logits)"],
    ),
    "log-targets for targets": (
        lambda: losses.kl_divergence(jnp.log(HALF), jnp.log(HALF)),
        ["target -0.69", "outside 0"],
    ),
    "targets for log-targets": (
        lambda: losses.kl_divergence_with_log_targets(jnp.log(HALF), HALF),
        ["log_targets holds 0.5"],
    ),
    "no dimensions": (
        lambda: losses.standard_normal_kl_divergence(X[:, :0], X[:, :0]),
        ["holds the dimensions", "[4, 0]"],
    ),
    "labels 0 and 1 for signs": (
        lambda: losses.hinge_loss(X[:, 0], Y % 2),
        ["labels are -1 or 1, got 0 at (0,)", "2 * labels - 1"],
    ),
    "signs of 2": (lambda: losses.hinge_loss(X[:, 0], Y + 1), ["got 2 at (1,)"]),
    "cosine shapes": (lambda: losses.cosine_distance(X, X[:1]), ["predictions [4, 3] and targets [1, 3]"]),
    "triplet shapes": (lambda: losses.triplet_margin_loss(X, X, X[:2]), ["anchors [4, 3] and negatives [2, 3]"]),
    "negative margin": (lambda: losses.triplet_margin_loss(X, X, X, margin=-1.0), ["margin must be at least 0"]),
    "views of one axis": (lambda: losses.nt_xent(X[0], X[0]), ["expected two views [B, D], got [3]"]),
    "temperature 0": (lambda: losses.nt_xent(X, X, temperature=0.0), ["temperature must be above 0"]),
    "a mask of numbers": (lambda: losses.nt_xent(X, X, mask=jnp.ones(4)), ["4 booleans, got float32[4]"]),
    "a mask of another size": (lambda: losses.nt_xent(X, X, mask=np.ones(3, bool)), ["4 booleans, got bool[3]"]),
    "no pixels": (lambda: losses.sigmoid_dice_loss(X[:, 0], X[:, 0]), ["[B, ...]", "[4]"]),
    "softmax without pixels": (lambda: losses.softmax_dice_loss(X, Y), ["[B, ..., C]", "[4, 3]"]),
    "smooth 0": (lambda: losses.sigmoid_dice_loss(X, X, smooth=0.0), ["smooth must be above 0"]),
    "class weights of another size": (
        lambda: losses.softmax_dice_loss(X[None], Y[None], class_weights=jnp.ones(2)),
        ["class_weights of shape [3], got [2]"],
    ),
    "class weights all 0": (
        lambda: losses.softmax_dice_loss(X[None], Y[None], class_weights=jnp.zeros(3)),
        ["sum of class_weights must be above 0"],
    ),
    "label_weight of floats": (lambda: losses.label_weight(X[:, 0]), ["expected integers"]),
    "label_weight out of range": (
        lambda: losses.label_weight(Y, class_weights=jnp.ones(2)),
        ["label 2 at index 2 is outside 0..1"],
    ),
    "time first": (ctc(0, jnp.zeros((5, 2, 3))), ["B=2", "[5, 2, 3]", "jnp.swapaxes(logits, 0, 1)"]),
    "no frames": (ctc(0, jnp.zeros((2, 0, 3))), ["T > 0", "[2, 0, 3]"]),
    "flat labels": (ctc(1, np.array([1, 2])), ["labels [B, N]", "[2]"]),
    "the blank as a label": (ctc(1, np.array([[1, 0], [1, 2]])), ["label 0 at (0, 1) is the blank"]),
    "a label that is no class": (ctc(1, np.array([[1, 3], [1, 2]])), ["label 3 at index (0, 1)"]),
    "frames past the end": (ctc(2, np.array([5, 6])), ["logit length 6 at index 1 is outside 0..5"]),
    "labels past the end": (ctc(3, np.array([3, 1])), ["label length 3 at index 0 is outside 0..2"]),
    "paddings for lengths": (ctc(2, np.zeros((2, 5))), ["logit_lengths of shape [2]", "(1 - p).sum(-1)"]),
    "float lengths": (ctc(2, np.array([5.0, 4.0])), ["logit_lengths are counts", "float"]),
    "a blank that is no class": (lambda: losses.ctc_loss(*CTC, blank=3), ["blank 3 is outside 0..2"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_likely_fix(name):
    call, fragments = REFUSED[name]
    with pytest.raises(InputError) as error:
        call()
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize(
    "loss", [losses.softmax_cross_entropy, losses.softmax_focal_loss, losses.multiclass_hinge_loss]
)
def test_a_traced_label_out_of_range_is_nan_with_gradient_zero(loss):
    """Optax takes -1 for the last class and lets the gradient of label C through."""
    labels = jnp.array([0, -1, 3, 2])
    logits = jax.random.normal(jax.random.key(0), (4, 3))
    compiled = jax.jit(jax.value_and_grad(lambda z, y: (loss(z, y).sum(), loss(z, y)), has_aux=True))
    (_, value), gradient = compiled(logits, labels)
    assert np.isnan(value).tolist() == [False, True, True, False]
    assert (np.abs(gradient).sum(1) > 0).tolist() == [True, False, False, True]


TRACED = {
    "label C": (1, [[1, 3], [1, 0]]),
    "label -1": (1, [[-1, 1], [1, 0]]),
    "blank": (1, [[1, 0], [1, 0]]),
    "frames": (2, [6, 4]),
    "negative frames": (2, [-1, 4]),
    "labels": (3, [3, 1]),
}


@pytest.mark.parametrize("name", TRACED)
def test_what_ctc_cannot_refuse_in_a_trace_is_nan(name):
    position, value = TRACED[name]
    arrays = [*CTC[:position], np.array(value), *CTC[position + 1 :]]
    loss = jax.jit(losses.ctc_loss, compiler_options={"xla_backend_optimization_level": 0})(*arrays)
    assert np.isnan(loss).tolist() == [True, False]


def test_a_traced_label_that_is_no_class_has_no_dice_loss():
    logits, labels = jnp.zeros((2, 4, 3)), np.array([[0, 1, 2, 3], [0, 1, 2, 2]])
    assert np.isnan(jax.jit(losses.softmax_dice_loss)(logits, labels)).tolist() == [True, False]


def test_products_are_not_left_to_the_accelerator():
    """A matrix product defaults to bfloat16 on TPUs and TF32 on GPUs: every one must ask for more, gradients too."""
    contrastive = jax.make_jaxpr(jax.grad(lambda x: losses.nt_xent(x, x).sum()))(X)
    alignment = jax.make_jaxpr(jax.grad(lambda z: losses.ctc_loss(z, *CTC[1:]).sum()))(CTC[0])
    for program in (str(contrastive), str(alignment)):
        products = [rest[: rest.index("preferred")] for rest in program.split("dot_general[")[1:]]
        assert len(products) >= 2
        assert all("Precision.HIGHEST" in product for product in products)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint32])
def test_labels_of_any_integer_type(dtype):
    logits = jax.random.normal(jax.random.key(0), (4, 3))
    assert losses.softmax_cross_entropy(logits, Y.astype(dtype)).tolist() == (
        losses.softmax_cross_entropy(logits, Y).tolist()
    )


def test_the_weight_takes_ignored_labels_out_of_the_mean():
    labels = np.array([0, -1, 2, 1])
    logits = jax.random.normal(jax.random.key(0), (4, 3))
    loss = losses.softmax_cross_entropy(logits, labels, ignore_label=-1)
    weight = losses.label_weight(labels, -1)
    kept = losses.softmax_cross_entropy(logits[np.array([0, 2, 3])], labels[labels >= 0])
    np.testing.assert_allclose((loss * weight).sum() / weight.sum(), kept.mean(), rtol=1e-6)
    assert weight.dtype == jnp.float32


def test_the_weight_of_a_traced_label_that_is_no_class_is_nan():
    """A weight of 0 would hide the NaN of its loss."""
    weight = jax.jit(lambda y: losses.label_weight(y, -1, class_weights=jnp.array([0.0, 2.0])))(
        jnp.array([0, 1, 2, -1])
    )
    np.testing.assert_array_equal(weight, [0.0, 2.0, np.nan, 0.0])


def test_ctc_weight_is_where_a_path_exists():
    labels = np.array([[1, 1, 1], [1, 2, 1], [1, 1, 9], [2, 2, 2]])
    counts = np.array([3, 3, 2, 0])
    assert losses.ctc_weight(labels, np.array([5, 3, 3, 0]), counts).tolist() == [1, 1, 1, 1]
    assert losses.ctc_weight(labels, np.array([4, 2, 2, 0]), counts).tolist() == [0, 0, 0, 1]
