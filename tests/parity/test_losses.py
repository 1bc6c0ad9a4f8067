"""Losses against PyTorch (in float64), Optax and scikit-learn: the value and the gradient of a weighted sum.

Where a name differs from PyTorch's, or a convention, the lambda on its side says how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl import losses
from fdl.training.sums import reduce

#: Relative, in float32; PyTorch computes in float64, so that all of the difference is ours.
TOLERANCE = 1e-5
RANDOM = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


Y, IGNORED = RANDOM.integers(0, 5, 6), np.array([0, -100, 4, 2, -100, 1])
BITS, COUNTS = RANDOM.integers(0, 2, (6, 3)), RANDOM.integers(0, 9, (6, 3))
SHARES, CLASS_SHARES = np.array([1.0, 0.5, 4.0], np.float32), np.array([1.0, 0.5, 4.0, 0.0, 2.0], np.float32)
PROBABILITIES = np.asarray(jax.nn.softmax(normal(6, 5)))
SPELLING = np.array([[1, 1, 3, 2, 0], [2, 1, 2, 2, 2], [4, 0, 0, 0, 0]])
FRAMES, LETTERS = np.array([12, 11, 3]), np.array([4, 5, 1])


class Peer(NamedTuple):
    """ours and theirs: (float arrays) -> loss; theirs gets (torch, torch.nn.functional, tensors)."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    floats: tuple[np.ndarray, ...]


def gaussian(torch: Any, mean: Any, log_variance: Any) -> Any:
    return torch.distributions.Normal(mean, (log_variance / 2).exp())


def simclr(torch: Any, F: Any, first: Any, second: Any, temperature: float) -> Any:
    views = F.normalize(torch.cat([first, second]))
    similarity = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    other = torch.arange(len(views)).roll(len(first))
    return F.cross_entropy(similarity, other, reduction="none").reshape(2, -1).mean(0)


def torchvision_focal(F: Any, z: Any, y: Any, alpha: float, gamma: float) -> Any:
    """torchvision.ops.sigmoid_focal_loss, which needs a package of its own."""
    p = z.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    right = p * y + (1 - p) * (1 - y)
    return (alpha * y + (1 - alpha) * (1 - y)) * entropy * (1 - right) ** gamma


def torch_ctc(F: Any, z: Any, labels: Any, frames: Any, counts: Any, **options: Any) -> Any:
    log_p = z.log_softmax(-1).transpose(0, 1)  # [T, B, C] there
    return F.ctc_loss(log_p, labels, frames, counts, reduction="none", **options)


PEERS = {
    "squared_error": Peer(
        losses.squared_error, lambda t, F, p, y: F.mse_loss(p, y, reduction="none"), (normal(6, 3), normal(6, 3))
    ),
    "absolute_error": Peer(
        losses.absolute_error, lambda t, F, p, y: F.l1_loss(p, y, reduction="none"), (normal(6, 3), normal(6, 3))
    ),
    "absolute_error of equals": Peer(
        losses.absolute_error, lambda t, F, p, y: F.l1_loss(p, y, reduction="none"), (np.ones(3), np.ones(3))
    ),
    "huber_loss": Peer(
        lambda p, y: losses.huber_loss(p, y, delta=0.7),
        lambda t, F, p, y: F.huber_loss(p, y, delta=0.7, reduction="none"),
        (normal(6, 3), normal(6, 3)),
    ),
    "smooth l1": Peer(
        lambda p, y: losses.huber_loss(p, y, delta=0.7) / 0.7,
        lambda t, F, p, y: F.smooth_l1_loss(p, y, beta=0.7, reduction="none"),
        (normal(6, 3), normal(6, 3)),
    ),
    "gaussian_nll": Peer(
        losses.gaussian_nll,
        lambda t, F, m, v, y: F.gaussian_nll_loss(m, y, v.exp(), full=True, reduction="none"),
        (normal(6, 3), normal(6, 3), normal(6, 3)),
    ),
    "poisson_nll": Peer(
        lambda z: losses.poisson_nll(z, COUNTS),
        lambda t, F, z: F.poisson_nll_loss(z, t.tensor(COUNTS), reduction="none") + t.lgamma(t.tensor(COUNTS) + 1.0),
        (normal(6, 3),),
    ),
    "softmax_cross_entropy": Peer(
        lambda z: losses.softmax_cross_entropy(z, Y),
        lambda t, F, z: F.cross_entropy(z, t.tensor(Y), reduction="none"),
        (normal(6, 5),),
    ),
    "softmax_cross_entropy at 1e4": Peer(
        lambda z: losses.softmax_cross_entropy(z, Y),
        lambda t, F, z: F.cross_entropy(z, t.tensor(Y), reduction="none"),
        (np.round(8 * normal(6, 5)) / 8 + 1e4,),
    ),
    "softmax_cross_entropy of pixels": Peer(
        lambda z: losses.softmax_cross_entropy(z, np.stack([Y, Y[::-1]])),
        lambda t, F, z: F.cross_entropy(z.movedim(-1, 1), t.tensor(np.stack([Y, Y[::-1]])), reduction="none"),
        (normal(2, 6, 5),),
    ),
    "softmax_cross_entropy, ignored and smoothed": Peer(
        lambda z: losses.softmax_cross_entropy(z, IGNORED, ignore_label=-100, label_smoothing=0.2),
        lambda t, F, z: F.cross_entropy(z, t.tensor(IGNORED), label_smoothing=0.2, reduction="none"),
        (normal(6, 5),),
    ),
    "softmax_cross_entropy_with_probabilities": Peer(
        lambda z, p: losses.softmax_cross_entropy_with_probabilities(z, p, label_smoothing=0.2),
        lambda t, F, z, p: F.cross_entropy(z, p, label_smoothing=0.2, reduction="none"),
        (normal(6, 5), PROBABILITIES),
    ),
    "sigmoid_binary_cross_entropy": Peer(
        lambda z: losses.sigmoid_binary_cross_entropy(z, BITS, positive_weight=SHARES),
        lambda t, F, z: F.binary_cross_entropy_with_logits(
            z, t.tensor(BITS).double(), pos_weight=t.tensor(SHARES), reduction="none"
        ),
        (normal(6, 3),),
    ),
    "sigmoid_focal_loss": Peer(
        lambda z: losses.sigmoid_focal_loss(z, BITS, gamma=2.0, alpha=0.25),
        lambda t, F, z: torchvision_focal(F, z, t.tensor(BITS).double(), 0.25, 2.0),
        (normal(6, 3),),
    ),
    "kl_divergence": Peer(
        losses.kl_divergence,
        lambda t, F, p, q: F.kl_div(p, q, reduction="none").sum(-1),
        (np.asarray(jax.nn.log_softmax(normal(6, 5))), PROBABILITIES),
    ),
    "kl_divergence_with_log_targets": Peer(
        losses.kl_divergence_with_log_targets,
        lambda t, F, p, q: F.kl_div(p, q, reduction="none", log_target=True).sum(-1),
        (np.asarray(jax.nn.log_softmax(normal(6, 5))), np.log(PROBABILITIES)),
    ),
    "standard_normal_kl_divergence": Peer(
        losses.standard_normal_kl_divergence,
        lambda t, F, m, v: t.distributions.kl_divergence(gaussian(t, m, v), gaussian(t, 0 * m, 0 * v)).sum(-1),
        (normal(6, 3), normal(6, 3)),
    ),
    "gaussian_kl_divergence": Peer(
        losses.gaussian_kl_divergence,
        lambda t, F, m, v, n, w: t.distributions.kl_divergence(gaussian(t, m, v), gaussian(t, n, w)).sum(-1),
        (normal(6, 3), normal(6, 3), normal(6, 3), normal(6, 3)),
    ),
    "ctc_loss": Peer(
        lambda z: losses.ctc_loss(z, SPELLING, FRAMES, LETTERS),
        lambda t, F, z: torch_ctc(F, z, *map(t.tensor, (SPELLING, FRAMES, LETTERS))),
        (normal(3, 12, 5),),
    ),
    "ctc_loss, blank last": Peer(
        lambda z: losses.ctc_loss(z, SPELLING, FRAMES, LETTERS, blank=5),
        lambda t, F, z: torch_ctc(F, z, *map(t.tensor, (SPELLING, FRAMES, LETTERS)), blank=5),
        (normal(3, 12, 6),),
    ),
    "cosine_distance": Peer(
        losses.cosine_distance, lambda t, F, a, b: 1 - F.cosine_similarity(a, b), (normal(6, 4), normal(6, 4))
    ),
    # eps = 0: PyTorch's default of 1e-6 in every difference is 1e-6 / distance off
    "triplet_margin_loss": Peer(
        losses.triplet_margin_loss,
        lambda t, F, a, p, n: F.triplet_margin_loss(a, p, n, eps=0, reduction="none"),
        (normal(6, 4), normal(6, 4), normal(6, 4)),
    ),
    "nt_xent": Peer(
        lambda a, b: losses.nt_xent(a, b, temperature=0.3),
        lambda t, F, a, b: simclr(t, F, a, b, 0.3),
        (normal(5, 4), normal(5, 4)),
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_pytorch_agrees(name):
    torch = pytest.importorskip("torch")
    peer = PEERS[name]
    tensors = [torch.tensor(np.asarray(x, np.float64), requires_grad=True) for x in peer.floats]
    theirs = peer.theirs(torch, torch.nn.functional, *tensors)
    weight = np.arange(1, theirs.numel() + 1, dtype=np.float32).reshape(theirs.shape)
    (theirs * torch.tensor(weight)).sum().backward()

    arrays = tuple(jnp.asarray(x, jnp.float32) for x in peer.floats)
    ours, backward = jax.vjp(peer.ours, *arrays)
    _assert_close(ours, theirs.detach().numpy())
    for got, tensor in zip(backward(weight), tensors, strict=True):
        _assert_close(got, tensor.grad.numpy())


def _assert_close(got: Any, want: np.ndarray) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE * np.abs(want).max())


@pytest.mark.parametrize("options", [{"ignore_index": -100}, {"ignore_index": -100, "weight": CLASS_SHARES}])
def test_the_mean_of_the_engine_is_that_of_pytorch(options):
    """ignore_label with its weight, through the reduction that every run uses."""
    torch = pytest.importorskip("torch")
    z, shares = normal(6, 5), options.get("weight")
    loss = losses.softmax_cross_entropy(z, IGNORED, ignore_label=-100)
    weight = losses.label_weight(IGNORED, -100, class_weights=shares)
    theirs = {name: torch.tensor(value) if name == "weight" else value for name, value in options.items()}
    expected = torch.nn.functional.cross_entropy(torch.tensor(z), torch.tensor(IGNORED), **theirs)
    mean = reduce(fdl.Outcome(loss, weight))["loss"].value()
    np.testing.assert_allclose(mean, expected.item(), rtol=TOLERANCE)


def test_impossible_ctc_labels_are_infinite_there_and_1e30_here():
    torch = pytest.importorskip("torch")
    z, labels, frames, counts = normal(1, 2, 3), np.array([[1, 1]]), np.array([2]), np.array([2])
    theirs = torch_ctc(torch.nn.functional, torch.tensor(z), *map(torch.tensor, (labels, frames, counts)))
    assert np.isinf(theirs.item())
    assert losses.ctc_loss(z, labels, frames, counts).item() == np.float32(1e30)


def test_multiclass_hinge_is_not_multi_margin():
    """Weston & Watkins there: a sum over the classes, divided by their number, where here the largest counts."""
    torch = pytest.importorskip("torch")
    z, y = np.array([[1.0, 1.5, 0.5]], np.float32), np.array([0])
    theirs = torch.nn.functional.multi_margin_loss(torch.tensor(z), torch.tensor(y))
    np.testing.assert_allclose(theirs.item(), (1.5 + 0.5) / 3)
    assert losses.multiclass_hinge_loss(z, y).tolist() == [1.5]


def test_scikit_learn_agrees_on_hinge():
    metrics = pytest.importorskip("sklearn.metrics")
    scores, classes = normal(40), normal(40, 5)
    signs, labels = np.where(normal(40) > 0, 1, -1), RANDOM.integers(0, 5, 40)
    labels[:5] = range(5)
    np.testing.assert_allclose(
        losses.hinge_loss(scores, signs).mean(), metrics.hinge_loss(signs, scores), rtol=TOLERANCE
    )
    np.testing.assert_allclose(
        losses.multiclass_hinge_loss(classes, labels).mean(), metrics.hinge_loss(labels, classes), rtol=TOLERANCE
    )


def test_optax_agrees_where_its_form_is_another():
    z, y, pixels = normal(6, 5), Y, RANDOM.integers(0, 3, (2, 4, 4))
    maps, a, b = normal(2, 4, 4, 3), normal(5, 4), normal(5, 4)
    pairs = {
        "cross-entropy": (
            losses.softmax_cross_entropy(z, y),
            optax.losses.softmax_cross_entropy_with_integer_labels(z, y),
        ),
        "hinge": (losses.multiclass_hinge_loss(z, y), optax.losses.multiclass_hinge_loss(z, y)),
        "log-cosh": (losses.log_cosh(a, b), optax.losses.log_cosh(a, b)),
        "cosine": (losses.cosine_distance(a, b), optax.losses.cosine_distance(a, b)),
        # smooth is added to halves there
        "dice": (
            losses.softmax_dice_loss(maps, pixels, smooth=1.0),
            optax.losses.dice_loss(jnp.asarray(maps), jax.nn.one_hot(pixels, 3), smooth=0.5),
        ),
        "binary dice": (
            losses.sigmoid_dice_loss(maps[..., 0], pixels % 2, smooth=1.0),
            optax.losses.dice_loss(jnp.asarray(maps[..., :1]), jnp.asarray(pixels % 2)[..., None], smooth=0.5),
        ),
        # groups of two there, and the mean over all views
        "nt_xent": (
            losses.nt_xent(a, b, temperature=0.3).mean(),
            optax.losses.ntxent(jnp.concatenate([a, b]), jnp.tile(jnp.arange(5), 2), temperature=0.3),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=1e-6, err_msg=name)


def test_optax_ctc_has_the_same_loss_where_nothing_is_extreme():
    z, frames, counts = normal(3, 12, 5), FRAMES, LETTERS
    paddings = [(np.arange(n) >= lengths[:, None]).astype(np.float32) for n, lengths in ((12, frames), (5, counts))]
    theirs = optax.losses.ctc_loss(z, paddings[0], SPELLING, paddings[1])
    np.testing.assert_allclose(losses.ctc_loss(z, SPELLING, frames, counts), theirs, rtol=TOLERANCE)
