"""The README's table of `peers.py`, made from its results.

python experiments/benchmarks/peers_table.py             # writes it into README.md, between its two comments
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README, RESULTS = HERE.parents[1] / "README.md", HERE / "results" / "peers.json"
BEGIN, END = "<!-- peers: experiments/benchmarks/peers_table.py -->\n", "<!-- end of peers -->\n"
LIMIT = "JAX by hand"


def table(results: dict[str, Any]) -> str:
    """A row a variant, a column a workload: time over that of JAX by hand, and seconds end to end in brackets."""
    rows = {(row["workload"], row["variant"]): row for row in results["rows"] if row["kind"] == "workload"}
    names, variants = (list(dict.fromkeys(pair[i] for pair in rows)) for i in (0, 1))
    seconds = [f"{rows[name, LIMIT]['steady']:.3g} s" for name in names]
    lines = [_line(["", *names]), _line(["---"] * (len(names) + 1)), _line([f"{LIMIT}, the work alone", *seconds])]
    lines += [_line([variant, *(_cell(rows.get((name, variant))) for name in names)]) for variant in variants]
    return "".join(lines)


def sweep_table(results: dict[str, Any]) -> str:
    """A row a variant, a column a number of members: seconds, and in brackets how often the time of `fdl.sweep`."""
    rows = {(row["members"], row["variant"]): row for row in results["rows"] if row["kind"] == "sweep"}
    counts, variants = (list(dict.fromkeys(pair[i] for pair in rows)) for i in (0, 1))
    lines = [_line(["members of a sweep", *map(str, counts)]), _line(["---"] * (len(counts) + 1))]
    for variant in variants:
        mine = [rows[count, variant] for count in counts]
        marks = ["~" * (row["measured"] != row["members"]) + "!" * (row["disturbed"] > 0) for row in mine]
        cells = [f"{m}{row['seconds']:.3g} s ({row['ratio']:.3g})" for m, row in zip(marks, mine, strict=True)]
        lines.append(_line([variant, *cells]))
    return "".join(lines)


def checkpoint_table(results: dict[str, Any]) -> str:
    """A row a library: milliseconds, median and range."""
    lines = [_line(["256 MiB, ms", "training waits", "written", "restored"]), _line(["---"] * 4)]
    for row in results["rows"]:
        if row["kind"] == "checkpoint":
            spreads = (row[name] for name in ("blocking", "written", "restored"))
            lines.append(_line([row["variant"], *(f"{m:.0f} ({low:.0f} to {high:.0f})" for m, low, high in spreads)]))
    return "".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['ratio']:.3g}{'!' * (row['disturbed'] > 0)} ({row['end_to_end']:.3g} s)"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def inserted(readme: str) -> str:
    """The README with the table between its two comments; as it is, where it has none."""
    before, found, rest = readme.partition(BEGIN)
    if not found:
        return readme
    results = json.loads(RESULTS.read_text())
    kinds = {row["kind"] for row in results["rows"]}
    makers = {"workload": table, "sweep": sweep_table, "checkpoint": checkpoint_table}
    tables = "\n".join(make(results) for kind, make in makers.items() if kind in kinds)
    return before + BEGIN + tables + END + rest.partition(END)[2]


if __name__ == "__main__":
    README.write_text(inserted(README.read_text()))
