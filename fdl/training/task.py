"""What to train: a `Task` is how to initialise and what to minimise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.core import Layer, init
from fdl.errors import InputError, did_you_mean
from fdl.nn.containers import accepted, takes_any
from fdl.records import pretty, record_source, short, source
from fdl.signatures import check_signature
from fdl.training.functions import check_logits, check_loss, check_metrics, check_model, measured
from fdl.training.precision import compute_inputs
from fdl.training.weighted import is_statistic, weighted

OBJECTIVE = "(params, state, batch, *, key, train) -> fdl.Outcome"
STEP = "(params, state, opt_state, batch, *, key, optimizer) -> (params, state, opt_state, metrics)"


class Outcome(NamedTuple):
    """What an objective returns for a batch of B rows. It never sums over examples: only the engine knows the padding.

    Args:
      loss: per example, [B, ...].
      weight: same shape, at least 0, no gradient flows into it; None = ones.
      metrics: name -> array per example (of the loss's shape: takes the weight; any other [B, ...]: every row counts),
        or (array, weight), or a scalar, or a statistic of the batch (`metrics.Confusion`, any `metrics.Statistic`),
        which takes no other weight than it was made with. Each of its numbers has a name: "conf/accuracy".
      state: the new running statistics; None = unchanged.
      outputs: whatever reports need, per example.
    """

    loss: jax.Array
    weight: jax.Array | None = None
    metrics: Mapping[str, Any] | None = None
    state: Any = None
    outputs: Any = None


@dataclass(frozen=True)
class Task:
    """Pure functions that say what to train.

    Args:
      init: key -> (params, state), any pytrees.
      objective: (params, state, batch, *, key, train) -> `Outcome`; the engine differentiates its loss.
      step: the whole update instead, (params, state, opt_state, batch, *, key, optimizer) ->
        (params, state, opt_state, metrics); then `objective` serves evaluation only.
      specs: nested dict of `Param` that `params` follow, for rules over paths and axes.

    Raises:
      InputError: neither objective nor step, or functions of other arguments.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    objective: Callable[..., Outcome] | None = None
    step: Callable[..., tuple[Any, Any, Any, Mapping[str, Any]]] | None = None
    specs: Any = None

    def __repr__(self) -> str:
        given = [(name, getattr(self, name)) for name in ("objective", "step")]
        return pretty(f"Task({', '.join(f'{name}={source(value)}' for name, value in given if value is not None)})")

    def __post_init__(self) -> None:
        if self.objective is None and self.step is None:
            raise InputError("Task: give an objective to minimise, or a whole step")
        check_signature("Task: init", self.init, "(key) -> (params, state)")
        if self.objective is not None:
            check_signature("Task: objective", self.objective, OBJECTIVE)
        if self.step is not None:
            check_signature("Task: step", self.step, STEP)


class Model:
    """A model that is no layer of fdl, as two pure functions: what `fdl.interop` makes of other libraries' modules."""

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """Initial `(params, state)`, any pytrees."""
        raise NotImplementedError

    def apply(
        self, params: Any, state: Any, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Any]:
        """`(y, state)`, as `fdl.Layer.apply`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Supervised:
    """The objective loss(model(x), y). A record, so that equal tasks are equal."""

    model: Layer | Model
    loss: Callable[[Any, Any], jax.Array]
    metrics: Mapping[str, Callable[[Any, Any], Any]] = field(hash=False)
    inputs: str | tuple[str, Mapping[str, str]] = field(hash=False)
    targets: str
    weight: str | None

    def __repr__(self) -> str:
        return pretty(record_source(self))

    def __call__(self, params: Any, state: Any, batch: Any, *, key: jax.Array | None, train: bool) -> Outcome:
        name, named = (self.inputs, {}) if isinstance(self.inputs, str) else self.inputs
        keywords = {keyword: _entry(batch, entry) for keyword, entry in named.items()}
        targets = _entry(batch, self.targets)
        x, keywords = compute_inputs((_entry(batch, name), keywords), params)
        y, state = self.model.apply(params, state, x, key=key, train=train, **keywords)
        loss = self.loss(y, targets)
        if not hasattr(loss, "shape"):
            raise InputError(f"the loss: expected an array with a value per example, got {short(loss)}")
        self._refuse_broadcast(loss, y)
        weight = None if self.weight is None else _entry(batch, self.weight)
        metrics = {name: self._measured(name, y, targets, weight) for name in self.metrics}
        return Outcome(loss, weight, metrics, state, {"predictions": y, "targets": targets})

    def _measured(self, name: str, y: Any, targets: Any, weight: Any) -> Any:
        """What a metric says of a batch; a statistic takes the weight of each row."""
        value = measured(name, self.metrics[name], y, targets)
        if weight is None or not is_statistic(value):
            return value
        return weighted(self.metrics[name], y, targets, jnp.asarray(weight))

    def _refuse_broadcast(self, loss: Any, y: Any) -> None:
        """(B,) against (B, 1) would give a loss of (B, B): its axes must be axes of the predictions."""
        if isinstance(y, jax.Array) and loss.shape != y.shape[: loss.ndim]:
            raise InputError(
                f"the loss of predictions {list(y.shape)} has shape {list(loss.shape)}, which is not per example: "
                "do predictions and targets differ in shape and broadcast?"
            )


def supervised(
    model: Layer | Model,
    loss: Callable[[Any, Any], jax.Array],
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    inputs: str | tuple[str, Mapping[str, str]] = "x",
    targets: str = "y",
    weight: str | None = None,
) -> Task:
    """The task of predicting `targets` from `inputs`.

    Args:
      model: a layer, or a `Model` from `fdl.interop`; it is called with `apply`, so running statistics are kept.
      loss: (predictions, targets) -> per example, such as `fdl.losses.softmax_cross_entropy`.
      metrics: name -> (predictions, targets) -> per example, such as `{"accuracy": fdl.metrics.accuracy}`, or a
        statistic: `{"conf": lambda y, labels: fdl.metrics.Confusion.of(y.argmax(-1), labels, 10)}`, whose numbers are
        "conf/accuracy", "conf/f1/macro", ... What needs all outputs at once, or NumPy, is one of the experiment's
        `reports`.
      inputs: the batch's entry for x, or ("x", {"lengths": "n"}): with further entries as keywords of the model.
      targets: the batch's entry for the second argument of loss and metrics.
      weight: the batch's entry for the weight of each loss, at least 0; None = ones. Metrics take it as well. It does
        not reach the model: rows of weight 0 count in the statistics of a `BatchNorm`, unless a mask leaves them out.

    Raises:
      InputError: a model that is no layer, or does not take the inputs; a loss or metric that is no function, or one
        that cannot be compiled; a softmax or sigmoid as the model's last part, where the loss has it in it.
    """
    if not isinstance(model, Model):
        check_model(model, loss)
    check_loss(loss)
    check_logits(model, loss)
    check_metrics(metrics)
    _check_inputs(model, inputs, targets, weight)
    objective = Supervised(model, loss, dict(metrics or {}), inputs, targets, weight)
    if isinstance(model, Model):
        return Task(model.init, objective)
    return Task(functools.partial(init, model), objective, specs=model.specs())


def _check_inputs(model: Any, inputs: Any, targets: Any, weight: Any) -> None:
    """Raises unless inputs, targets and weight name entries of a batch, and the model takes the keywords."""
    spelled = isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[0], str)
    named: Any = inputs[1] if spelled else {}
    if not (isinstance(inputs, str) or spelled) or not _names(named):
        raise InputError(
            'supervised: inputs: expected the name of an entry of the batch such as "x", or ("x", {"lengths": "n"}) '
            f"with more entries as keywords of the model, got {short(inputs)}; several arrays that are one x together: "
            "fdl.data.Arrays(x=(a, b), y=y)"
        )
    for name, entry in (("targets", targets), ("weight", "" if weight is None else weight)):
        if not isinstance(entry, str):
            raise InputError(f"supervised: {name}: expected the name of an entry of the batch, got {short(entry)}")
    if named and isinstance(model, Layer) and not takes_any(model):
        valid = accepted(model)
        for keyword in named:
            if keyword not in valid:
                hint = did_you_mean(keyword, valid) if valid else "; it takes none but key and train"
                raise InputError(f"supervised: inputs: the model does not take the keyword {keyword!r}{hint}")


def _names(named: Any) -> bool:
    return isinstance(named, Mapping) and all(isinstance(each, str) for pair in named.items() for each in pair)


def _entry(batch: Any, name: str) -> Any:
    if not isinstance(batch, Mapping):
        raise InputError(f"the batch: expected a dict with the entry {name!r}, got {type(batch).__name__}")
    if name not in batch:
        raise InputError(f"the batch has no entry {name!r}{did_you_mean(name, batch)}")
    return batch[name]
