"""The picture of `peers.py`: time of the work and end to end, as multiples of JAX by hand, and curves over sizes.

python experiments/benchmarks/peers_picture.py experiments/benchmarks/results/peers.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

LIMIT, OURS = "JAX by hand", "fdl"
SWEEPS = {"fdl.sweep": OURS, "vmap by hand": LIMIT, "torch.func vmap": "PyTorch"}  # whose colours they have


def draw(results: Path) -> None:
    """Writes the picture beside the results, with the same name; where there is no matplotlib, says so."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not installed (pip install -e '.[benchmarks]')")
        return
    matplotlib.use("agg")
    from matplotlib import pyplot

    rows = json.loads(results.read_text())["rows"]
    work = [row for row in rows if row["kind"] == "workload"]
    curves = [row for row in rows if row["kind"] == "scaling"]
    for row in rows:
        if row["kind"] == "sweep" and row["variant"] in SWEEPS:
            point = {"variant": SWEEPS[row["variant"]], "axis": "members", "size": row["members"]}
            curves.append(point | {"steady": row["seconds"]})
    names = list(dict.fromkeys(row["workload"] for row in work))
    axes = list(dict.fromkeys(row["axis"] for row in curves))
    figure = pyplot.figure(figsize=(11, 4.5 + (3 if axes else 0)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(4.5, 3)) if axes else (figure, None)
    upper, lower = parts
    variants = list(dict.fromkeys(row["variant"] for row in work))
    for axis, key in zip(upper.subplots(1, 2, sharey=True), ("steady", "end_to_end"), strict=True):
        _ratios(axis, work, names, variants, key)
    if lower is not None:
        for axis, name in zip(lower.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
            _curve(axis, [row for row in curves if row["axis"] == name], name, variants)
    figure.savefig(results.with_suffix(".png"), dpi=120)
    pyplot.close(figure)


def _ratios(axis: Any, rows: list[dict[str, Any]], names: list[str], variants: list[str], key: str) -> None:
    """One line of points a workload: each variant's time over that of JAX by hand."""
    for variant in variants:
        mine = {row["workload"]: row for row in rows if row["variant"] == variant}
        limits = {row["workload"]: row[key] for row in rows if row["variant"] == LIMIT}
        places = [i for i, name in enumerate(names) if name in mine and name in limits]
        ratios = [mine[names[i]][key] / limits[names[i]] for i in places]
        big = variant == OURS
        axis.plot(ratios, places, "D" if big else "o", ms=9 if big else 5, label=variant, **_color(variant, variants))
    axis.axvline(1, color="black", lw=0.8)
    axis.set_xscale("log")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(alpha=0.3)
    axis.set_xlabel(f"{'time of the work' if key == 'steady' else 'end to end, one run'}, times {LIMIT}")
    if key == "end_to_end":
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)


def _curve(axis: Any, rows: list[dict[str, Any]], name: str, variants: list[str]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == variant]
        style = _color(variant, variants)
        axis.plot([row["size"] for row in mine], [row["steady"] for row in mine], "o-", ms=4, label=variant, **style)
    axis.set(xscale="log", yscale="log", ylabel="seconds")
    axis.set_xlabel(f"{name} of the {'sweep' if name == 'members' else 'dense network'}", fontsize=9)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)


def _color(variant: str, variants: list[str]) -> dict[str, str]:
    if variant in (OURS, LIMIT):
        return {"color": "crimson" if variant == OURS else "black"}
    return {"color": f"C{variants.index(variant) % 10}" if variant in variants else "gray"}


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
