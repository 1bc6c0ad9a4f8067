"""The picture of a sweep: a metric against each swept field, and its curves over the steps."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from fdl.errors import InputError, did_you_mean
from fdl.runs.progress import label
from fdl.training.fields import value_at
from fdl.training.sweep_result import SweepResult

COLOURS = "viridis"  # ordered, and told apart by the colour-blind and in grey
POINTS = 100  # of a curve: a value for every step would be a band of noise
CURVES = 8  # more curves than this in one panel cannot be told apart


def draw(result: SweepResult, path: str | os.PathLike[str], metric: str | None = None, dpi: int = 110) -> None:
    """Writes a picture of `metric` (default: the first of an evaluation) to `path`; its ending says the format.

    A panel for each swept field shows every member as a dot and the mean over members of that value as a line, on a
    logarithmic axis where the values are positive and lie in more than a factor of 20. The last panel shows the curve
    of each value of the first field: the mean over its members, in a band from the smallest to the largest; of a metric
    that was evaluated only once, the training loss instead. Members that failed, whose metric is no number, are counted
    in the title.

    Raises:
      InputError: no such metric; a metric that no member has.
      ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = shown(result, metric)
    names = list(dict.fromkeys(name for setting in result.settings for name in setting))
    figure = Figure(figsize=(4.2 * (len(names) + 1) + 0.9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: whatever backend the caller has stays
    panels = figure.subplots(1, len(names) + 1, squeeze=False)[0]
    values = result.metrics[metric]
    for axis, name in zip(panels, names, strict=False):
        _against(axis, name, _at(result, name), values, metric)
    once = len(result.steps[metric]) == 1 and "train/loss" in result.history
    _curves(panels[-1], result, "train/loss" if once else metric, names[0] if names else None)
    lost = int((~np.isfinite(values)).sum())
    if lost:
        figure.suptitle(f"{lost} of {len(values)} members have no {_text(metric)}", fontsize="small")
    figure.savefig(path, dpi=dpi)


def shown(result: SweepResult, metric: str | None) -> str:
    """The metric that a picture shows."""
    if metric is None:
        measured = [name for name in result.metrics if not name.startswith("train/")] or ["train/loss"]
        metric = next((name for name in measured if not name.endswith("/loss")), measured[0])
    if metric not in result.metrics:
        raise InputError(f"picture: no metric {metric!r}{did_you_mean(metric, result.metrics)}")
    if not np.isfinite(result.metrics[metric]).any():
        raise InputError(f"picture: {metric!r} is NaN for every member")
    return metric


def _at(result: SweepResult, name: str) -> list[Any]:
    """The value of a field for each member; a list, which is no key of a dict, as text."""
    values = [value_at(config, name) for config in result.configs]
    return [value if getattr(value, "__hash__", None) else repr(value) for value in values]


def _against(axis: Any, name: str, at: list[Any], values: np.ndarray, metric: str) -> None:
    """Members over the values of one field."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in at)
    levels = sorted(set(at)) if numbers else list(dict.fromkeys(at))
    x = np.array(at, float) if numbers else np.array([levels.index(value) for value in at], float)
    places = np.unique(x)
    means = [np.nanmean(values[x == place]) if np.isfinite(values[x == place]).any() else np.nan for place in places]
    axis.plot(x, values, "o", color="0.55", markersize=3, alpha=0.6, markeredgewidth=0)
    axis.plot(places, means, "-o", color=_colours(1)[0], markersize=4)
    if numbers and len(places) > 1 and places[0] > 0 and places[-1] / places[0] > 20:
        axis.set_xscale("log")
    if not numbers:
        axis.set_xticks(range(len(levels)), [_text(level) for level in levels])
    axis.set(xlabel=_text(name), ylabel=_text(metric))
    axis.grid(alpha=0.25)


def _curves(axis: Any, result: SweepResult, metric: str, name: str | None) -> None:
    """The metric over the steps, a band for each value of one field."""
    history, steps = result.history[metric], result.steps[metric]
    at = _at(result, name) if name else ["all members"] * len(result)
    levels = list(dict.fromkeys(at))
    levels = sorted(levels) if all(isinstance(level, int | float) for level in levels) else levels
    if len(levels) > CURVES:
        levels = [levels[round(i)] for i in np.linspace(0, len(levels) - 1, CURVES)]
    for level, colour in zip(levels, _colours(len(levels)), strict=True):
        rows, x = _thinned(history[[value == level for value in at]], steps)
        if not len(x):
            continue
        text = f"{level:.3g}" if isinstance(level, float) else _text(level)
        axis.plot(x, np.nanmean(rows, 0), "-" if len(x) > 1 else "o", color=colour, linewidth=1.4, label=text)
        axis.fill_between(x, np.nanmin(rows, 0), np.nanmax(rows, 0), color=colour, alpha=0.15, linewidth=0)
    axis.set(xlabel="steps", ylabel=_text(metric))
    if metric.endswith("loss") and (history[np.isfinite(history)] > 0).all():
        axis.set_yscale("log")
    axis.grid(alpha=0.25)
    small = {"fontsize": "x-small", "title_fontsize": "x-small"}
    axis.legend(
        title=name and _text(name), frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02), **small
    )  # beside the curves


def _text(value: Any) -> str:
    """On one line, and no formula: between two dollar signs matplotlib would see one."""
    return label(str(value)).replace("$", r"\$")


def _thinned(rows: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `POINTS` columns, each the mean of its neighbours, and those where nobody has a number left out."""
    parts = np.array_split(np.arange(len(steps)), min(len(steps), POINTS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no numbers
        rows = np.stack([np.nanmean(rows[:, part], 1) for part in parts], 1)
    known = np.isfinite(rows).any(0)
    return rows[:, known], np.array([steps[part[-1]] for part in parts])[known]


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps[COLOURS](share) for share in np.linspace(0.1, 0.85, max(count, 2))][:count]
