"""One step again, alone: where its first value that is not finite comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.core import Layer, fold
from fdl.inspect.probes import Probes, marks
from fdl.rules import path_of, split
from fdl.training.precision import compute_copy
from fdl.training.rewind import Moment
from fdl.training.sums import reduce
from fdl.training.task import Supervised

SHOWN = 8  # rows, parameters or findings of a kind that are listed


@dataclass(frozen=True)
class Finding:
    """A place where values are not finite.

    Args:
      where: "parameters" or "data" before the step; in it "forward", "outputs", "loss", "backward", "gradient" or
        "update".
      path: of the layer, the parameter or the entry of the batch.
      kind: "nan", "inf" or "nan and inf".
      rows: of the batch; None where values belong to no row.
      layer: as it prints.
    """

    where: str
    path: str
    kind: str
    rows: tuple[int, ...] | None = None
    layer: str = ""


@dataclass(frozen=True)
class Report:
    """What came of a step that was taken again.

    Args:
      step: its number, counted from 1; member: of a sweep.
      findings: in the order in which they arise; the first is the cause, as far as it can be seen.
      examples: where the rows of the batch are in the training set.
      largest: the path of the parameter with the largest value before the step, and that value.
    """

    step: int
    findings: tuple[Finding, ...]
    examples: tuple[int, ...] | None = None
    member: str = ""
    largest: tuple[str, float] | None = None

    def __str__(self) -> str:
        where = f"step {self.step}{f' of {self.member}' if self.member else ''}"
        if not self.findings:
            return (
                f"{where}, taken again alone, is finite: its values are at the edge of what the dtype holds, "
                "and sums that are taken in another order stay below it"
            )
        first, *rest = [self._spelled(finding) for finding in self.findings]
        large = f"the largest parameter before it: {self.largest[1]:.3g} in {self.largest[0]}" if self.largest else ""
        return "\n".join([f"first at {where}: {first}", *(f"  then {line}" for line in rest), *([large] * bool(large))])

    def _spelled(self, finding: Finding) -> str:
        place = f"{finding.path or '(model)'}{f' {finding.layer}' if finding.layer else ''}"
        said = {
            "parameters": f"{finding.kind} in the parameter {place}, before the step",
            "data": f"{finding.kind} in the data, {place!r} of the batch",
            "forward": f"{finding.kind} in the forward pass, out of layer {place}",
            "outputs": f"{finding.kind} in the forward pass, out of the model",
            "loss": f"{finding.kind} in the loss",
            "backward": f"{finding.kind} in the backward pass, into layer {place}, whose output has a finite gradient",
            "gradient": f"{finding.kind} in the backward pass, in the gradient of {place}",
            "update": f"{finding.kind} in the update, in the parameter {place}; its gradient is finite",
        }[finding.where]
        return said + self._rows(finding.rows)

    def _rows(self, rows: tuple[int, ...] | None) -> str:
        if not rows:
            return ""
        said = f"; {_listed('row', rows)} of the batch"
        if self.examples is not None:
            said += f", {_listed('example', [self.examples[row] for row in rows])} of the training set"
        return said


def examine(moment: Moment, member: str = "") -> Report:
    """Takes the step again, with a probe on each layer, and says where its first value that is not finite comes from.

    Layers are seen in tasks made by `fdl.supervised` from a layer; otherwise outputs, loss and gradients are.
    """
    experiment, batch = moment.experiment, moment.batch
    if experiment.augment is not None:
        batch = experiment.augment(batch, fold(moment.key, "augment"))
    size = next((len(leaf) for leaf in jax.tree.leaves(batch) if jnp.ndim(leaf)), 0)
    findings = _in_leaves("parameters", moment.now.params, 0) + _in_leaves("data", batch, size)
    if experiment.task.step is None:
        findings += _in_passes(moment, batch, size)
    if all(finding.where in ("parameters", "data") for finding in findings):
        findings += _in_update(moment)
    examples = None if moment.examples is None else tuple(int(i) for i in moment.examples)
    if experiment.augment is not None and examples is not None and len(examples) != size:
        examples = None  # rows that augment made are no rows of the set
    return Report(moment.step, tuple(findings), examples, member, _largest(moment.now.params))


def _largest(params: Any) -> tuple[str, float] | None:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    sizes = [
        (path_of(path), float(jnp.abs(leaf.astype(jnp.float32)).max()))
        for path, leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size
    ]
    known = [each for each in sizes if each[1] < np.inf]
    return max(known, key=lambda each: each[1], default=None)


def _in_leaves(where: str, tree: Any, size: int) -> list[Finding]:
    """The leaves that are not finite; at most one is shown of parameters, where one brings the next."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            found += _finding(where, path_of(path), np.asarray(marks(leaf, size)))
    return found[:SHOWN] if where == "data" else found[:1]


def _in_passes(moment: Moment, batch: Any, size: int) -> list[Finding]:
    """The forward and the backward pass, micro-batch after micro-batch until one is not finite."""
    count, state = moment.experiment.accumulate, moment.now.state
    for number in range(count):
        part, key = batch, moment.key
        if count > 1:
            rows = slice(number * size // count, (number + 1) * size // count)
            part, key = jax.tree.map(lambda x, rows=rows: x[rows], batch), fold(key, "micro", number)
        findings, state = _in_pass(moment, state, part, key, size // count)
        if findings:
            first = number * size // count
            shifted = [f.rows and tuple(row + first for row in f.rows) for f in findings]
            return [dataclasses.replace(f, rows=rows) for f, rows in zip(findings, shifted, strict=True)]
    return []


def _in_pass(moment: Moment, state: Any, batch: Any, key: jax.Array, size: int) -> tuple[list[Finding], Any]:
    experiment, now, probes = moment.experiment, moment.now, Probes(size)
    objective: Any = experiment.task.objective
    if isinstance(objective, Supervised) and isinstance(objective.model, Layer):
        objective = dataclasses.replace(objective, model=probes.on(objective.model))
    trained, frozen, join = now.params, None, lambda trained, frozen: trained
    if experiment.trainable:
        trained, frozen, join = split(experiment.trainable, now.params)

    def total(trained: Any, state: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        params = compute_copy(join(trained, frozen), experiment.precision)
        outcome = objective(params, state, batch, key=key, train=True)
        means = reduce(outcome)
        scale = 1.0 if now.loss_scale is None else now.loss_scale.scale
        seen = {
            "loss": marks(outcome.loss, size),
            "outputs": marks(outcome.outputs, size),
            "total": means["loss"].total,
        }
        return means["loss"].total * scale, (seen, state if outcome.state is None else outcome.state)

    (_, (seen, state)), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(trained, state, batch, key)
    jax.effects_barrier()
    forward = probes.first_forward()
    if forward is not None:
        return [Finding("forward", forward.path, *_kind(forward.seen["out"]), forward.shown())], state
    found = _finding("outputs", "", np.asarray(seen["outputs"])) if not probes.calls else []
    found = found or _finding("loss", "", np.asarray(seen["loss"]))
    if not found and not np.isfinite(seen["total"]):
        found = [Finding("loss", "", "inf")]  # each is finite, their sum is not
    backward = None if found else probes.first_backward()
    if backward is not None:
        found = [Finding("backward", backward.path, *_kind(backward.incoming()), backward.shown())]
    return found or _in_leaves("gradient", grads, 0), state


def _in_update(moment: Moment) -> list[Finding]:
    """The whole step, with what the optimizer, or the task's own step, makes of finite gradients."""
    update = dataclasses.replace(moment.experiment.update(), nonfinite="stop")
    new, _ = jax.jit(update)(moment.now, moment.batch, moment.key)
    return _in_leaves("update", new.params, 0)


def _finding(where: str, path: str, seen: np.ndarray) -> list[Finding]:
    return [Finding(where, path, *_kind(seen))] if seen.any() else []


def _kind(seen: np.ndarray) -> tuple[str, tuple[int, ...] | None]:
    """What marks say: of which kind, and in which rows."""
    kind = " and ".join(name for name, mine in zip(("nan", "inf"), seen, strict=True) if mine.any())
    rows = tuple(int(row) for row in np.flatnonzero(seen[:, :-1].any(0)))
    return kind, None if seen[:, -1].any() else rows


def _listed(word: str, numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN])) + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")
    return f"{word}{'s' * (len(numbers) > 1)} {shown}"
