from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InputError
from tests.databases import write_sheet
from training.datasets.tables import read_rows

HEAD = ("Subject", "Onset", "Note")


def table(folder: Path, *rows: tuple[object, ...], sheet: str = "label") -> Path:
    return write_sheet(folder / "table.xlsx", sheet, rows)


def test_cells_are_text_and_whole_numbers_have_no_decimals(tmp_path: Path) -> None:
    (row,) = read_rows(table(tmp_path, HEAD, ("01", 46.0, "  4+7 ")), HEAD)
    assert dict(row.cells) == {"Subject": "01", "Onset": "46", "Note": "4+7"}
    assert row.frame("Onset") == 46 and row.text("Note") == "4+7"


def test_the_header_is_found_below_other_lines_and_whatever_its_case(tmp_path: Path) -> None:
    path = table(tmp_path, ("A table of mine",), (), ("NOTE", "subject", "ONSET"), ("x", "s1", 3), (), ("y", "s2", 4))
    rows = read_rows(path, HEAD)
    assert [(row.text("Subject"), row.frame("Onset"), row.text("Note")) for row in rows] == [("s1", 3, "x"), ("s2", 4, "y")]
    assert rows[1].where.endswith("table.xlsx, row 6")


def test_rows_of_the_sheet_asked_for(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD, ("s1", 3, "x"), sheet="Label ")
    assert len(read_rows(path, HEAD, "label")) == 1
    with pytest.raises(InputError, match=r"has no sheet 'HS'; its sheets are Label"):
        read_rows(path, HEAD, "HS")


@pytest.mark.parametrize("cell", ["", "/", "-", None])
def test_no_number_is_none_or_an_error_where_one_is_needed(tmp_path: Path, cell: object) -> None:
    (row,) = read_rows(table(tmp_path, HEAD, ("s1", cell, "x")), HEAD)
    assert row.number("Onset") is None
    with pytest.raises(InputError, match="row 2: the column Onset has no frame number"):
        row.frame("Onset")


@pytest.mark.parametrize("cell", ["early", 12.5])
def test_what_is_no_whole_number_is_an_error_with_its_row(tmp_path: Path, cell: object) -> None:
    (row,) = read_rows(table(tmp_path, HEAD, ("s1", cell, "x")), HEAD)
    with pytest.raises(InputError, match=f"row 2: a frame number is expected in the column Onset, not '{cell}'"):
        row.number("Onset")


def test_an_empty_cell_that_must_hold_text_is_an_error(tmp_path: Path) -> None:
    (row,) = read_rows(table(tmp_path, HEAD, (None, 3, "x")), HEAD)
    with pytest.raises(InputError, match="row 2: the column Subject is empty"):
        row.text("Subject")


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = table(tmp_path, ("Subject", "Beginning", "Note"), ("s1", 3, "x"))
    with pytest.raises(InputError, match=r"table\.xlsx lacks the column Onset$"):
        read_rows(path, HEAD)


def test_a_table_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has a header but no rows"):
        read_rows(table(tmp_path, HEAD), HEAD)


def test_what_is_no_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.xlsx").write_text("no table")
    for name in ("text.xlsx", "gone.xlsx"):
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            read_rows(tmp_path / name, HEAD)
