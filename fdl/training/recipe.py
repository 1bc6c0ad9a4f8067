"""An experiment as a function of its floats: what lets one compiled program serve every learning rate."""

from __future__ import annotations

import dataclasses
import enum
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from fdl.core import abstract_key
from fdl.data.conversion import TracedDataError
from fdl.errors import InputError
from fdl.training.experiment import Experiment
from fdl.training.fields import described, leaves, replaced, value_at

TRACED_PARTS = ("task", "optimizer", "augment", "eval_params", "monitor", "trainable")
Hyper = dict[str, jax.Array]
T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """An experiment, and how to build it again with other floats.

    Args:
      experiment: with concrete values: data, sizes, steps and schedules of evaluation are read from it.
      build, config: it is `build(config)`.
      traced: the fields of config that programs take as arguments instead of having them built in.
    """

    experiment: Experiment
    build: Callable[[Any], Experiment] | None = None
    config: Any = None
    traced: tuple[str, ...] = ()

    def at(self, hyper: Mapping[str, Any]) -> Experiment:
        """The experiment with these values of the traced fields; only its pure functions are new."""
        if not self.traced or self.build is None:
            return self.experiment
        again = self.build(replaced(self.config, hyper))
        return dataclasses.replace(self.experiment, **{name: getattr(again, name) for name in TRACED_PARTS})

    def values(self) -> Hyper:
        """The traced fields as the scalars that programs get."""
        return {name: weak(value_at(self.config, name)) for name in self.traced}


def weak(value: float) -> jax.Array:
    """A scalar that promotes as a Python number does: a strong float32 would widen a bfloat16 network."""
    return jnp.full((), value)


def weak_column(values: list[float]) -> jax.Array:
    """The same for members, [members]."""
    return jnp.full((len(values),), values[0]).at[:].set(jnp.asarray(values))  # which keeps the weak type


def traced_fields(config: Any) -> tuple[str, ...]:
    """The fields of a config that hold a Python float, and the integers that are declared `fdl.traced`.

    Those of dataclasses inside of it as well, by their dotted names.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return ()
    fields = dict(described(config))

    def traced(name: str, value: Any) -> bool:
        declared = "traced" in fields[name].metadata and isinstance(value, int) and not isinstance(value, bool)
        number = isinstance(value, float) and not isinstance(value, enum.Enum)
        return fields[name].init and (number or declared)

    return tuple(name for name, value in leaves(config) if traced(name, value))


@dataclass(frozen=True)
class Untraceable:
    """A number that Python needed the value of: the field, where, and whether it was for the data."""

    field: str
    where: str
    data: bool

    def __str__(self) -> str:
        return f"{self.field} becomes a Python number or a branch ({self.where}), so that each value is a program"


def settled(recipe: Recipe, attempt: Callable[[Recipe], T]) -> tuple[T, list[Untraceable]]:
    """`attempt(recipe)`, with the floats that cannot be traced taken out of the recipe, and which those are.

    All of them are tried at once first; only where that fails is each tried by itself.
    """
    try:
        return attempt(recipe), []
    except (InputError, TypeError, ValueError):
        faults = [_fault(dataclasses.replace(recipe, traced=(name,)), name) for name in recipe.traced]
        bad = [fault for fault in faults if fault is not None]
        if not bad:
            raise
    left = tuple(name for name in recipe.traced if name not in {fault.field for fault in bad})
    return attempt(dataclasses.replace(recipe, traced=left)), bad


def _fault(recipe: Recipe, field: str) -> Untraceable | None:
    """Where tracing the first step with this field traced fails, None where it does not."""
    experiment = recipe.experiment

    def first(key: jax.Array, hyper: Hyper, batch: Any) -> Any:
        update = recipe.at(hyper).update()
        return update(update.init(key), batch, key)

    batch = experiment.dataset.sample(experiment.batch_size)[0]
    if experiment.accumulate > 1:  # a sample may be larger than a batch by a few rows
        batch = jax.tree.map(lambda x: x[: len(x) - len(x) % experiment.accumulate], batch)
    try:
        jax.eval_shape(first, abstract_key(), recipe.values(), batch)
    except (InputError, TypeError, ValueError) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
        last = frames[-1] if frames else None
        where = f"{last.filename}:{last.lineno}" if last else type(error).__name__
        return Untraceable(field, where, isinstance(error, TracedDataError))
    return None
