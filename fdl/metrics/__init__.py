"""Metrics that are exact whatever the batch size.

Per example (`accuracy`, ...), to be averaged by the engine; as statistics that merge (`Mean`, `Confusion`, ...), which
an experiment takes as a metric too; and, where no finite statistic is exact (`roc_auc`, `bleu`, ...), as functions of
all the outputs at once, for the reports of an experiment.

An invalid label or weight is an error where its value is known, and NaN inside a compiled program. Scores that are NaN
give NaN, and so does a figure of no example.
"""

from fdl.metrics.calibration import Calibration
from fdl.metrics.classification import Confusion, accuracy, top_k_accuracy
from fdl.metrics.mean import Mean
from fdl.metrics.ranking import average_precision, roc_auc
from fdl.metrics.regression import Regression
from fdl.metrics.statistic import Statistic
from fdl.metrics.text import bleu, perplexity

__all__ = [
    "Calibration", "Confusion", "Mean", "Regression", "Statistic", "accuracy", "average_precision", "bleu",
    "perplexity", "roc_auc", "top_k_accuracy",
]  # fmt: skip
