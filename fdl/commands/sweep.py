"""`fdl sweep FILE`: trains many settings and seeds side by side."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fdl.commands.experiment import Opened, with_experiment
from fdl.commands.values import values
from fdl.errors import InputError
from fdl.paths import user_path
from fdl.runs.manifest import cores
from fdl.runs.options import Option

HELP = """\
usage: fdl sweep FILE --over FIELD=VALUES [--over ...] [--seeds N] [--runs DIR] [--save FILE]
                 [options of the experiment]

Trains the experiment in FILE for every combination of values and seeds, as members of
one compiled program wherever only floats and seeds differ. On a CPU the members share
its cores (JAX_NUM_CPU_DEVICES=1 leaves them to one device).

  --over FIELD=VALUES  1e-4,1e-3,1e-2   just these
                       log:1e-4..1e-1:8 eight values, equal steps on a logarithmic scale
                       lin:0..0.5:6     six values, equal steps
                       log:1e-4..1e-1   any value between, with --random
                       (64,),(64, 64)   of a tuple; optim.learning_rate=... of a nested field
  --random N           N settings drawn at random from what --over names (Bergstra & Bengio,
                       2012), in place of every combination
  --zip                the first values of every --over, then the second ones, ...
  --seeds N            seeds 0 .. N - 1 for each setting (default: 1)
  --max-members N      at most so many side by side (default: as many as memory holds)
  --halving N          stop all but the best 1/N after evaluations 1, N, N^2, ... (successive
                       halving; needs select= in the experiment)
  --runs DIR           where run folders go (default: runs)
  --save FILE          writes the figures of each setting as JSON as well, to keep or to commit
  --smoke              only a few steps, to see that everything works
  --usr1               SIGUSR1 ends the sweep as SIGTERM does: saved, to be resumed

The new folder DIR/<experiment>/<id> gets members.csv, a line for each of them, and the
picture sweep.png (with matplotlib), beside the files of a run. fdl sweep FILE --help
shows the options of the experiment as well."""

OPTIONS = (
    Option("over", list[str], (), "FIELD=1e-4,1e-3 or FIELD=log:1e-4..1e-1:8 or FIELD=lin:0..0.5:6; may be repeated."),
    Option("random", int, 0, "So many settings drawn at random from --over; 0 = every combination."),
    Option("zip", bool, False, "The first values of every --over, then the second ones, and so on."),
    Option("seeds", int, 1, "Each setting is trained with the seeds 0 .. N - 1."),
    Option("max_members", int, 0, "At most so many members side by side; 0 = as many as memory holds."),
    Option("halving", int, 0, "Stop all but the best 1/N of the members after evaluations 1, N, N^2, ..."),
    Option("runs", Path, Path("runs"), "Where run folders go: RUNS/<experiment>/<id>."),
    Option("save", str, "", "Write the figures of each setting to this JSON file as well."),
    Option("smoke", bool, False, "Only a few steps, to see that everything works."),
    Option("usr1", bool, False, "SIGUSR1 ends the sweep as SIGTERM does: saved, to be resumed."),
)


def main(arguments: list[str], resumed: Path | None = None, how: Any = True) -> int:
    """`resumed`: the folder of the run to go on with; `how`: as `fdl.Resume` says, or as it is."""
    share_cores()
    return with_experiment("sweep", HELP, OPTIONS, arguments, lambda opened: _sweep(opened, resumed, how))


def share_cores() -> None:
    """Divides the members over the cores of a CPU; JAX reads that when it starts."""
    # A vmap alone leaves all but one core idle where its operations are small.
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores()))


def _sweep(opened: Opened, resumed: Path | None, how: Any) -> None:
    from fdl.commands.run import say_where, stop_at_usr1
    from fdl.runs.folder import new_folder
    from fdl.runs.progress import progress, say
    from fdl.runs.published import save
    from fdl.training.sweep import execute

    chosen, over = opened.chosen, _checked(opened.chosen)
    if chosen.usr1:
        stop_at_usr1()

    def build(config: Any) -> Any:
        return opened.build(config).smoke() if chosen.smoke else opened.build(config)

    name = Path(opened.file).stem
    folder = resumed or new_folder(user_path(chosen.runs), name)
    try:
        result = execute(
            build,
            chosen.config,
            over or None,
            range(chosen.seeds),
            folder=folder,
            resume=resumed is not None and how,
            source=opened.source,
            max_members=chosen.max_members or None,
            halving=chosen.halving or None,
            tell=lambda line: say(sys.stdout, line),
            display=lambda each, count: progress(
                name, each.total_steps(), each.steps_per_epoch(), f", {count} member{'s' * (count > 1)}"
            ),
        )
    except BaseException as error:
        say_where(error, folder)
        raise
    if chosen.save:
        save(user_path(chosen.save), result, opened.file, chosen.config, folder)
    _show(result)
    say(sys.stdout, str(folder))


def _checked(chosen: Any) -> Any:
    """The settings, after what was typed has been found to make sense."""
    for name in ("seeds", "max_members", "random", "halving"):
        if getattr(chosen, name) < (1 if name == "seeds" else 0):
            raise InputError(
                f"fdl sweep: --{name.replace('_', '-')}: expected a number >= 1, got {getattr(chosen, name)}"
            )
    if chosen.save and not user_path(chosen.save).parent.is_dir():
        raise InputError(f"fdl sweep: --save {chosen.save}: there is no folder {user_path(chosen.save).parent}")
    return settings(chosen)


def settings(chosen: Any) -> Any:
    """What `fdl.sweep` takes as `over`: {field: values}, or a list of settings in pairs or at random.

    Raises:
      InputError: what was typed contradicts itself; see `values`.
    """
    from fdl.training.settings import random_settings, zipped

    over = values(chosen.config, chosen.over)
    if chosen.random and chosen.zip:
        raise InputError("fdl sweep: --random draws every field by itself, --zip takes them in pairs: choose one")
    if (chosen.random or chosen.zip) and not over:
        raise InputError(f"fdl sweep: --{'random' if chosen.random else 'zip'} needs an --over that names the fields")
    if chosen.random:
        return random_settings(over, chosen.random)
    endless = [name for name, choice in over.items() if not isinstance(choice, list)]
    if endless:
        raise InputError(f"fdl sweep: --over {endless[0]}: how many values? log:1e-4..1e-1:8 has eight; or --random N")
    return zipped(over) if chosen.zip else over


def _show(result: Any) -> None:
    """A row for each setting: the mean over its seeds, and the standard deviation of two or more."""
    from fdl.runs.progress import label, say

    names = [name for name in result.metrics if not name.startswith("train/")] or ["train/loss"]
    lines = [[*result.settings[0], *(label(name) for name in names), ""]]
    for row in result.by_setting():
        spelled = [f"{value:.5g}" if isinstance(value, float) else str(value) for value in row["setting"].values()]
        cells = [_figure(**row["metrics"][name]) for name in names]
        lines.append(
            [*map(label, spelled), *cells, f"{row['failed']} of {len(row['seeds'])} failed" if row["failed"] else ""]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        say(sys.stdout, "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _figure(values: Sequence[float], mean: float, std: float) -> str:
    if math.isnan(mean):
        return "nan"
    spread = sum(map(math.isfinite, values)) > 1
    return f"{mean:.5g} +- {std:.2g}" if spread else f"{mean:.5g}"
