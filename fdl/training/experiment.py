"""Everything that defines a run, in one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from fdl.data.dataset import Dataset, Full
from fdl.errors import InputError
from fdl.training.task import Task


@dataclass(frozen=True)
class Experiment:
    """A task, an optimizer, data, and how long to train.

    Args:
      task: what to minimise.
      optimizer: any Optax transformation; it is called with its extra arguments value, grad and value_fn.
      train: the training set; None = every batch is `{}` (a task that makes its own data).
      evaluate: name -> dataset; its metrics appear as "name/accuracy" and so on.
      batch_size: examples a step; None = all of them (batch gradient descent), 1 = stochastic gradient descent.
      num_steps, num_epochs: give exactly one. An epoch is `n // batch_size` steps.
      eval_every: steps between evaluations; None = only after the last step. There is always one after the last step.
      augment: (batch, key) -> batch, in training only.

    Raises:
      InputError: what cannot be meant, before anything is compiled.
    """

    task: Task
    optimizer: Any
    train: Dataset | None = None
    evaluate: Mapping[str, Dataset] = field(default_factory=dict)
    batch_size: int | None = None
    num_steps: int | None = None
    num_epochs: int | None = None
    eval_every: int | None = None
    augment: Callable[[Any, jax.Array], Any] | None = None

    def __post_init__(self) -> None:
        _expect(isinstance(self.task, Task), "task", "an fdl.Task, such as fdl.supervised(model, loss)", self.task)
        optimizer_fits = callable(getattr(self.optimizer, "init", None)) and hasattr(self.optimizer, "update")
        _expect(optimizer_fits, "optimizer", "an Optax transformation, such as optax.adam(1e-3)", self.optimizer)
        sets = {} if self.train is None else {"train": self.train}
        for name, dataset in (sets | dict(self.evaluate)).items():
            _expect(
                isinstance(dataset, Dataset), f"{name!r}", "a dataset, such as fdl.data.Arrays(x=..., y=...)", dataset
            )
        for name in self.evaluate:
            _expect(name != "train" and "/" not in name, "evaluate", 'names without "/" other than "train"', name)
        _expect(not self.evaluate or self.task.objective is not None, "task", "an objective, to evaluate with", None)
        for name in ("batch_size", "num_steps", "num_epochs", "eval_every"):
            value = getattr(self, name)
            fits = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
            _expect(fits, name, "a whole number >= 1", value)
        if (self.num_steps is None) == (self.num_epochs is None):
            got = f"num_steps={self.num_steps}, num_epochs={self.num_epochs}"
            raise InputError(f"Experiment: give exactly one of num_steps and num_epochs, got {got}")
        self.steps_per_epoch()

    @property
    def dataset(self) -> Dataset:
        """The training set, `Full()` (the batch `{}`) where there is none."""
        return Full() if self.train is None else self.train

    def steps_per_epoch(self) -> int:
        return self.dataset.steps_per_epoch(self.batch_size)

    def total_steps(self) -> int:
        return self.num_steps if self.num_steps is not None else (self.num_epochs or 0) * self.steps_per_epoch()

    def smoke(self) -> Experiment:
        """The same experiment cut down to seconds: 8 steps, and two batches of each evaluation set."""
        steps = min(8, self.total_steps())
        evaluate = {name: dataset.head(2 * (self.batch_size or 64)) for name, dataset in self.evaluate.items()}
        return dataclasses.replace(self, evaluate=evaluate, num_steps=steps, num_epochs=None, eval_every=None)


def _expect(fits: bool, name: str, expected: str, got: Any) -> None:
    if not fits:
        raise InputError(f"Experiment: {name}: expected {expected}, got {got!r}")
