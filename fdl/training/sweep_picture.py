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
FAR, FAR_LOG, SMALL = 100.0, 1e4, 0.1
"""So many times larger than all others, a member would press them into a line. Less than `SMALL` counts as that: an
accuracy of 0.9 is never too far from others of 0."""


def draw(result: SweepResult, path: str | os.PathLike[str], metric: str | None = None, dpi: int = 110) -> None:
    """Writes a picture of `metric` (default: the first of an evaluation) to `path`; its ending says the format.

    A panel for each swept field shows every member as a dot and the mean over members of that value as a line, on a
    logarithmic axis where the values are positive and lie in more than a factor of 20. The last panel shows the curve
    of each value of the first field: the mean over its members, in a band from the smallest to the largest; of a metric
    that was evaluated only once, the training loss instead. Above each panel is how many seeds or members that are.
    A member that diverged, so that the others would lie on one line, is beyond the axis: a triangle at the edge, left
    out of mean and band. Those members, and members that failed, whose metric is no number, are counted in the title.

    Raises:
      InputError: no such metric; a metric that no member has.
      ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = shown(result, metric)
    names = list(dict.fromkeys(name for setting in result.settings for name in setting))
    figure = Figure(figsize=(4.2 * (len(names) + 1) + 0.9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: whatever backend the caller has stays
    panels = figure.subplots(1, len(names) + 1, squeeze=False)[0]
    values = result.metrics[metric]
    positive = _positive(metric, values)
    far = _far(values[:, None], positive)
    for axis, name in zip(panels, names, strict=False):
        _against(axis, name, _at(result, name), values, far, metric)
        axis.set_yscale("log" if positive else "linear")
        whose = _whose(result, _at(result, name))
        axis.set_title(f"dots: members; line: mean of {whose}", fontsize="x-small")
    once = len(result.steps[metric]) == 1 and "train/loss" in result.history
    curve = "train/loss" if once else metric
    out = _curves(panels[-1], result, curve, names[0] if names else None)
    lost, count = int((~np.isfinite(values)).sum()), len(values)
    told = [f"{lost} of {count} members have no {_text(metric)}"] if lost else []
    told += _beyond(metric, values[:, None], far) if names else []
    told += _beyond(curve, result.history[curve], out) if curve != metric or not names else []
    if told:
        figure.suptitle("\n".join(told), fontsize="small")
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


def _whose(result: SweepResult, at: list[Any]) -> str:
    """How many seeds or, where a value has several settings, members there are of each value."""
    counts = {value: at.count(value) for value in at}
    settings = {value: len({repr(s) for s, x in zip(result.settings, at, strict=True) if x == value}) for value in at}
    word = "member" if max(settings.values()) > 1 else "seed"
    low, high = min(counts.values()), max(counts.values())
    return f"{low} {word}{'s' * (low > 1)}" if low == high else f"{low} to {high} {word}s"


def _positive(metric: str, values: np.ndarray) -> bool:
    """Whether a metric is a loss that a logarithmic axis can show."""
    return metric.endswith("loss") and bool((values[np.isfinite(values)] > 0).all())


def _far(rows: np.ndarray, logarithmic: bool) -> np.ndarray:
    """Which members, [members], are so much larger than all others, of which there are more, that they hide those."""
    known = np.isfinite(rows)
    sizes = np.where(known, np.abs(rows), 0.0).max(1, initial=0.0)
    order, far = np.argsort(sizes), np.zeros(len(rows), bool)
    for count in range(1, (known.any(1).sum() - 1) // 2 + 1):
        others = order[:-count]
        ratio = sizes[order[-count]] / max(sizes[others[-1]], SMALL)
        within = sizes[others[-1]] / np.abs(rows[others])[known[others]].min() if logarithmic else 0.0
        if ratio > max(FAR_LOG if logarithmic else FAR, within):
            far[order[-count:]] = True
            break
    return far


def _beyond(metric: str, rows: np.ndarray, far: np.ndarray) -> list[str]:
    """A line on the members that are not within the axis."""
    if not far.any():
        return []
    known = rows[far][np.isfinite(rows[far])]
    most = known[np.argmax(np.abs(known))]
    return [
        f"{far.sum()} of {len(far)} members beyond the axis, {_text(metric)} up to {most:.3g}: not in mean and band"
    ]


def _against(axis: Any, name: str, at: list[Any], values: np.ndarray, far: np.ndarray, metric: str) -> None:
    """Members over the values of one field."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in at)
    levels = sorted(set(at)) if numbers else list(dict.fromkeys(at))
    x = np.array(at, float) if numbers else np.array([levels.index(value) for value in at], float)
    places, near = np.unique(x), np.where(far, np.nan, values)
    means = [np.nanmean(near[x == place]) if np.isfinite(near[x == place]).any() else np.nan for place in places]
    axis.plot(x, near, "o", color="0.55", markersize=3, alpha=0.6, markeredgewidth=0)
    axis.plot(places, means, "-o", color=_colours(1)[0], markersize=4)
    edges = np.where(values[far] > 0, 0.98, 0.02)
    axis.scatter(x[far], edges, marker="^", color="0.3", s=24, transform=axis.get_xaxis_transform())
    if numbers and len(places) > 1 and places[0] > 0 and places[-1] / places[0] > 20:
        axis.set_xscale("log")
    if not numbers:
        axis.set_xticks(range(len(levels)), [_text(level) for level in levels])
    axis.set(xlabel=_text(name), ylabel=_text(metric))
    axis.grid(alpha=0.25)


def _curves(axis: Any, result: SweepResult, metric: str, name: str | None) -> np.ndarray:
    """The metric over the steps, a band for each value of one field; which members, [members], are beyond the axis."""
    history, steps = result.history[metric], result.steps[metric]
    positive = _positive(metric, history)
    far = _far(history, positive)
    history = np.where(far[:, None], np.nan, history)
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
    whose, several = _whose(result, at), len(at) > len(set(at))
    title = f"line: mean; band: smallest to largest of {whose}" if several else "a line is one member: no band"
    axis.set_title(title, fontsize="x-small")
    axis.set(xlabel="steps", ylabel=_text(metric))
    if positive:
        axis.set_yscale("log")
    axis.grid(alpha=0.25)
    small = {"fontsize": "x-small", "title_fontsize": "x-small"}
    axis.legend(
        title=name and _text(name), frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02), **small
    )  # beside the curves
    return far


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
