"""`fdl run FILE`: trains an experiment."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from fdl.commands.experiment import Opened, with_experiment
from fdl.errors import InputError
from fdl.paths import user_path
from fdl.runs.options import Option

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h
HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)

HELP = """\
usage: fdl run FILE [--seed N] [--runs DIR] [--smoke] [--tensorboard] [options of the experiment]

Trains the experiment in FILE: a Python file with a frozen dataclass Config, whose
fields are the options, and a function build(config) -> fdl.Experiment. What the run
did is kept in the new folder DIR/<experiment>/<id>.

  --seed N       draws initial values, the order of the examples, dropout: everything (default: 0)
  --runs DIR     where run folders go (default: runs)
  --smoke        only a few steps, to see that everything works
  --requeue      end with code 75 instead of 143 after SIGTERM: a scheduler starts it again
  --usr1         SIGUSR1 ends the run as SIGTERM does: saved, to be resumed
  --tensorboard  write TensorBoard events into the run folder as well (needs tensorboardX)

fdl run FILE --help shows the options of the experiment as well."""

OPTIONS = (
    Option("seed", int, 0, "Draws initial values, the order of the examples, dropout: everything."),
    Option("runs", Path, Path("runs"), "Where run folders go: RUNS/<experiment>/<id>."),
    Option("smoke", bool, False, "Only a few steps, to see that everything works."),
    Option("requeue", bool, False, "End with code 75 instead of 143 after SIGTERM: a scheduler starts it again."),
    Option("usr1", bool, False, "SIGUSR1 ends the run as SIGTERM does: saved, to be resumed."),
    Option("tensorboard", bool, False, "Write TensorBoard events into the run folder as well (needs tensorboardX)."),
)


def main(arguments: list[str], resumed: Path | None = None, how: Any = True) -> int:
    """`resumed`: the folder of the run to go on with; `how`: as `fdl.Resume` says, or as it is."""
    return with_experiment("run", HELP, OPTIONS, arguments, lambda opened: _train(opened, resumed, how))


def _train(opened: Opened, resumed: Path | None, how: Any) -> None:
    from contextlib import ExitStack

    from fdl.runs.folder import new_folder
    from fdl.runs.progress import progress, say, show_result
    from fdl.training.run import execute

    chosen = opened.chosen
    experiment = opened.experiment.smoke() if chosen.smoke else opened.experiment
    longer = getattr(how, "num_steps", None)
    if longer is not None:
        experiment = experiment.until(longer)
    if chosen.usr1:
        stop_at_usr1()
    _audit(experiment)
    name = Path(opened.file).stem
    folder = resumed or new_folder(user_path(chosen.runs), name)
    with ExitStack() as stack:
        watchers: list[Any] = []
        if chosen.tensorboard:
            from fdl.runs.tensorboard import Events

            watchers.append(stack.enter_context(Events(folder)))
        options = {"build": opened.build, "config": chosen.config, "seed": chosen.seed, "folder": folder}
        options |= {
            "source": opened.source,
            "resume": resumed is not None and how,
            "tell": lambda line: say(sys.stdout, line),
        }
        try:
            with progress(name, experiment.total_steps(), experiment.steps_per_epoch()) as watch:
                result = execute(experiment, watchers=(*watchers, watch), **options)
        except BaseException as error:
            say_where(error, folder)
            if chosen.requeue and getattr(error, "signal", None) in (signal.SIGTERM, HANGUP):
                error.exit_code = REQUEUE  # pyright: ignore[reportAttributeAccessIssue]
            raise
    show_result({**result.metrics, **result.info}, str(folder))


def stop_at_usr1() -> None:
    """SIGUSR1, which schedulers send some time before they end a job, is SIGTERM from here on."""
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda *_: signal.raise_signal(signal.SIGTERM))


def say_where(error: BaseException, folder: Path) -> None:
    """Adds to the error where the run is recorded, and how to go on with it."""
    if folder.exists():
        error.add_note(f"recorded in {folder}")
        unfinished = (folder / "checkpoints").exists() and not (folder / "result.json").exists()
        if unfinished and not isinstance(error, InputError | FloatingPointError):  # it would come to the same again
            error.add_note(f"fdl resume {folder} goes on")


def _audit(experiment: Any) -> None:
    """Refuses data that cannot be right, and prints what is worth a look.

    Labels are checked by the loss itself, which knows its classes, before anything is compiled.
    """
    from fdl.data.auditing import audit
    from fdl.runs.progress import say

    sets = {} if experiment.train is None else {"train": experiment.train}
    sets = {name: each for name, each in {**sets, **experiment.evaluate}.items() if not each.streamed}
    audited = audit(sets, targets=getattr(experiment.task.objective, "targets", "y")).require()
    if audited.findings:
        say(sys.stdout, str(audited))
