"""Tables (CSV, TSV) whose columns have declared types."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from fdl.data.formats.source import Source, open_source
from fdl.data.formats.text import read_as_written
from fdl.errors import InputError, did_you_mean

KINDS = ("float", "int", "category", "text", "skip")
MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "NULL", "null")


class Table(NamedTuple):
    """Columns by name."""

    columns: dict[str, np.ndarray]
    """float32 (NaN = missing), int64, int32 codes of categories (-1 = missing) or objects (str), each [n]."""
    categories: dict[str, tuple[str, ...]]
    """What the codes of a category column stand for."""


def read_table(
    source: str | PathLike[str] | bytes | Source,
    columns: Mapping[str, str | Sequence[str]],
    *,
    header: bool = True,
    delimiter: str = ",",
    quotes: bool = True,
    decimal: str = ".",
    missing: Sequence[str] = MISSING,
) -> Table:
    """A table (CSV, TSV) with typed columns; blanks around a field do not count.

    A line break between double quotes belongs to the field. Blank lines are left out, but in a table of one column,
    where a blank line with a row behind it is a missing value.

    Args:
      source: a file in UTF-8, perhaps packed by gzip, xz or bzip2; `~` in its path is the home folder.
      columns: name -> kind: "float", "int", "category" (codes in the order of the sorted values), the values of a
        category themselves (any other is then an error), "text", or "skip".
      header: the first line holds names, and every one of `columns` must be there, in any order; those that are not
        named in `columns` are left out. Without a header the columns are those of `columns`, in order.
      delimiter: between fields.
      quotes: double quotes may enclose a field.
      decimal: "." or ","; separators of thousands are refused.
      missing: fields that mean "no value": NaN in a "float", -1 in a category, an error in an "int".

    Raises:
      InputError: a name, kind, row or field that is wrong, with its line.

    pandas: `read_csv`, which guesses the kinds of columns.

    >>> table = read_table(b"age,job\\n39, clerk\\n?,nurse\\n", {"age": "float", "job": "category"})
    >>> table.columns["age"].tolist(), table.columns["job"].tolist(), table.categories["job"]
    ([39.0, nan], [0, 1], ('clerk', 'nurse'))
    """
    _check_arguments(columns, delimiter, decimal)
    source = open_source(source, "a table")
    name, text = read_as_written(source, "a table")
    if not text.strip():
        raise source.other("a table with rows")
    rows = _rows(name, text, delimiter, csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
    if header:
        rows = list(itertools.dropwhile(lambda row: not "".join(row[1]).strip(), rows))
    names = [field.strip() for field in rows.pop(0)[1]] if header and rows else list(columns)
    _check_header(source, names, columns, delimiter, None if header or not rows else rows[0][1])
    rows = _without_blank_lines(rows, len(names))
    _check_rows(name, names, rows)
    read: dict[str, np.ndarray] = {}
    categories: dict[str, tuple[str, ...]] = {}
    lines = [number for number, _ in rows]
    for column, kind in columns.items():
        place = names.index(column)
        cells = _Cells(f"{name}: column {column!r}", lines, [row[place].strip(" \t") for _, row in rows])
        if kind in ("float", "int"):
            read[column] = _numbers(cells, str(kind), missing, decimal)
        elif kind == "text":
            read[column] = np.asarray(cells.fields, object)  # fixed width would be the longest field for every row
        elif kind != "skip":
            read[column], categories[column] = _codes(cells, kind, missing)
    return Table(read, categories)


class _Cells(NamedTuple):
    where: str
    lines: list[int]
    fields: list[str]

    def error(self, row: int, expected: str, hint: str = "") -> InputError:
        got = f"{self.fields[row][:40]!r}{hint}"
        return InputError(f"{self.where}, line {self.lines[row]}: expected {expected}, got {got}")


def _rows(name: str, text: str, delimiter: str, quoting: Any) -> list[tuple[int, list[str]]]:
    """The fields of each row, with the number of its first line; without blank lines at the end.

    The reader gets the line ends as they are: those inside quotes belong to their field.
    """
    end = text.rstrip(" \t\r\n".replace(delimiter, ""))
    lines = io.StringIO(end, newline="")
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, skipinitialspace=True, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for row in reader:
            rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        hint = "; a quote that is not closed?" if quoting != csv.QUOTE_NONE else ""
        expected = f"fields with {delimiter!r} between"
        raise InputError(f"{name}, line {line}: expected {expected}, got {error}{hint}") from None
    return rows


def _without_blank_lines(rows: list[tuple[int, list[str]]], width: int) -> list[tuple[int, list[str]]]:
    if width == 1:
        return [(number, row or [""]) for number, row in rows]
    return [(number, row) for number, row in rows if len(row) > 1 or "".join(row).strip()]


def _check_arguments(columns: Mapping[str, str | Sequence[str]], delimiter: str, decimal: str) -> None:
    if not isinstance(columns, Mapping) or not columns:
        raise InputError(f"columns: expected a dict such as {{'age': 'float', 'job': 'category'}}, got {columns!r}")
    for column, kind in columns.items():
        if isinstance(kind, str) and kind not in KINDS:
            raise InputError(f"column {column!r}: no kind {kind!r}{did_you_mean(kind, KINDS)}, or a list of values")
        if not isinstance(kind, Sequence):
            expected = f"one of {', '.join(KINDS)}, or a list of values"
            raise InputError(f"column {column!r}: expected {expected}, got {kind!r}")
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise InputError(f"delimiter: expected one character, got {delimiter!r}")
    if decimal not in (".", ",") or decimal == delimiter:
        raise InputError(f"decimal: expected '.' or ',', and not the delimiter {delimiter!r}, got {decimal!r}")


def _check_header(
    source: Source, names: list[str], columns: Mapping[str, Any], delimiter: str, first: list[str] | None
) -> None:
    """Every column is there once; `first` is the first row of a table without a header."""
    if first is not None and len(first) > 1 and [field.strip() for field in first] == names:
        raise source.error("a table without a header", "the names of the columns in its first line; header=True?")
    for column in columns:
        if names.count(column) != 1:
            what = "twice" if column in names else "not there" + did_you_mean(column, names)
            raise InputError(
                f"{source.name}: expected one column {column!r} in the header, got it {' '.join(what[:300].split())}"
                f"{_other_table(source, names, delimiter)}"
            )


def _other_table(source: Source, fields: list[str], delimiter: str) -> str:
    """A hint where another delimiter would cut the first row, or where the file is no table."""
    kind = source.kind()
    if kind:
        return f"; it is {kind}"
    other = max(",;\t|", key="".join(fields).count)
    cut = len(fields) == 1 and other != delimiter and other in fields[0]
    return f"; the fields look separated by {other!r}: pass delimiter={other!r}" if cut else ""


def _check_rows(name: str, names: list[str], rows: list[tuple[int, list[str]]]) -> None:
    if not rows:
        raise InputError(f"{name}: expected a table with rows, got none")
    for number, row in rows:
        if len(row) != len(names):
            hint = ""
            if len(row) == 1 and any(other in row[0] for other in ";\t|"):
                hint = "; another delimiter?"
            raise InputError(f"{name}, line {number}: expected {len(names)} fields, got {len(row)}{hint}")


def _numbers(cells: _Cells, kind: str, missing: Sequence[str], decimal: str) -> np.ndarray:
    values = np.zeros(len(cells.fields), np.float32 if kind == "float" else np.int64)
    for row, field in enumerate(cells.fields):
        if field in missing and kind == "float":
            values[row] = np.nan
            continue
        try:
            if decimal == "," and "." in field:
                raise ValueError("a separator of thousands")
            value = (float if kind == "float" else int)(field.replace(decimal, "."))
            good = "_" not in field and abs(value) < (3.4e38 if kind == "float" else 2**63) and math.isfinite(value)
        except ValueError:
            good, value = False, 0
        if not good:
            hint = (
                "an integer (no value? declare it 'float')" if kind == "int" else f"a finite number or one of {missing}"
            )
            raise cells.error(row, hint, _number_hint(field, decimal))
        values[row] = value
    return values


def _number_hint(field: str, decimal: str) -> str:
    if re.fullmatch(r"[-+]?\d+,\d+", field) and decimal == ".":
        return "; a decimal comma? pass decimal=','. A separator of thousands? take it out"
    if re.fullmatch(r"[-+]?\d{1,3}([.,' \u00a0\u2019\u202f]\d{3})+([.,]\d+)?", field):
        return "; take separators of thousands out"
    return ""


def _codes(cells: _Cells, kind: str | Sequence[str], missing: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    given = None if isinstance(kind, str) else tuple(kind)
    values = given or tuple(sorted(set(cells.fields) - set(missing)))
    codes = {value: code for code, value in enumerate(values)}
    codes = dict.fromkeys(missing, -1) | codes
    for row, field in enumerate(cells.fields):
        if field not in codes:
            raise cells.error(row, f"one of {', '.join(values)}"[:200])
    return np.asarray([codes[field] for field in cells.fields], np.int32), values
