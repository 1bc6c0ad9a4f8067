"""What a sweep returns: figures by member, and the members themselves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fdl.errors import InputError, did_you_mean
from fdl.paths import user_path
from fdl.records import listed
from fdl.runs.progress import label
from fdl.training.driver import Result, Trained


@dataclass(frozen=True)
class Bucket:
    """The members of one program, `block` at a time.

    Args:
      numbers: which members of the sweep they are.
      blocks: what was trained, one after the other.
    """

    numbers: tuple[int, ...]
    block: int
    blocks: tuple[Trained, ...]

    @property
    def params(self) -> Any:
        """The parameters of all members, each array with a leading axis for them."""
        return self._stacked(lambda trained: trained.params)

    @property
    def state(self) -> Any:
        """Their running statistics."""
        return self._stacked(lambda trained: trained.state)

    def _stacked(self, part: Any) -> Any:
        parts = [part(trained) for trained in self.blocks]
        return jax.tree.map(lambda *leaves: jax.numpy.concatenate(leaves)[: len(self.numbers)], *parts)


@dataclass(frozen=True)
class SweepResult:
    """The results of all members, in the order of settings and then seeds.

    Args:
      configs, settings, seeds: of each member; a setting is what of the config was swept.
      metrics: name -> [members], as `Result.metrics`; NaN where a member has none.
      history: name -> [members, n]; NaN after a member's end, and at steps that were none of its own.
      steps: name -> [n], of all members.
      failed: [members], the step at which the loss was no longer finite, 0 = never.
      buckets: one for each program.
      compiles: the number of training programs compiled.
      info: seconds_compile, seconds_train: of all programs together.
      stopped: why a hook stopped the first members that it did stop, see `fdl.Stop`; None where none did.
    """

    configs: tuple[Any, ...]
    settings: tuple[Mapping[str, Any], ...]
    seeds: tuple[int, ...]
    metrics: dict[str, np.ndarray]
    history: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    failed: np.ndarray
    buckets: tuple[Bucket, ...]
    compiles: int
    info: dict[str, float] = field(default_factory=dict)
    stopped: str | None = None

    def __repr__(self) -> str:
        swept = dict.fromkeys(name for setting in self.settings for name in setting)
        ends = {name: (np.nanmin(v), np.nanmax(v)) for name, v in self.metrics.items() if not np.isnan(v).all()}
        rows = [
            ("swept", ", ".join(swept) or "seeds only"),
            ("seeds", f"{len(set(self.seeds))} each"),
            *((name, f"{low:.4g} to {high:.4g}") for name, (low, high) in ends.items()),
            ("failed", f"{np.count_nonzero(self.failed)} members"),
            ("compiles", self.compiles),
        ]
        return listed(f"SweepResult of {len(self.seeds)} members:", rows, most=16)

    @classmethod
    def of(cls, members: Sequence[Any], buckets: Sequence[Bucket]) -> SweepResult:
        """The members of all buckets, brought together; those that an interrupted sweep had not begun are left out."""
        begun = sorted(number for bucket in buckets for number in bucket.numbers)
        places = {number: place for place, number in enumerate(begun)}
        members = [members[number] for number in begun]
        buckets = [replace(each, numbers=tuple(places[number] for number in each.numbers)) for each in buckets]
        results: dict[int, Result] = {}
        failed = np.zeros(len(members), int)
        for bucket in buckets:
            for place, number in enumerate(bucket.numbers):
                trained, row = bucket.blocks[place // bucket.block], place % bucket.block
                results[number] = trained.result(row)
                failed[number] = trained.failed[row]
        ordered = [results[number] for number in range(len(members))]
        names = sorted({name for result in ordered for name in result.history})
        steps = {name: np.unique(np.concatenate([r.steps[name] for r in ordered if name in r.steps])) for name in names}
        history = {name: np.full((len(members), len(steps[name])), np.nan) for name in names}
        for row, result in enumerate(ordered):
            for name, values in result.history.items():
                history[name][row, np.searchsorted(steps[name], result.steps[name])] = values
        metrics = {name: np.array([result.metrics.get(name, np.nan) for result in ordered]) for name in names}
        return cls(
            tuple(member.config for member in members),
            tuple(member.setting for member in members),
            tuple(member.seed for member in members),
            metrics,
            history,
            steps,
            failed,
            tuple(buckets),
            len(buckets),
            {
                "seconds_compile": sum(bucket.blocks[0].seconds_compile for bucket in buckets),
                "seconds_train": sum(block.seconds for bucket in buckets for block in bucket.blocks),
            },
            next((block.stopped for bucket in buckets for block in bucket.blocks if block.stopped), None),
        )

    def __len__(self) -> int:
        return len(self.seeds)

    def member(self, number: int) -> Result:
        """The `Result` of one member, as if it had run alone."""
        for bucket in self.buckets:
            if number in bucket.numbers:
                place = bucket.numbers.index(number)
                return bucket.blocks[place // bucket.block].result(place % bucket.block)
        raise InputError(f"member: expected a number in 0..{len(self) - 1}, got {number!r}")

    def best(self, metric: str, mode: str = "min") -> int:
        """The number of the member that is best by a metric; NaN never wins.

        Raises:
          InputError: no such metric, another mode than "min" and "max", nothing but NaN.
        """
        if metric not in self.metrics:
            raise InputError(f"best: no metric {metric!r}{did_you_mean(metric, self.metrics)}")
        if mode not in ("min", "max"):
            raise InputError(f"best: mode: expected 'min' or 'max', got {mode!r}")
        values = self.metrics[metric] if mode == "min" else -self.metrics[metric]
        if np.isnan(values).all():
            raise InputError(f"best: {metric!r} is NaN for every member")
        return int(np.nanargmin(values))

    def rows(self) -> list[dict[str, Any]]:
        """A dict for each member: what was swept, seed, metrics."""
        return [
            {**setting, "seed": seed, **{name: float(values[i]) for name, values in self.metrics.items()}}
            for i, (setting, seed) in enumerate(zip(self.settings, self.seeds, strict=True))
        ]

    def means(self) -> dict[str, float]:
        """For each metric its mean over the members that have one: "test/accuracy (mean)"."""
        known = {name: values[np.isfinite(values)] for name, values in self.metrics.items()}
        return {f"{name} (mean)": float(values.mean()) for name, values in known.items() if len(values)}

    def best_setting(self, metric: str, mode: str = "min") -> dict[str, float]:
        """For each metric its mean over the seeds of the setting that is best by one: "test/accuracy (best)"."""
        rows = [row for row in self.by_setting() if np.isfinite(row["metrics"].get(metric, {"mean": np.nan})["mean"])]
        if not rows:
            return {}
        sign = 1 if mode == "min" else -1
        best = min(rows, key=lambda row: sign * row["metrics"][metric]["mean"])
        figures = {f"{name} (best)": float(spread["mean"]) for name, spread in best["metrics"].items()}
        return {name: value for name, value in figures.items() if np.isfinite(value)}

    def by_setting(self) -> list[dict[str, Any]]:
        """A dict for each setting: the setting, its seeds, how many failed, and each metric's values over the seeds.

        `mean` and `std` (the population's, NaN left out) stand beside the `values`.
        """
        groups: dict[str, list[int]] = {}
        for number, setting in enumerate(self.settings):
            groups.setdefault(repr(setting), []).append(number)
        return [
            {
                "setting": dict(self.settings[rows[0]]),
                "seeds": [self.seeds[i] for i in rows],
                "failed": int((self.failed[rows] > 0).sum()),
                "metrics": {name: _spread(values[rows]) for name, values in self.metrics.items()},
            }
            for rows in groups.values()
        ]

    def draw(self, path: str | Path, metric: str | None = None) -> None:
        """A picture of a metric against each swept field, and over the steps; see `fdl.training.sweep_picture`."""
        from fdl.training.sweep_picture import draw

        draw(self, path, metric)

    def to_csv(self, path: str | Path) -> None:
        """Writes `rows` as a table with a header; a text that a spreadsheet would compute gets a "'" in front."""
        rows = [{_cell(name): _cell(value) for name, value in row.items()} for row in self.rows()]
        with user_path(path).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)


def _cell(value: Any) -> Any:
    """Text without control characters, and none that a spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    text = label(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _spread(values: np.ndarray) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    mean, std = (float(known.mean()), float(known.std())) if len(known) else (float("nan"), float("nan"))
    return {"mean": mean, "std": std, "values": values.tolist()}
