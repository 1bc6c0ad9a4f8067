"""`fdl plan FILE`: what a run would take, from shapes alone; `--memory` finds the largest batch that fits."""

from __future__ import annotations

import re
import sys
from typing import Any

from fdl.commands.experiment import Opened, with_experiment
from fdl.errors import InputError
from fdl.runs.options import Option
from fdl.runs.progress import say

HELP = """\
usage: fdl plan FILE [--memory SIZE] [options of the experiment]

Shows what a run of the experiment in FILE would take: memory on the device, FLOPs of a
step, time to trace and to compile. It compiles the programs of the run and allocates
nothing on the device.

  --memory SIZE  find the largest batch that fits into SIZE, such as 16GiB

fdl plan FILE --help shows the options of the experiment as well."""

OPTIONS = (Option("memory", str, "", "Find the largest batch that fits into it, such as 16GiB."),)
UNITS = ("", "k", "m", "g", "t")


def main(arguments: list[str]) -> int:
    return with_experiment("plan", HELP, OPTIONS, arguments, _plan)


def _plan(opened: Opened) -> None:
    text, experiment = opened.chosen.memory, opened.experiment
    limit = parse_size(text) if text else None
    from fdl.commands.planning import examples, largest_batch, plan
    from fdl.training.recipe import Recipe, traced_fields

    if limit is not None:
        examples(experiment)  # says where there is no batch size, before the work
    recipe = Recipe(experiment, opened.build, opened.chosen.config, traced_fields(opened.chosen.config))
    here = plan(recipe)
    say(sys.stdout, show(experiment, here))
    if limit is not None:
        say(sys.stdout, f"\n{text}: {fit(largest_batch(recipe, limit, here), experiment.accumulate)}")


def fit(found: Any, smallest: int) -> str:
    if found is None:
        return f"not even a batch of {smallest} fits"
    beyond = "a larger one may" if found.beyond is None else f"one of {found.beyond} does not"
    return f"a batch of {found.batch} fits ({size(found.bytes)}), {'all examples' if found.everything else beyond}"


def show(experiment: Any, plan: Any) -> str:
    from fdl.runs.tables import aligned

    memory = [("memory on the device", "bytes", "")]
    memory += [(name, f"{number:,}", size(number)) for name, number in plan.kept.items() if number]
    memory += [(f"temporaries: {name}", f"{n:,}", size(n)) for name, n in plan.temporaries.items()]
    memory += [("most at once", f"{plan.most:,}", size(plan.most))]
    programs = [("program", "FLOPs", "trace", "compile")]
    for p in plan.programs:
        cached = " (from the cache)" if p.cache_hit else ""
        programs.append((p.name, f"{p.flops:,.0f}", f"{p.seconds_trace:.2f} s", f"{p.seconds_compile:.2f} s{cached}"))
    trace, compile = (sum(p[column] for p in plan.programs) for column in (1, 2))
    programs.append(("total", "", f"{trace:.2f} s", f"{compile:.2f} s"))
    batch = "" if experiment.batch_size is None else f" of {experiment.batch_size} examples"
    notes = (
        f"{experiment.total_steps():,} steps{batch} on {plan.device}",
        "programs run one after the other: only the largest temporaries (activations, gradients) count",
        "FLOPs of the chunk are those of one step; the body of a loop inside it is counted once",
    )
    tables = aligned(memory, left=1, total=True), aligned(programs, left=1, total=True)
    return "\n\n".join([*tables, "\n".join(notes)])


def size(number: float) -> str:
    """`"1.5 MiB"`.

    >>> size(0), size(1023), size(1536), size(16 * 2**30)
    ('0 B', '1023 B', '1.5 KiB', '16 GiB')
    """
    unit = 0
    while number >= 1024 and unit < len(UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.4g} {UNITS[unit].upper()}{'i' if unit else ''}B"


def parse_size(text: str) -> int:
    """Bytes: "16GiB" and "16G" are 16 * 2**30, "16GB" is 16 * 10**9.

    Raises:
      InputError: no size, or none above zero.

    >>> parse_size("16GiB"), parse_size("1.5 kB"), parse_size("512")
    (17179869184, 1500, 512)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)", text.strip().lower())
    number = 0
    if found is not None and not (found[2] == "" and found[3].startswith("i")):
        base = 1000 if found[2] and found[3] == "b" else 1024
        number = int(float(found[1]) * base ** UNITS.index(found[2]))
    if not number:
        raise InputError(f"--memory: expected a size such as 16GiB or 500MB, got {text!r}")
    return number
