"""A target that is invalid is an error where it can be seen, and NaN in a trace: one law for every loss.

A row of the table is a loss as a function of predictions and targets, valid arrays for both, and the kind of the
targets, which says what is invalid. Row 1 of the targets becomes invalid; the other rows must not notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import losses
from fdl.errors import InputError
from tests.compiling import QUICK
from tests.losses.test_laws import HELPERS

NAN, INF = float("nan"), float("inf")
CLASSES = 3
INVALID: dict[str, list[Any]] = {
    "class": [-1, CLASSES, -100, 2**31 - 1],
    "binary": [-0.5, 1.5, 2.0, NAN, INF, -INF],
    "sign": [0.0, 0.5, 2.0, NAN, INF],
    "count": [-1.0, -0.5, NAN, INF],
    "share": [-0.5, 1.5, NAN, INF],
    "distribution": [[-0.5, 1.5, 0.0], [0.2, 0.2, 0.2], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [NAN, 0.5, 0.5]],
    "logarithm": [0.5, NAN, INF],
    "real": [NAN, INF, -INF],
}
"""What a trace turns into NaN. Reals have no range: a loss of one that is not finite is not finite, eagerly as well."""


class Law(NamedTuple):
    """A loss of predictions and targets, valid ones of both, and the kind of the targets."""

    kind: str
    loss: Callable[[Any, Any], jax.Array]
    predictions: Any
    targets: Any
    coupled: bool = False


RANDOM = np.random.default_rng(1)
REAL = RANDOM.normal(size=(3, 4)).astype(np.float32)
OTHER = RANDOM.normal(size=(3, 4)).astype(np.float32)
LOGITS = RANDOM.normal(size=(3, 2, CLASSES)).astype(np.float32)
LOGS = np.asarray(jax.nn.log_softmax(LOGITS))
SHARES = np.asarray(jax.nn.softmax(LOGITS[::-1]))
LABELS = np.array([[0, 2], [1, 1], [2, 0]], np.int32)
BITS = np.array([[0, 1, 1, 0]] * 3, np.float32)
COUNTS = np.array([[0, 3, 1, 2]] * 3, np.float32)
FRAMES, LETTERS = np.array([5, 5, 4], np.int32), np.array([2, 1, 2], np.int32)
CTC = RANDOM.normal(size=(3, 5, CLASSES)).astype(np.float32)
SPELLED = np.array([[1, 2], [1, 0], [2, 1]], np.int32)
WEIGHTS = np.array([1.0, 0.0, 2.0], np.float32)

LAWS = {
    "squared_error": Law("real", losses.squared_error, REAL, OTHER),
    "absolute_error": Law("real", losses.absolute_error, REAL, OTHER),
    "huber_loss": Law("real", losses.huber_loss, REAL, OTHER),
    "log_cosh": Law("real", losses.log_cosh, REAL, OTHER),
    "gaussian_nll": Law("real", lambda z, y: losses.gaussian_nll(z, 0.5 * z, y), REAL, OTHER),
    "poisson_nll": Law("count", losses.poisson_nll, REAL, COUNTS),
    "softmax_cross_entropy": Law("class", losses.softmax_cross_entropy, LOGITS, LABELS),
    "softmax_cross_entropy, smoothed": Law(
        "class", lambda z, y: losses.softmax_cross_entropy(z, y, label_smoothing=0.1), LOGITS, LABELS
    ),
    "softmax_cross_entropy, ignored": Law(
        "class", lambda z, y: losses.softmax_cross_entropy(z, y, ignore_label=7), LOGITS, LABELS
    ),
    "softmax_cross_entropy_with_probabilities": Law(
        "distribution", losses.softmax_cross_entropy_with_probabilities, LOGITS, SHARES
    ),
    "softmax_cross_entropy_with_probabilities, smoothed": Law(
        "distribution",
        lambda z, p: losses.softmax_cross_entropy_with_probabilities(z, p, label_smoothing=0.1),
        LOGITS,
        SHARES,
    ),
    "sigmoid_binary_cross_entropy": Law("binary", losses.sigmoid_binary_cross_entropy, REAL, BITS),
    "sigmoid_focal_loss": Law("binary", losses.sigmoid_focal_loss, REAL, BITS),
    "sigmoid_focal_loss, alpha": Law(
        "binary", lambda z, y: losses.sigmoid_focal_loss(z, y, alpha=0.25, gamma=1.0), REAL, BITS
    ),
    "softmax_focal_loss": Law("class", losses.softmax_focal_loss, LOGITS, LABELS),
    "kl_divergence": Law("share", losses.kl_divergence, LOGS, SHARES),
    "kl_divergence, predictions": Law("logarithm", lambda t, p: losses.kl_divergence(p, t), SHARES, LOGS),
    "kl_divergence_with_log_targets": Law("logarithm", losses.kl_divergence_with_log_targets, LOGS, LOGS[::-1]),
    "kl_divergence_with_log_targets, predictions": Law(
        "logarithm", lambda t, p: losses.kl_divergence_with_log_targets(p, t), LOGS, LOGS[::-1]
    ),
    "standard_normal_kl_divergence": Law("real", losses.standard_normal_kl_divergence, REAL, OTHER),
    "gaussian_kl_divergence": Law("real", lambda z, y: losses.gaussian_kl_divergence(z, z, y, z), REAL, OTHER),
    "hinge_loss": Law("sign", losses.hinge_loss, REAL, 2 * BITS - 1),
    "multiclass_hinge_loss": Law("class", losses.multiclass_hinge_loss, LOGITS, LABELS),
    "ctc_loss": Law("class", lambda z, y: losses.ctc_loss(z, y, FRAMES, LETTERS), CTC, SPELLED),
    "cosine_distance": Law("real", losses.cosine_distance, REAL, OTHER),
    "triplet_margin_loss": Law("real", lambda z, y: losses.triplet_margin_loss(z, 2 * z, y), REAL, OTHER),
    "triplet_margin_loss, squared": Law(
        "real", lambda z, y: losses.triplet_margin_loss(z, 2 * z, y, squared=True), REAL, OTHER
    ),
    "nt_xent": Law("real", losses.nt_xent, REAL, OTHER, coupled=True),
    "sigmoid_dice_loss": Law("binary", losses.sigmoid_dice_loss, REAL, BITS),
    "softmax_dice_loss": Law("class", losses.softmax_dice_loss, LOGITS, LABELS),
    "softmax_dice_loss, weighted": Law(
        "class", lambda z, y: losses.softmax_dice_loss(z, y, class_weights=WEIGHTS, ignore_label=9), LOGITS, LABELS
    ),
}
laws = pytest.mark.parametrize("name", LAWS)


def invalid(law: Law) -> list[np.ndarray]:
    """The targets with one invalid value in row 1."""
    found = []
    for value in INVALID[law.kind]:
        targets = np.array(law.targets)
        targets[(1, 0)] = value
        found.append(targets)
    return found


def test_every_loss_is_here():
    assert {name.split(",")[0] for name in LAWS} == set(losses.__all__) - HELPERS


@laws
def test_an_invalid_target_is_an_error_that_names_its_place(name):
    law = LAWS[name]
    for targets in invalid(law):
        if law.kind == "real":
            assert not np.isfinite(law.loss(jnp.asarray(law.predictions), targets)[1]).all()
            continue
        with pytest.raises(InputError, match=r"(index|at) \(?1"):
            law.loss(jnp.asarray(law.predictions), targets)


@laws
def test_a_traced_invalid_target_is_nan_and_moves_nothing(name):
    """Rows beside it keep the bits of valid targets; its own gradient is 0 or NaN, never a direction."""
    law = LAWS[name]

    def both(predictions: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
        gradient = jax.grad(lambda z: law.loss(z, targets).sum())(predictions)
        return law.loss(predictions, targets), gradient

    compiled = jax.jit(jax.vmap(both, (None, 0)), compiler_options=QUICK)
    loss, gradient = map(np.asarray, compiled(law.predictions, np.stack([law.targets, *invalid(law)])))
    assert np.isfinite(loss[0]).all()
    assert np.isfinite(gradient[0]).all()
    hit = (slice(1, None), 1) if loss.ndim < 3 else (slice(1, None), 1, 0)
    if law.coupled:
        assert not np.isfinite(loss[1:]).any()
        return
    assert not np.isfinite(loss[hit]).reshape(len(loss) - 1, -1).all(1).any()
    for row in (0, 2):
        np.testing.assert_array_equal(loss[1:, row], np.broadcast_to(loss[0, row], loss[1:, row].shape))
        np.testing.assert_array_equal(gradient[1:, row], np.broadcast_to(gradient[0, row], gradient[1:, row].shape))
    if law.kind != "real":
        assert np.isnan(loss[hit].reshape(len(loss) - 1, -1)).any(1).all()
        own = gradient[1:, 1, 0] if law.predictions.ndim > 1 else gradient[1:, 1]
        assert np.all((own == 0) | np.isnan(own))


@pytest.mark.parametrize("bits", [np.int64, np.uint64])
def test_a_class_number_beyond_32_bits_is_no_other_class(bits):
    """2**32 is 0 in 32 bits."""
    with jax.enable_x64(True):
        loss = jax.jit(losses.softmax_cross_entropy)(jnp.zeros((2, 3)), np.array([2**32, 1], bits))
        weight = jax.jit(lambda y: losses.label_weight(y, 0))(np.array([2**32, 0], bits))
    assert np.isnan(loss).tolist() == [True, False]
    assert weight.tolist() == [1.0, 0.0]


OPTIONS = {
    "delta": lambda v: losses.huber_loss(REAL, OTHER, delta=v),
    "label_smoothing": lambda v: losses.softmax_cross_entropy(LOGITS, LABELS, label_smoothing=v),
    "soft label_smoothing": lambda v: losses.softmax_cross_entropy_with_probabilities(
        LOGITS, SHARES, label_smoothing=v
    ),
    "positive_weight": lambda v: losses.sigmoid_binary_cross_entropy(REAL, BITS, positive_weight=v),
    "sigmoid gamma": lambda v: losses.sigmoid_focal_loss(REAL, BITS, gamma=v),
    "alpha": lambda v: losses.sigmoid_focal_loss(REAL, BITS, alpha=v),
    "softmax gamma": lambda v: losses.softmax_focal_loss(LOGITS, LABELS, gamma=v),
    "margin": lambda v: losses.triplet_margin_loss(REAL, OTHER, REAL, margin=v),
    "temperature": lambda v: losses.nt_xent(REAL, OTHER, temperature=v),
    "sigmoid smooth": lambda v: losses.sigmoid_dice_loss(REAL, BITS, smooth=v),
    "softmax smooth": lambda v: losses.softmax_dice_loss(LOGITS, LABELS, smooth=v),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_cannot_be_meant_is_an_error_or_nan(name):
    for value in (-0.5, INF, NAN, 1j, "0.5", None if name != "alpha" else "none"):
        with pytest.raises(InputError):
            OPTIONS[name](value)
    swept = np.asarray(jax.jit(jax.vmap(OPTIONS[name]), compiler_options=QUICK)(jnp.array([-0.5, INF, NAN, 0.5])))
    assert np.isnan(swept[:3]).all()
    assert np.isfinite(swept[3]).all()


def test_complex_targets_are_refused():
    """A cast to floats would drop their imaginary parts."""
    for name, targets in (("squared_error", OTHER), ("sigmoid_binary_cross_entropy", BITS), ("poisson_nll", COUNTS)):
        with pytest.raises(InputError, match="real numbers, got complex64"):
            getattr(losses, name)(jnp.asarray(REAL), targets.astype(np.complex64))


@laws
def test_no_examples_have_no_losses(name):
    law = LAWS[name]
    if name == "ctc_loss":
        loss = losses.ctc_loss(CTC[:0], SPELLED[:0], FRAMES[:0], LETTERS[:0])
    else:
        loss = law.loss(jnp.asarray(law.predictions[:0]), law.targets[:0])
    assert loss.shape[0] == loss.size == 0


@pytest.mark.parametrize("name", LAWS)
def test_predictions_that_a_compiled_program_makes_nan_give_nan(name):
    """As an embedding does of ids that are no rows: XLA on CPUs loses some NaN of its own before an exponential."""
    law = LAWS[name]

    def loss(predictions, targets, ids):
        return law.loss(jnp.take(predictions, ids, axis=0, mode="fill"), targets)

    got = np.asarray(jax.jit(loss)(law.predictions, law.targets, jnp.array([0, 9, 2])))  # optimised: there it is lost
    assert np.isnan(got[1]).all()
    assert law.coupled or np.isfinite(got[[0, 2]]).all()
