"""`fdl runs list` and `fdl runs compare`: what was run, and where runs differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from fdl.commands.words import parsed, whole_numbers
from fdl.errors import InputError, did_you_mean
from fdl.paths import user_path
from fdl.runs.files import plain
from fdl.runs.progress import label, say
from fdl.runs.recorded import Recorded, find, flat, recorded, resolve
from fdl.runs.tables import aligned

HELP = """\
usage: fdl runs list [DIR] [--last N] [--status STATUS] [--sort COLUMN] [--json]
       fdl runs compare RUN RUN ... [--runs DIR] [--json]

list: every run in DIR (default: runs), or in one of its experiments: status, start,
duration, main metrics; of a sweep those of its best setting. A run whose process is gone
without a word has "died".
compare: the fields in which runs differ, of their configs and of their results. A RUN
is a folder, or the beginning of an id, or of the last part of an id, in DIR.

  --runs DIR  where the ids are looked for (default: runs)
  --last N    only the newest N
  --status S  only those that are: finished, stopped, failed, interrupted, running, died
  --sort C    by started, experiment, status, duration, or a metric such as test/accuracy,
              largest last
  --json      the same for machines"""

SHOWN = 3  # metrics in a row of the list
STATUSES = ("finished", "stopped", "failed", "interrupted", "running", "died", "unknown")
WIDTH = 32  # of a value in a comparison
ORIGIN = ("data", "versions", "python", "platform", "device", "numerics", "git")


def main(arguments: list[str]) -> int:
    if not arguments:
        raise InputError("fdl runs: list or compare? fdl runs list, or fdl runs compare RUN RUN")
    action, *rest = arguments
    if {"-h", "--help"} & set(arguments):
        say(sys.stdout, HELP)
        return 0
    if action not in ACTIONS:
        raise InputError(f"fdl runs: there is no {action!r}{did_you_mean(action, ACTIONS)}")
    options = {
        "list": {"--json": False, "--last": True, "--status": True, "--sort": True},
        "compare": {"--json": False, "--runs": True},
    }[action]
    names, chosen = parsed(f"fdl runs {action}", rest, options)
    say(sys.stdout, ACTIONS[action](names, chosen))
    return 0


def _list(names: list[str], chosen: Mapping[str, list[str]]) -> str:
    if len(names) > 1:
        raise InputError(f"fdl runs list: expected at most one folder, got {', '.join(names)}")
    folder = user_path(names[0] if names else "runs")
    runs = _sorted(_chosen([recorded(path) for path in find(folder)], chosen), chosen.get("--sort", [""])[-1])
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


def _chosen(runs: list[Recorded], chosen: Mapping[str, list[str]]) -> list[Recorded]:
    """Those of a status, and of them the newest."""
    status = chosen.get("--status", [""])[-1]
    if status and status not in STATUSES:
        raise InputError(f"fdl runs list: --status: there is no status {status!r}{did_you_mean(status, STATUSES)}")
    runs = [run for run in runs if status in ("", run.status)]
    for count in whole_numbers("fdl runs list", "--last", chosen.get("--last", [])[-1:]):
        runs = runs[-count:]
    return runs


def _sorted(runs: list[Recorded], by: str) -> list[Recorded]:
    """By a column or a metric, those without it first."""
    columns: dict[str, Callable[[Recorded], Any]] = {
        "": lambda run: 0,
        "started": lambda run: run.started,
        "experiment": lambda run: run.experiment,
        "status": lambda run: run.status,
        "duration": lambda run: run.seconds,
    }
    metrics = {name for run in runs for name in run.metrics if isinstance(run.metrics[name], int | float)}
    if by not in columns and by not in metrics:
        known = [name for name in (*columns, *sorted(metrics)) if name]
        raise InputError(f"fdl runs list: --sort: there is no {by!r}{did_you_mean(by, known)}")
    value = columns.get(by, lambda run: run.metrics.get(by))
    missing = [run for run in runs if value(run) is None]
    return missing + sorted((run for run in runs if value(run) is not None), key=value)


def _compare(names: list[str], chosen: Mapping[str, list[str]]) -> str:
    if len(names) < 2:
        raise InputError(f"fdl runs compare: expected two runs or more, got {len(names)}")
    folder = user_path(chosen.get("--runs", ["runs"])[-1])
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
    best = {name: v for name, v in numbers.items() if name.endswith(" (best)")}  # of a sweep
    numbers = best or numbers
    evaluated = {name: v for name, v in numbers.items() if not name.startswith("train/")}
    chosen = sorted(evaluated or numbers, key=lambda name: name.removesuffix(" (best)").endswith("/loss"))[:SHOWN]
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
