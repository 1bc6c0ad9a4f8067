"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence

from fdl.runs.progress import label


def aligned(lines: Sequence[Sequence[str]], left: int, total: bool = False) -> str:
    """The head, a rule, the lines; where the last is a total, a rule above it. Columns from `left` on are figures.

    >>> print(aligned([("name", "n"), ("a", "1"), ("all", "100")], left=1, total=True))
    name    n
    ---------
    a       1
    ---------
    all   100
    """
    lines = [[label(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(line)).rstrip()
        for line in lines
    ]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    end = len(text) - 1 if total else len(text)
    return "\n".join([text[0], rule, *text[1:end], *([rule, text[-1]] if total else [])])
