"""`fdl runs list` and `fdl runs compare`: what was run, and where runs differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from fdl.commands.words import parsed
from fdl.errors import InputError, did_you_mean
from fdl.runs.files import plain
from fdl.runs.progress import label, say
from fdl.runs.recorded import Recorded, find, flat, recorded, resolve
from fdl.runs.tables import aligned

HELP = """\
usage: fdl runs list [DIR] [--json]
       fdl runs compare RUN RUN ... [--runs DIR] [--json]

list: every run in DIR (default: runs), or in one of its experiments: status, start,
duration, main metrics.
compare: the fields in which runs differ, of their configs and of their results. A RUN
is a folder, or the beginning of an id, or of the last part of an id, in DIR.

  --runs DIR  where the ids are looked for (default: runs)
  --json      the same for machines"""

SHOWN = 3  # metrics in a row of the list
WIDTH = 32  # of a value in a comparison
ORIGIN = ("data", "versions", "python", "platform", "device", "numerics", "git")


def main(arguments: list[str]) -> int:
    if not arguments:
        raise InputError("fdl runs: list or compare? fdl runs list, or fdl runs compare RUN RUN")
    action, *rest = arguments
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    if action not in ACTIONS:
        raise InputError(f"fdl runs: there is no {action!r}{did_you_mean(action, ACTIONS)}")
    options = {"list": {"--json": False}, "compare": {"--json": False, "--runs": True}}[action]
    names, chosen = parsed(f"fdl runs {action}", rest, options)
    say(sys.stdout, ACTIONS[action](names, chosen))
    return 0


def _list(names: list[str], chosen: Mapping[str, list[str]]) -> str:
    if len(names) > 1:
        raise InputError(f"fdl runs list: expected at most one folder, got {', '.join(names)}")
    folder = Path(names[0] if names else "runs")
    runs = [recorded(path) for path in find(folder)]
    if "--json" in chosen:
        hidden = ("config", "manifest")
        return _json([{k: v for k, v in run._asdict().items() if k not in hidden} for run in runs])
    if not runs:
        return f"no runs in {folder}"
    lines = [("experiment", "id", "status", "started (UTC)", "duration", "metrics")]
    for run in runs:
        started = "-" if run.started is None else run.started[:16].replace("T", " ")
        lines.append((run.experiment, run.id, run.status, started, _duration(run.seconds), _main_metrics(run)))
    return aligned(lines, left=6)


def _compare(names: list[str], chosen: Mapping[str, list[str]]) -> str:
    if len(names) < 2:
        raise InputError(f"fdl runs compare: expected two runs or more, got {len(names)}")
    folder = Path(chosen.get("--runs", ["runs"])[-1])
    runs = [recorded(resolve(name, folder)) for name in names]
    parts = {
        "config": _differences(runs, lambda run: {**flat(run.config), "seed": run.manifest.get("seed")}),
        "results": _differences(runs, lambda run: {"status": run.status, **run.metrics}),
        "origin": _differences(runs, lambda run: flat({n: run.manifest[n] for n in ORIGIN if n in run.manifest})),
    }
    if "--json" in chosen:
        listed = [{"path": run.path, "id": run.id, "problems": run.problems} for run in runs]
        return _json({"runs": listed, **parts})
    marks = [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(len(runs))]
    text = [f"{mark}  {label(run.path)}{_remarks(run)}" for mark, run in zip(marks, runs, strict=True)]
    for name, fields in parts.items():
        lines = [(name, *marks), *((field, *map(_value, values)) for field, values in fields.items())]
        text += ["", aligned(lines, left=1) if fields else f"{name}: no difference"]
    return "\n".join(text)


ACTIONS: dict[str, Callable[[list[str], Mapping[str, list[str]]], str]] = {"list": _list, "compare": _compare}


def _differences(runs: Sequence[Recorded], fields_of: Callable[[Recorded], dict[str, Any]]) -> dict[str, list[Any]]:
    """The fields with more than one value, missing ones None."""
    columns = [plain(fields_of(run)) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = {name: [column.get(name) for column in columns] for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def _main_metrics(run: Recorded) -> str:
    """Those of evaluation, or else of training; and what is wrong with the folder."""
    numbers = {name: v for name, v in run.metrics.items() if "/" in name and isinstance(v, int | float)}
    evaluated = {name: v for name, v in numbers.items() if not name.startswith("train/")}
    chosen = sorted(evaluated or numbers, key=lambda name: name.endswith("/loss"))[:SHOWN]
    shown = [f"{name} {_number(numbers[name], 4)}" for name in chosen]
    if run.status != "finished" and run.metrics.get("steps") is not None:
        shown.append(f"at step {run.metrics['steps']}")
    return "  ".join(shown) + _remarks(run)


def _remarks(run: Recorded) -> str:
    return f"  ({'; '.join(run.problems)})" if run.problems else ""


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def _value(value: Any) -> str:
    text = "-" if value is None else _number(value, 6) if isinstance(value, float) else str(value)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def _number(value: float, digits: int) -> str:
    try:
        return f"{value:.{digits}g}"
    except OverflowError:  # an integer of a damaged file
        return str(value)


def _json(value: Any) -> str:
    return json.dumps(plain(value), indent=2, allow_nan=False)
