"""Losses per example, over `optax.losses` where it is exact, with strict shape contracts around them.

No loss broadcasts, sums or averages over examples: shapes that differ are an error, and the engine takes the mean.
Each is computed in float32 or wider, finite at logits of +-1e4 with a finite gradient, and named as in Optax.
"""

from fdl.losses.contrastive import nt_xent
from fdl.losses.ctc import ctc_loss, ctc_weight
from fdl.losses.dice import sigmoid_dice_loss, softmax_dice_loss
from fdl.losses.divergence import (
    gaussian_kl_divergence,
    kl_divergence,
    kl_divergence_with_log_targets,
    standard_normal_kl_divergence,
)
from fdl.losses.embedding import cosine_distance, triplet_margin_loss
from fdl.losses.focal import sigmoid_focal_loss, softmax_focal_loss
from fdl.losses.hinge import hinge_loss, multiclass_hinge_loss
from fdl.losses.likelihood import gaussian_nll, poisson_nll
from fdl.losses.regression import absolute_error, huber_loss, log_cosh, squared_error
from fdl.losses.sigmoid import sigmoid_binary_cross_entropy
from fdl.losses.softmax import label_weight, softmax_cross_entropy, softmax_cross_entropy_with_probabilities
from fdl.shapes import check_range

__all__ = [
    "absolute_error",
    "check_range",
    "cosine_distance",
    "ctc_loss",
    "ctc_weight",
    "gaussian_kl_divergence",
    "gaussian_nll",
    "hinge_loss",
    "huber_loss",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "label_weight",
    "log_cosh",
    "multiclass_hinge_loss",
    "nt_xent",
    "poisson_nll",
    "sigmoid_binary_cross_entropy",
    "sigmoid_dice_loss",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_probabilities",
    "softmax_dice_loss",
    "softmax_focal_loss",
    "squared_error",
    "standard_normal_kl_divergence",
    "triplet_margin_loss",
]
