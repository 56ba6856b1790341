"""Annotation tables (.xls, .xlsx) as rows of text, checked: sheets and columns that are needed are there, frames are numbers.

This is the only module that imports python-calamine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from python_calamine import CalamineError, CalamineWorkbook

from engine.errors import InputError

NOTHING = ("", "/", "-", "?")
"""What the tables write where there is no value."""


@dataclass(frozen=True)
class Row:
    """One row: its position (for messages) and its cells by column, stripped text; whole numbers have no decimals."""

    where: str
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """The cell, which must hold something. Raises InputError."""
        value = self.cells[column]
        if not value:
            raise InputError(f"{self.where}: the column {column} is empty")
        return value

    def number(self, column: str) -> int | None:
        """The cell as a whole number, None where the table has none. Raises InputError for anything else."""
        value = self.cells[column]
        if value in NOTHING:
            return None
        try:
            return int(value)
        except ValueError as cause:
            raise InputError(f"{self.where}: a frame number is expected in the column {column}, not {value!r}") from cause

    def nearest(self, column: str) -> int | None:
        """The cell rounded to a whole number, None where the table has none. Raises InputError for anything else."""
        value = self.cells[column]
        if value in NOTHING:
            return None
        try:
            return round(float(value))
        except (ValueError, OverflowError) as cause:
            raise InputError(f"{self.where}: a number is expected in the column {column}, not {value!r}") from cause

    def frame(self, column: str) -> int:
        """The cell as a frame number, which must be there. Raises InputError."""
        value = self.number(column)
        if value is None:
            raise InputError(f"{self.where}: the column {column} has no frame number")
        return value


def read_rows(path: Path, columns: Sequence[str], sheet: str | None = None) -> list[Row]:
    """The rows under the header that names all columns, case aside; sheet None is the first one; empty rows are left out.

    Raises InputError for a file that is no table, a sheet or columns that are not there, or a table without rows.
    """
    content = _content(path, sheet)
    at = next((i for i, row in enumerate(content) if not _lacking(row, columns)), None)
    if at is None:
        best = min(content, key=lambda row: len(_lacking(row, columns)), default=[])
        raise InputError(f"the table {path} lacks the column {', '.join(_lacking(best, columns))}")
    header = [cell.casefold() for cell in content[at]]
    places = {column: header.index(column.casefold()) for column in columns}
    rows = [
        Row(f"{path}, row {number}", {column: row[place] for column, place in places.items()})
        for number, row in enumerate(content[at + 1 :], start=at + 2)
        if any(row)
    ]
    if not rows:
        raise InputError(f"the table {path} has a header but no rows")
    return rows


def read_bare(path: Path, columns: Sequence[str], sheet: str | None = None) -> list[Row]:
    """The rows of a sheet without a header, its first cells called columns; empty rows are left out.

    Raises InputError for a file that is no table, a sheet that is not there, or one with fewer columns or without rows.
    """
    content = [(number, cells) for number, cells in enumerate(_content(path, sheet), start=1) if any(cells)]
    if not content or min(len(cells) for _, cells in content) < len(columns):
        raise InputError(f"the table {path} needs rows of {len(columns)} columns in {sheet or 'its first sheet'}")
    return [Row(f"{path}, row {number}", dict(zip(columns, cells, strict=False))) for number, cells in content]


def _content(path: Path, sheet: str | None) -> list[list[str]]:
    if not path.is_file():
        raise InputError(f"the table {path} cannot be read: {'it is a folder' if path.is_dir() else 'there is no such file'}")
    try:
        with CalamineWorkbook.from_path(path) as book:
            names = list(book.sheet_names)
            chosen = next((n for n in names if sheet is None or n.strip().casefold() == sheet.casefold()), None)
            if chosen is None:
                raise InputError(f"the table {path} has no sheet {sheet!r}; its sheets are {', '.join(names)}")
            cells = book.get_sheet_by_name(chosen).to_python(skip_empty_area=False)
    except (CalamineError, OSError) as cause:
        raise InputError(f"the table {path} cannot be read: {str(cause).split(' (os error')[0]}") from cause
    return [[_text(cell) for cell in row] for row in cells]


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def _lacking(row: Sequence[str], columns: Sequence[str]) -> list[str]:
    held = {cell.casefold() for cell in row}
    return [column for column in columns if column.casefold() not in held]
