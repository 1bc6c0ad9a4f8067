"""The functions that a user gives as loss and metrics: anything else is answered with the likely fix."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from typing import Any

import jax

from fdl import losses, metrics
from fdl.core import Layer
from fdl.errors import InputError
from fdl.nn.containers import Serial
from fdl.records import short
from fdl.signatures import check_signature

NAMES = {
    "squared_error": "mse l2 mean_squared_error",
    "absolute_error": "mae l1 mean_absolute_error",
    "huber_loss": "huber smooth_l1",
    "softmax_cross_entropy": "ce nll cross_entropy crossentropy sparse_categorical_crossentropy log",
    "softmax_cross_entropy_with_probabilities": "categorical_crossentropy",
    "sigmoid_binary_cross_entropy": "bce binary_crossentropy binary_cross_entropy bce_with_logits",
    "kl_divergence": "kl kl_div",
    "accuracy": "acc accuracy_score",
    "top_k_accuracy": "top5 top_5 top_5_accuracy",
    "roc_auc": "auc auroc roc_auc_score",
    "average_precision": "ap average_precision_score",
    "Confusion": "f1 f1_score precision recall confusion_matrix balanced_accuracy",
    "Regression": "r2 r2_score rmse",
    "Calibration": "ece",
}
"""Functions of `fdl.losses` and `fdl.metrics`, and the names that other libraries give them."""
OUTPUTS = 'o["predictions"][:, 0], o["targets"]'
CALLS = {
    "Confusion": 'metrics={"conf": lambda y, labels: fdl.metrics.Confusion.of(y.argmax(-1), labels, num_classes)}',
    "Regression": 'metrics={"fit": fdl.metrics.Regression.of}',
    "Calibration": 'metrics={"calibration": lambda y, labels: fdl.metrics.Calibration.of('
    "jax.nn.softmax(y).max(-1), y.argmax(-1) == labels)}",
    "top_k_accuracy": 'metrics={"top5": lambda y, labels: fdl.metrics.top_k_accuracy(y, labels, 5)}',
    "roc_auc": f'Experiment(reports={{"auc": lambda o: fdl.metrics.roc_auc({OUTPUTS})}})',
    "average_precision": f'Experiment(reports={{"ap": lambda o: fdl.metrics.average_precision({OUTPUTS})}})',
    "perplexity": 'Experiment(reports={"perplexity": ...}), the exp of the mean loss',
    "bleu": 'Experiment(reports={"bleu": ...}), which see all outputs at once',
}
"""How the metrics are used that are no functions of the predictions and targets of a batch."""
REPORTS = (
    'it needs all outputs at once, as NumPy arrays: Experiment(reports={name: lambda o: f(o["targets"], '
    'o["predictions"].argmax(-1))}); what is in metrics= is compiled'
)


SOFTMAX, SIGMOID = (jax.nn.softmax,), (jax.nn.sigmoid, jax.nn.hard_sigmoid)
FROM_LOGITS = {
    losses.softmax_cross_entropy: SOFTMAX,
    losses.softmax_cross_entropy_with_probabilities: SOFTMAX,
    losses.softmax_focal_loss: SOFTMAX,
    losses.softmax_dice_loss: SOFTMAX,
    losses.sigmoid_binary_cross_entropy: SIGMOID,
    losses.sigmoid_focal_loss: SIGMOID,
    losses.sigmoid_dice_loss: SIGMOID,
}
"""Losses of logits, and the functions that they have in them, which must not stand in front of them as well."""


def check_model(model: Any, loss: Any) -> None:
    """Raises unless a model is a layer.

    Raises:
      InputError: what to pass instead.
    """
    if isinstance(model, Layer):
        return
    home = type(model).__module__.split(".")[0]
    if isinstance(loss, Layer):
        hint = "model and loss stand in each other's place: supervised(model, loss)"
    elif isinstance(model, type) and issubclass(model, Layer):
        hint = f"that is the class: make one, {model.__name__}(...)"
    elif isinstance(model, list | tuple):
        hint = "a list of layers is one model as fdl.nn.Serial(*layers)"
    elif home == "torch":
        hint = "fdl.pretrained.load takes the weights of PyTorch over into a model of fdl"
    else:
        hint = "modules of Flax and Equinox come through fdl.interop, other models make their own Task"
    raise InputError(f"supervised: expected a fdl Layer as model, got {short(model)}; {hint}")


def check_logits(model: Any, loss: Any) -> None:
    """Raises where a model ends with the softmax or sigmoid that its loss has in it: it would be applied twice.

    Raises:
      InputError: the function to leave out.
    """
    last, path = model, []
    while isinstance(last, Serial) and last.items:
        name, last = last.items[-1]
        path.append(name)
    last, loss = _unwrapped(last), _unwrapped(loss)
    inside = next((functions for each, functions in FROM_LOGITS.items() if each is loss), ())
    if path and any(last is each for each in inside):
        raise InputError(
            f"supervised: {_name(loss)} takes logits and has {_name(last)} in it, but the model ends with it as well "
            f"(layer {'/'.join(path)}); leave that out, and apply {_name(last)} to predictions where you need "
            "probabilities"
        )


def check_loss(loss: Any) -> None:
    """Raises unless a loss can be called with predictions and targets.

    Raises:
      InputError: what to pass instead.
    """
    if isinstance(loss, str):
        raise InputError(f"supervised: a loss is a function, not the name {loss!r}; {_nearest(loss, losses)}")
    if isinstance(loss, type):
        raise InputError(f"supervised: a loss is a function of (predictions, targets), got the class {loss.__name__}")
    if not callable(loss):
        raise InputError(
            f"supervised: a loss is a function of (predictions, targets), such as fdl.losses.softmax_cross_entropy, "
            f"got {type(loss).__name__}"
        )
    if _of_numpy(loss):
        raise InputError(f"supervised: {_name(loss)} of scikit-learn has no gradient; see fdl.losses.__all__")
    check_signature("supervised: loss", loss, "(predictions, targets) -> a value per example")


def check_metrics(given: Any) -> None:
    """Raises unless metrics are a dict of functions that can be compiled.

    Raises:
      InputError: what to pass instead.
    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        first = given[0] if isinstance(given, list | tuple) and given else given
        like = _nearest(first, metrics) if isinstance(first, str) else _spelled(first)
        raise InputError(f"supervised: metrics are a dict, name -> function, got {type(given).__name__}; {like}")
    for name, metric in given.items():
        if not isinstance(name, str) or not name:
            raise InputError(f"supervised: the name of a metric is a word, got {name!r}")
        if isinstance(metric, str):
            raise InputError(
                f"metric {name!r}: expected a function, not the name {metric!r}; {_nearest(metric, metrics)}"
            )
        known = getattr(metric, "__name__", "")
        if known in CALLS and getattr(metrics, known, None) is metric and known != "top_k_accuracy":
            raise InputError(f"metric {name!r}: {known} is no function of the predictions of a batch; {CALLS[known]}")
        if isinstance(metric, type) or not callable(metric):
            raise InputError(f"metric {name!r}: expected a function of (predictions, targets), got {_name(metric)}")
        if _of_numpy(metric):
            raise InputError(f"metric {name!r}: {_name(metric)} is a function of scikit-learn, {REPORTS}")
        check_signature(f"metric {name!r}", metric, "(predictions, targets) -> a value per example")


def measured(name: str, metric: Any, predictions: Any, targets: Any) -> Any:
    """What a metric says of a batch.

    Raises:
      InputError: it needs the values of what is traced, as functions of NumPy and of scikit-learn do.
    """
    try:
        return metric(predictions, targets)
    except jax.errors.JAXTypeError as error:
        raise InputError(f"metric {name!r}: {_name(metric)} cannot be compiled; if {REPORTS}") from error
    except Exception as error:
        error.add_note(f"in the metric {name!r}, which is called with (predictions, targets)")
        raise


def _nearest(given: str, module: Any) -> str:
    """The function of a module that a name may mean, as it is passed."""
    word = given.lower().replace("-", "_").replace(" ", "_")
    word = word.removesuffix("loss").rstrip("_") or word
    known = {each: name for name, others in NAMES.items() for each in others.split() if name in module.__all__}
    known |= {name.lower().removesuffix("_loss"): name for name in module.__all__}
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    short = module.__name__.removeprefix("fdl.")
    if not close:
        return f"see fdl.{short}.__all__"
    found = known[close[0]]
    return f"pass {CALLS.get(found) or _passed(found, short)}"


def _passed(found: str, short: str) -> str:
    return f"fdl.{short}.{found}" if short == "losses" else f'metrics={{"{found}": fdl.{short}.{found}}}'


def _spelled(metric: Any) -> str:
    known = getattr(metric, "__name__", "accuracy")
    return f"pass {_passed(known if getattr(metrics, known, None) is metric else 'accuracy', 'metrics')}"


def _of_numpy(function: Any) -> bool:
    """Whether a function is one of scikit-learn's, which takes NumPy arrays only."""
    function = _unwrapped(function)
    return str(getattr(function, "__module__", "")).split(".")[0] == "sklearn"


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name(function: Any) -> str:
    function = _unwrapped(function)
    return getattr(function, "__name__", type(function).__name__)
