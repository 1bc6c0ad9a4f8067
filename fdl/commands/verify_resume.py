"""`fdl verify-resume RUN`: stops an experiment at some steps, resumes it, and compares it with one that was not."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fdl.commands.experiment import Opened, with_experiment
from fdl.commands.resume import chosen_run, started
from fdl.commands.words import parsed, whole_numbers
from fdl.errors import InputError
from fdl.runs.progress import say

STEPS = 100
HELP = f"""\
usage: fdl verify-resume RUN [FILE] [--at STEP,STEP,...] [--steps N] [--trust] [--runs DIR]

Trains the experiment of RUN, with its options and its seed, for the first N steps; then again
for each STEP, cut off after a checkpoint there and resumed from it. Every array of the last
checkpoints (parameters, state, optimiser, selection, early stopping, history) has to have the
same bits. RUN, its folder or the beginning of its id in DIR, is not touched.

  --at STEP    where to stop, one or several (default: after the first step, at a third, before
               the last)
  --steps N    how much of the run is tried; 0 = all of it (default: {STEPS})
  --runs DIR   where the id is looked for (default: runs)
  --trust      runs the file that the run folder names, whatever it is; FILE: as for fdl resume

The exit code is 0 where all bits are the same, 1 where they are not: then the first path and
step that differ are shown."""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        say(sys.stdout, HELP)
        return 0
    command = "fdl verify-resume"
    names, given = parsed(command, arguments, {"--at": True, "--steps": True, "--runs": True, "--trust": False})
    steps = whole_numbers(command, "--steps", given.get("--steps", [str(STEPS)])[-1:], least=0)[0]
    stops = whole_numbers(command, "--at", given.get("--at", []))
    file = names.pop() if len(names) == 2 else None
    folder = chosen_run(command, names, given.get("--runs", ["runs"])[-1])
    kind, again = started(folder, file, trusted="--trust" in given)
    own: Any = importlib.import_module(f"fdl.commands.{kind}")
    if kind == "sweep":
        own.share_cores()
    codes: list[int] = []
    do = {"run": _run, "sweep": _sweep}[kind]
    with_experiment(
        kind, own.HELP, own.OPTIONS, again, lambda opened: codes.append(_verify(opened, do, steps, stops, folder))
    )
    return max(codes, default=1)


def _verify(opened: Opened, kind: Any, steps: int, stops: Sequence[int], run: Path) -> int:
    from fdl.training.verifying import verified

    total = opened.experiment.smoke().total_steps() if opened.chosen.smoke else opened.experiment.total_steps()
    steps = min(steps or total, total)
    stops = _checked(stops, steps)
    say(sys.stdout, f"{opened.file}: the first {steps} of {total} steps, and the same stopped after {_listed(stops)}")
    begun, failed = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="fdl-verify-") as place:
        for trial in verified(kind(opened), steps, stops, Path(place)):
            say(sys.stdout, _told(trial))
            failed += [trial] if trial.difference else []
    seconds = time.perf_counter() - begun
    if failed:
        say(sys.stdout, f"resuming is not safe for this experiment ({seconds:.1f} s)")
        return 1
    say(sys.stdout, f"resuming gives the same bits ({seconds:.1f} s)")
    return 0


def _checked(stops: Sequence[int], steps: int) -> list[int]:
    if steps < 2:
        raise InputError("fdl verify-resume: a run of one step cannot be stopped in between")
    if any(stop >= steps for stop in stops):
        raise InputError(
            f"fdl verify-resume: --at: expected steps below {steps}, got {max(stops)}; --steps 0 tries all"
        )
    return sorted(set(stops) or {1, max(1, steps // 3), steps - 1})


def _told(trial: Any) -> str:
    end = "ended before that" if trial.resumed is None else f"resumed from step {trial.resumed}"
    start = f"stopped after step {trial.stop}, {end}: "
    difference = trial.difference
    if difference is None:
        return f"{start}{trial.arrays} arrays, same bits"
    early = difference.step <= trial.stop
    cause = (
        f"{'even before the stop' if early else 'from there on'}: the run depends on something beside the config, the "
        "seed and the step that is in no checkpoint, such as np.random, the time, a file, or a global that changes"
    )
    return f"{start}DIFFERENT\n  {difference.path} at step {difference.step}: {difference.what}\n  {cause}"


def _listed(stops: Sequence[int]) -> str:
    return ", ".join(map(str, stops))


def _run(opened: Opened) -> Any:
    from fdl.training.run import execute

    chosen = opened.chosen

    def train(folder: Path, shorten: Any, hooks: Any, resume: bool) -> Any:
        experiment = opened.build(chosen.config)
        experiment = shorten(experiment.smoke() if chosen.smoke else experiment)
        options: Any = {"seed": chosen.seed, "folder": folder, "resume": resume, "hooks": hooks}
        return execute(experiment, build=opened.build, config=chosen.config, **options)

    return train


def _sweep(opened: Opened) -> Any:
    from fdl.commands.sweep import settings
    from fdl.training.sweep import sweep

    chosen = opened.chosen
    over = settings(chosen) or None
    limits: Any = {"max_members": chosen.max_members or None, "halving": chosen.halving or None}

    def train(folder: Path, shorten: Any, hooks: Any, resume: bool) -> Any:
        def build(config: Any) -> Any:
            experiment = opened.build(config)
            return shorten(experiment.smoke() if chosen.smoke else experiment)

        options: Any = {"folder": folder, "resume": resume, "hooks": hooks}
        return sweep(build, chosen.config, over, range(chosen.seeds), **options, **limits)

    return train
