"""Tables (CSV, TSV) whose columns have declared types."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from fdl.data.formats.source import Source
from fdl.data.formats.text import read_text
from fdl.errors import InputError, did_you_mean

KINDS = ("float", "int", "category", "text", "skip")


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
    missing: Sequence[str] = ("", "?", "NA"),
) -> Table:
    """A table with typed columns; blanks around a field do not count.

    Args:
      source: a UTF-8 file.
      columns: name -> kind: "float", "int", "category" (codes in the order of the sorted values), the values of a
        category themselves (any other is then an error), "text", or "skip".
      header: the first line holds names, and every one of `columns` must be there, in any order; those that are not
        named in `columns` are left out. Without a header the columns are those of `columns`, in order.
      delimiter: between fields.
      quotes: double quotes may enclose a field.
      missing: fields that mean "no value": NaN in a "float", -1 in a category, an error in an "int".

    Raises:
      InputError: a name, kind, row or field that is wrong, with its line.

    >>> table = read_table(b"age,job\\n39, clerk\\n?,nurse\\n", {"age": "float", "job": "category"})
    >>> table.columns["age"].tolist(), table.columns["job"].tolist(), table.categories["job"]
    ([39.0, nan], [0, 1], ('clerk', 'nurse'))
    """
    _check_kinds(columns)
    name, text = read_text(source, "a table")
    rows = _rows(name, text, delimiter, csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
    names = [field.strip() for field in rows.pop(0)[1]] if header and rows else list(columns)
    _check_rows(name, names, columns, rows)
    read: dict[str, np.ndarray] = {}
    categories: dict[str, tuple[str, ...]] = {}
    for column, kind in columns.items():
        place = names.index(column)
        cells = _Cells(
            f"{name}: column {column!r}", [number for number, _ in rows], [r[place].strip() for _, r in rows]
        )
        if kind in ("float", "int"):
            read[column] = _numbers(cells, str(kind), missing)
        elif kind == "text":
            read[column] = np.asarray(cells.fields, object)  # fixed width would be the longest field for every row
        elif kind != "skip":
            read[column], categories[column] = _codes(cells, kind, missing)
    return Table(read, categories)


class _Cells(NamedTuple):
    where: str
    lines: list[int]
    fields: list[str]

    def error(self, row: int, expected: str) -> InputError:
        return InputError(f"{self.where}, line {self.lines[row]}: expected {expected}, got {self.fields[row][:40]!r}")


def _rows(name: str, text: str, delimiter: str, quoting: Any) -> list[tuple[int, list[str]]]:
    """The fields of each row that is not blank, with its line number."""
    reader = csv.reader(text.split("\n"), delimiter=delimiter, quoting=quoting, skipinitialspace=True, strict=True)
    try:
        return [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except csv.Error as error:
        where = f"{name}, line {reader.line_num}"
        raise InputError(f"{where}: expected fields with {delimiter!r} between, got {error}") from None


def _check_kinds(columns: Mapping[str, str | Sequence[str]]) -> None:
    for column, kind in columns.items():
        if isinstance(kind, str) and kind not in KINDS:
            raise InputError(f"column {column!r}: no kind {kind!r}{did_you_mean(kind, KINDS)}, or a list of values")


def _check_rows(
    name: str, names: list[str], columns: Mapping[str, str | Sequence[str]], rows: list[tuple[int, list[str]]]
) -> None:
    for column in columns:
        if names.count(column) != 1:
            what = "twice" if column in names else "not there" + did_you_mean(column, names)
            raise InputError(f"{name}: expected one column {column!r} in the header, got it {what}")
    if not rows:
        raise InputError(f"{name}: expected a table with rows, got none")
    for number, row in rows:
        if len(row) != len(names):
            raise InputError(f"{name}, line {number}: expected {len(names)} fields, got {len(row)}")


def _numbers(cells: _Cells, kind: str, missing: Sequence[str]) -> np.ndarray:
    values = np.zeros(len(cells.fields), np.float32 if kind == "float" else np.int64)
    for row, field in enumerate(cells.fields):
        if field in missing and kind == "float":
            values[row] = np.nan
            continue
        try:
            value = (float if kind == "float" else int)(field)
            good = "_" not in field and abs(value) < (3.4e38 if kind == "float" else 2**63) and math.isfinite(value)
        except ValueError:
            good, value = False, 0
        if not good:
            hint = (
                "an integer (no value? declare it 'float')" if kind == "int" else f"a finite number or one of {missing}"
            )
            raise cells.error(row, hint)
        values[row] = value
    return values


def _codes(cells: _Cells, kind: str | Sequence[str], missing: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    given = None if isinstance(kind, str) else tuple(kind)
    values = given or tuple(sorted(set(cells.fields) - set(missing)))
    codes = {value: code for code, value in enumerate(values)}
    codes = dict.fromkeys(missing, -1) | codes
    for row, field in enumerate(cells.fields):
        if field not in codes:
            raise cells.error(row, f"one of {', '.join(values)}"[:200])
    return np.asarray([codes[field] for field in cells.fields], np.int32), values
