"""One optimiser step as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fdl.core import Layer, check_key, fold
from fdl.data.conversion import jax_tree
from fdl.errors import InputError, did_you_mean
from fdl.records import short
from fdl.rules import Rules, split
from fdl.signatures import check_signature
from fdl.training.carry import keep_types, strengthen
from fdl.training.gradients import Batch
from fdl.training.hyperparameters import check_optimizer, check_transformation
from fdl.training.precision import PRECISIONS, LossScale, adjust, all_finite, init_scale
from fdl.training.scheduled import scheduled
from fdl.training.sums import as_sums, numbers
from fdl.training.task import OBJECTIVE, Outcome, Task
from fdl.training.transformations import arguments, paired

Metrics = dict[str, jax.Array]
NONFINITE = ("stop", "skip")
Monitor = Callable[[Any, Any, Any, Any], Mapping[str, Any]]


class TrainState(NamedTuple):
    """What a step changes. Keys and the step number are arguments, never stored."""

    params: Any
    state: Any
    opt_state: Any
    loss_scale: LossScale | None = None


@dataclass(frozen=True, eq=False)  # hashed by identity, as `jax.jit` wants to hash it
class Update:
    """`update(now, batch, key) -> (now, metrics)`: one step of a task; `key` is that of the step.

    The fields are those of `fdl.Experiment`, where they are explained.
    """

    task: Task
    optimizer: Any
    augment: Callable[[Any, jax.Array], Any] | None = None
    accumulate: int = 1
    precision: str | None = None
    trainable: Rules[bool] = ()
    monitor: Monitor | None = None
    nonfinite: str = "stop"

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer, descends=self.task.step is None)
        if self.augment is not None:
            check_signature("augment", self.augment, "(batch, key) -> batch")
        if self.monitor is not None:
            check_signature("monitor", self.monitor, "(params, grads, updates, opt_state) -> {name: number}")
        paired(self.optimizer)
        if self.nonfinite not in NONFINITE:
            raise InputError(f"nonfinite: expected one of {NONFINITE}, got {self.nonfinite!r}")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise InputError(f"precision: expected None or one of {PRECISIONS}, got {self.precision!r}")
        if self.task.step is not None:
            for name, plain in (("accumulate", 1), ("precision", None), ("monitor", None)):
                if getattr(self, name) != plain:
                    raise InputError(f"{name}: a task with a step of its own does that itself")
            if self.trainable:
                raise InputError("trainable: a task with a step of its own freezes parameters itself")

    def init(self, key: jax.Array) -> TrainState:
        """The state before step 0."""
        return self.start(*self.task.init(fold(key, "init")))

    def start(self, params: Any, state: Any) -> TrainState:
        """The state before the first step from these arrays: frozen parameters have no optimiser state."""
        trained = split(self.trainable, params)[0] if self.trainable else params
        return strengthen(TrainState(params, state, paired(self.optimizer).init(trained), init_scale(self.precision)))

    def __call__(self, now: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Metrics]:
        if self.augment is not None:
            batch = self.augment(batch, fold(key, "augment"))
        new, metrics = (self._descend if self.task.step is None else self._own)(now, batch, key)
        return _skipped(now, new, metrics) if self.nonfinite == "skip" else (new, metrics)

    def _own(self, now: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Metrics]:
        """A step that is the task's."""
        task_step: Any = self.task.step
        *new, metrics = task_step(*now[:3], batch, key=key, optimizer=paired(self.optimizer))
        values = numbers({name: as_sums(name, metric) for name, metric in metrics.items()})
        return keep_types(TrainState(*new), now), _named(values, scheduled(new[2], self.optimizer))

    def _descend(self, now: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Metrics]:
        trained, frozen, join = split(self.trainable, now.params) if self.trainable else (now.params, None, _first)
        objective: Callable[..., Outcome] = self.task.objective  # pyright: ignore[reportAssignmentType]
        scale = now.loss_scale.scale if now.loss_scale is not None else None
        options = self.accumulate, self.precision, scale
        work = Batch(objective, lambda trained: join(trained, frozen), now.state, batch, key, *options)
        sums, grads, state = work.sums(trained)
        grads = work.mean(sums, grads)
        extra = {"value": sums["loss"].value(), "grad": grads, "value_fn": work.value}
        extra |= {"grad_fn": work.gradient, "obj_fn": work.value}
        taken = arguments(self.optimizer)
        updates, opt_state = paired(self.optimizer).update(
            grads, now.opt_state, trained, **{name: value for name, value in extra.items() if name in taken}
        )
        new = TrainState(join(optax.apply_updates(trained, updates), frozen), state, opt_state, now.loss_scale)
        metrics = _named(numbers(sums), scheduled(opt_state, self.optimizer))
        if self.monitor is not None:
            metrics = _named(metrics, self.monitor(trained, grads, updates, opt_state))
        new = keep_types(new, now)
        if now.loss_scale is None:
            return new, metrics
        finite = all_finite(grads)  # an overflow skips the step and halves the scale
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, now)
        scaled = kept._replace(loss_scale=adjust(now.loss_scale, finite))
        return scaled, _named(metrics, {"loss_scale": now.loss_scale.scale, "skipped": ~finite})


def _skipped(now: TrainState, new: TrainState, metrics: Metrics) -> tuple[TrainState, Metrics]:
    """The step with all of it left out where its loss, or what it would have left, is not finite."""
    finite = all_finite((metrics.get("loss", jnp.float32(0)), new.params, new.state))
    kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, now)
    overflow = False if now.loss_scale is None else metrics.pop("skipped")  # float16 has adjusted its scale by it
    return kept._replace(loss_scale=new.loss_scale), _named(metrics, {"skipped": jnp.logical_or(overflow, ~finite)})


class StepState(NamedTuple):
    """Everything that a step of `make_step` needs, and changes."""

    params: Any
    state: Any
    opt_state: Any
    loss_scale: LossScale | None
    key: jax.Array
    step: jax.Array


@dataclass(frozen=True, eq=False)
class Step:
    """`step(state, batch) -> (state, metrics)`, see `make_step`."""

    update: Update

    def init(self, params: Any, state: Any = None, *, key: jax.Array) -> StepState:
        """The state before the first step; `key` is the run's: that of a step is folded from it and the step."""
        check_key("init of a step", key)
        now = self.update.start(params, {} if state is None else state)
        return StepState(*now, key, jnp.int32(0))

    def __call__(self, state: StepState, batch: Any) -> tuple[StepState, Metrics]:
        batch = jax_tree(batch, "the batch")
        if not isinstance(state, StepState):
            raise InputError(
                f"a step: expected the state that step.init(params, key=key) makes, or that of the step before, "
                f"got {short(state)}"
            )
        now, metrics = self.update(TrainState(*state[:4]), batch, fold(state.key, "step", state.step))
        return StepState(*now, state.key, state.step + 1), metrics


def make_step(objective: Callable[..., Outcome], optimizer: Any = None, **options: Any) -> Step:
    """One optimiser step, pure and usable alone: `step(state, batch) -> (state, metrics)`.

    Args:
      objective: (params, state, batch, *, key, train) -> `fdl.Outcome`, with losses per example.
      optimizer: any Optax transformation.
      options: accumulate, precision, trainable, monitor, augment and nonfinite, as in `fdl.Experiment`.

    Returns:
      The step; `step.init(params, state, key=key)` makes its first state. `fdl.run` takes the very same steps.

    Raises:
      InputError: an unknown option; a task, a layer or a loss as objective; no optimizer.

    >>> import fdl, jax.numpy as jnp
    >>> def objective(params, state, batch, *, key, train):
    ...     return fdl.Outcome(fdl.losses.squared_error(params * batch["x"], batch["y"]))
    >>> step = make_step(objective, optax.sgd(0.25))
    >>> now = step.init(jnp.float32(0.0), key=jax.random.key(0))
    >>> now, metrics = jax.jit(step)(now, {"x": jnp.array([1.0, 1.0]), "y": jnp.array([2.0, 4.0])})
    >>> float(metrics["loss"]), float(now.params)
    (10.0, 1.5)
    """
    names = [name for name in Update.__dataclass_fields__ if name not in ("task", "optimizer")]
    for name in options:
        if name not in names:
            raise InputError(f"make_step: there is no option {name!r}{did_you_mean(name, names)}")
    if not isinstance(objective, Task | Layer):
        check_signature("make_step: objective", objective, OBJECTIVE)
    else:
        task = "task" if isinstance(objective, Task) else "fdl.supervised(model, loss)"
        raise InputError(
            f"make_step: expected an objective {OBJECTIVE}, got a {type(objective).__name__}; "
            f"pass make_step({task}.objective, optimizer)"
        )
    check_transformation("make_step: optimizer", optimizer)
    task = Task(lambda key: ({}, {}), objective)
    return Step(Update(task, optimizer, **options))


def _first(trained: Any, frozen: Any) -> Any:
    return trained


def _named(metrics: Mapping[str, Any], more: Mapping[str, Any]) -> Metrics:
    """Both together, scalars all.

    Raises:
      InputError: a name that both have, a value that is no scalar.
    """
    for name, value in more.items():
        if name in metrics:
            raise InputError(f"metric {name!r}: the objective, the monitor or the optimizer has this name already")
        if jnp.ndim(value):
            raise InputError(f"metric {name!r}: expected a scalar, got {list(jnp.shape(value))}; its norm, perhaps?")
    return {**metrics, **{name: jnp.asarray(value) for name, value in more.items()}}
