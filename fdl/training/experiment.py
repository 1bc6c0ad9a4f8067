"""Everything that defines a run, in one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from fdl.data.dataset import Dataset, Full
from fdl.errors import InputError
from fdl.records import is_default, listed, short
from fdl.rules import Rules
from fdl.runs.retention import NEWEST, Keep
from fdl.signatures import check_signature
from fdl.training.hyperparameters import check_transformation
from fdl.training.reports import check_names
from fdl.training.selection import MODES
from fdl.training.step import Monitor, Update
from fdl.training.task import Task

MOST_STEPS = 2**31 - 1
EVAL_BATCH = 256
"""Examples of an evaluation batch, where training has no batch size: a whole set may not fit into memory at once."""


@dataclass(frozen=True)
class Experiment:
    """A task, an optimizer, data, and how long to train.

    Args:
      task: what to minimise.
      optimizer: any Optax transformation of the mean gradient. It gets the extra arguments that it takes: value, grad,
        value_fn; grad_fn (`optax.contrib.sam`) and obj_fn (`optax.contrib.sophia`), at other parameters and the same
        batch. `optax.lookahead` keeps its slow weights in its state, as the field `slow`. Scheduled values are in the
        history as they were used: "train/learning_rate".
      train: the training set; None = every batch is `{}` (a task that makes its own data).
      evaluate: name -> dataset; its metrics appear as "name/accuracy" and so on.
      batch_size: examples a step; None = all of them (batch gradient descent), 1 = stochastic gradient descent.
      eval_batch_size: examples that are evaluated at once; None = as many as a training step has, by `batch_size` or in
        the batches of a `Stream`, where those are not known or without a `batch_size` at most 256. Each example counts
        once, whatever it is; the whole tree of a `Full` is always one batch.
      num_steps, num_epochs: give exactly one. An epoch is `n // batch_size` steps.
      eval_every: steps between evaluations; None = only after the last step. There is always one after the last step.
      checkpoint_every: steps between checkpoints of a run with a folder; None = after ten minutes. There is always one
        at the end.
      keep: which of them stay, by default the two newest, see `fdl.Keep`.
      augment: (batch, key) -> batch, in training only.
      trainable: `[(regex over "a/b/kernel", bool), ...]`, the first that is found in a path decides, and a path without
        a rule trains. Frozen parameters stay as they are to the bit, without gradient or optimiser state.
      select: "val/loss", say: the result is that of the evaluation where this metric was best, instead of the last.
      mode: whether "min" or "max" of it is best.
      patience: evaluations without a better value after which training stops.
      min_delta: by how much a value must be better to count.
      eval_params: (params, opt_state) -> the parameters that evaluation, selection and the result use: averages of
        them, such as `fdl.ema_params`, or Optax's `schedule_free_eval_params`.
      monitor: (params, grads, updates, opt_state) -> scalars for the history, such as `fdl.norms`.
      reports: name -> function of the host arrays of all outputs of an evaluation set, for what is no mean over
        examples; `fdl.supervised` outputs {"predictions", "targets"}. It returns a number, "val/auc", or a dict of
        numbers: {"mug": 0.5} of a report "ap" is "val/ap/mug". Where one fails, the run ends after that evaluation with
        the error and a checkpoint.
      accumulate: micro-batches that a batch is split into, one after the other. Losses, weights and gradients add up to
        those of the whole batch; batch statistics are those of the micro-batches.
      precision: "bfloat16" or "float16": the objective gets parameters (and `fdl.supervised` inputs) in it, while
        parameters, updates, statistics and losses stay float32. float16 has a dynamic scale of the loss.
      nonfinite: "stop" ends a run whose loss is NaN or infinite, and says where that comes from. "skip" leaves out each
        step whose loss, parameters or state would be: it counts as a step ("train/skipped" is 1), but changes nothing,
        the optimizer's own count included; 32 of them in a row end the run after all. Going back to the state before
        and leaving out the batch would be the same.

    Raises:
      InputError: what cannot be meant, before anything is compiled.
    """

    task: Task
    optimizer: Any
    train: Dataset | None = None
    evaluate: Mapping[str, Dataset] = field(default_factory=dict)
    batch_size: int | None = None
    eval_batch_size: int | None = None
    num_steps: int | None = None
    num_epochs: int | None = None
    eval_every: int | None = None
    checkpoint_every: int | None = None
    keep: Keep = NEWEST
    augment: Callable[[Any, jax.Array], Any] | None = None
    trainable: Rules[bool] = ()
    select: str | None = None
    mode: str = "min"
    patience: int | None = None
    min_delta: float = 0.0
    eval_params: Callable[[Any, Any], Any] | None = None
    monitor: Monitor | None = None
    reports: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    accumulate: int = 1
    precision: str | None = None
    nonfinite: str = "stop"

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)
        shown = {
            each.name: getattr(self, each.name) for each in fields if not is_default(each, getattr(self, each.name))
        }
        return listed("Experiment:", [(name, short(value)) for name, value in shown.items()], most=len(fields))

    def __post_init__(self) -> None:
        _expect(isinstance(self.task, Task), "task", "an fdl.Task, such as fdl.supervised(model, loss)", self.task)
        check_transformation("Experiment: optimizer", self.optimizer)
        self._check_sets()
        for name in (
            "batch_size",
            "eval_batch_size",
            "num_steps",
            "num_epochs",
            "eval_every",
            "checkpoint_every",
            "patience",
            "accumulate",
        ):
            value = getattr(self, name)
            fits = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
            _expect(fits, name, "a whole number >= 1", value)
        if (self.num_steps is None) == (self.num_epochs is None):
            got = f"num_steps={self.num_steps}, num_epochs={self.num_epochs}"
            raise InputError(f"Experiment: give exactly one of num_steps and num_epochs, got {got}")
        self._check_selection()
        self._check_keep()
        rules = isinstance(self.trainable, list | tuple) and all(
            isinstance(each, list | tuple) and len(each) == 2 for each in self.trainable
        )
        _expect(rules, "trainable", '[(regex, bool), ...] such as [("^head/", True), (".", False)]', self.trainable)
        if self.eval_params is not None:
            check_signature("Experiment: eval_params", self.eval_params, "(params, opt_state) -> params")
        self.update()
        self.steps_per_epoch()
        total = self.total_steps()
        _expect(total <= MOST_STEPS, "num_steps", f"at most {MOST_STEPS}, for steps are counted in 32 bits", total)

    def _check_sets(self) -> None:
        for name, given in (("evaluate", self.evaluate), ("reports", self.reports)):
            values = "dataset" if name == "evaluate" else "function of the outputs"
            _expect(isinstance(given, Mapping), name, f"a dict, {{name: {values}}}", given)
        sets = {} if self.train is None else {"train": self.train}
        for name, dataset in (sets | dict(self.evaluate)).items():
            _expect(
                isinstance(dataset, Dataset), f"{name!r}", "a dataset, such as fdl.data.Arrays(x=..., y=...)", dataset
            )
        for name, dataset in self.evaluate.items():
            _expect(name != "train" and "/" not in name, "evaluate", 'names without "/" other than "train"', name)
            _expect(not dataset.streamed, f"evaluate {name!r}", "a set that ends, such as fdl.data.Arrays", dataset)
        _expect(not self.evaluate or self.task.objective is not None, "task", "an objective, to evaluate with", None)
        if self.dataset.streamed:
            _expect(self.num_steps is not None, "num_steps", "a number of steps, as a Stream has no epochs", None)
        for name, report in self.reports.items():
            _expect(isinstance(name, str) and bool(name), "reports", "names of text", name)
            check_signature(f"Experiment: reports {name!r}", report, "(outputs) -> number or {name: number}")
        check_names(self.reports, ("loss",))

    def _check_selection(self) -> None:
        _expect(self.mode in MODES, "mode", f"one of {MODES}", self.mode)
        fits = isinstance(self.min_delta, int | float) and self.min_delta >= 0
        _expect(fits, "min_delta", "a number >= 0", self.min_delta)
        _expect(self.patience is None or self.select is not None, "patience", 'select="val/loss" or so with it', None)
        if self.select is not None:
            known = isinstance(self.select, str) and self.select.split("/")[0] in self.evaluate
            sets = ", ".join(self.evaluate) or "none"
            _expect(
                known, "select", f'a metric of an evaluation set (there are: {sets}), such as "val/loss"', self.select
            )

    def _check_keep(self) -> None:
        _expect(isinstance(self.keep, Keep), "keep", "an fdl.Keep, such as fdl.Keep(last=2, every=1000)", self.keep)
        every = self.checkpoint_every
        if self.keep.every is not None:
            fits = every is not None and self.keep.every % every == 0
            _expect(fits, "keep: every", f"a multiple of checkpoint_every, {every}", self.keep.every)
        if self.keep.best:
            _expect(self.select is not None, "keep: best", 'select="val/loss" or so with it', None)
            fits = every is not None and self.eval_every is not None and every % self.eval_every == 0
            expected = f"a multiple of eval_every, {self.eval_every}, for what is kept has to be evaluated"
            _expect(fits, "checkpoint_every", expected, every)

    @property
    def dataset(self) -> Dataset:
        """The training set, `Full()` (the batch `{}`) where there is none."""
        return Full() if self.train is None else self.train

    def update(self) -> Update:
        """The step of this experiment."""
        return Update(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Update)})

    def steps_per_epoch(self) -> int:
        """Steps in one pass over the training set; all of them where there are no passes."""
        return self.dataset.steps_per_epoch(self.batch_size) or self.num_steps or 1

    def evaluation_batch_size(self) -> int:
        """Examples that are evaluated at once."""
        of_a_step = self.batch_size or min(EVAL_BATCH, self.dataset.batch_rows() or EVAL_BATCH)
        return self.eval_batch_size or of_a_step

    def total_steps(self) -> int:
        return self.num_steps if self.num_steps is not None else (self.num_epochs or 0) * self.steps_per_epoch()

    def until(self, num_steps: int) -> Experiment:
        """The same experiment with another number of steps; its optimizer is as it was built."""
        return dataclasses.replace(self, num_steps=num_steps, num_epochs=None)

    def smoke(self) -> Experiment:
        """The same experiment cut down to seconds: 8 steps, and two batches of each evaluation set."""
        steps = min(8, self.total_steps())
        evaluate = {name: dataset.head(2 * self.evaluation_batch_size()) for name, dataset in self.evaluate.items()}
        changes: Any = {"evaluate": evaluate, "num_steps": steps, "num_epochs": None, "eval_every": None}
        return dataclasses.replace(self, **changes, keep=NEWEST)


def _expect(fits: bool, name: str, expected: str, got: Any) -> None:
    if not fits:
        raise InputError(f"Experiment: {name}: expected {expected}, got {short(got)}")
