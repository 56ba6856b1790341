"""Tables (.csv, .tsv, .txt) as truth: BORIS' tabular and aggregated events, and any table with start, end and label.

Names of columns are recognized in small letters or capitals. Times are seconds, or hours:minutes:seconds.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from engine.errors import InputError
from engine.text import cell_text, plain
from stream.annotations.boris import Coded, timed_labels
from stream.annotations.timed_label import TimedLabel, Wanted, listed

COLUMNS = {
    "start": (
        "onset_played",
        "onset_t",
        "onset",
        "onset_s",
        "start",
        "start_s",
        "start (s)",
        "begin",
        "start time",
        "begin time",
    ),
    "apex": ("apex_played", "apex_t", "apex", "apex_s"),
    "end": ("offset_played", "offset_t", "offset", "offset_s", "end", "end_s", "stop", "stop (s)", "end time"),
    "label": ("label", "class", "emotion", "expression", "code", "annotation", "behavior", "behaviour"),
}
"""The names of columns that are recognized, in order of preference."""
FRAMES = {
    "start": ("onset_frame", "onset frame", "onsetframe", "start_frame"),
    "apex": ("apex_frame", "apex frame", "apexframe"),
    "end": ("offset_frame", "offset frame", "offsetframe", "end_frame"),
    "label": COLUMNS["label"],
}
"""Used where a table has no times."""
STATUS = {"START": True, "STOP": True, "POINT": False}
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
HEADER_WITHIN = 40
"""Older tables of BORIS begin with lines about the observation."""
MAX_BYTES = 256_000_000


def read_table(path: Path, wanted: Wanted) -> list[TimedLabel]:
    """The labels in a table. Raises InputError that names the row or what is missing."""
    header, rows = _split(_text(path).splitlines(keepends=True))
    if "behavior" in header and "time" in header:
        return timed_labels([_boris_event(row) for row in rows], wanted)
    if "behavior" in header and "start (s)" in header:
        return timed_labels([one for row in rows for one in _boris_bout(row)], wanted)
    return _plain_table(header, rows, wanted)


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise InputError("it is too large for a table of codes")
    data = path.read_bytes()
    encoding = next((name for bom, name in BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError("it is no text in UTF-8; save it again with that encoding") from error
    if "\0" in text:
        raise InputError("it is no text")
    return text


class _Row:
    """The cells of a row by the names of their columns; number is its line's in the file."""

    def __init__(self, number: int, header: Sequence[str], cells: Sequence[str], delimiter: str) -> None:
        self.number, self._delimiter = number, delimiter
        self.cells = dict(zip(header, (cell_text(cell.strip()) for cell in cells), strict=False))

    def text(self, name: str | None) -> str:
        """A cell, empty where there is none."""
        return self.cells.get(name, "") if name is not None else ""

    def seconds(self, name: str) -> float:
        """Seconds, from those or from hours:minutes:seconds; with a decimal comma in tables that commas do not separate."""
        text = self.text(name)
        try:
            plain_number = text if self._delimiter == "," else text.replace(",", ".")
            parts = [float(part) for part in plain_number.split(":")]
        except ValueError:
            raise self.error(f"{plain(text)!r} is no time") from None
        return float(sum(part * 60.0**power for power, part in enumerate(reversed(parts))))

    def error(self, sentence: object) -> InputError:
        """An error that names the row."""
        return InputError(f"line {self.number}: {sentence}")


def _split(lines: Sequence[str]) -> tuple[list[str], list[_Row]]:
    """The names of the columns in small letters, and the rows below them."""
    starts = {*COLUMNS["start"], *FRAMES["start"], "time"}
    for number, line in enumerate(lines[:HEADER_WITHIN], 1):
        delimiter = max("\t;,", key=line.count)
        header = [cell.strip().casefold() for cell in next(csv.reader([line], delimiter=delimiter), [])]
        if len(header) > 1 and starts & set(header):
            reader = csv.reader(lines[number:], delimiter=delimiter)
            try:
                return header, [_Row(number + reader.line_num, header, cells, delimiter) for cells in reader if any(cells)]
            except csv.Error as error:
                raise InputError(f"it is no table ({error})") from error
    raise InputError(
        "it has no header with names of columns; start, end and label are expected, or a table of events as BORIS exports it"
    )


def _plain_table(header: Sequence[str], rows: Sequence[_Row], wanted: Wanted) -> list[TimedLabel]:
    timed = _found(header, COLUMNS)
    in_frames = wanted.fps is not None and not {"start", "end"} <= timed.keys()
    use = _found(header, FRAMES) if in_frames else timed
    scale = 1 / wanted.fps if in_frames and wanted.fps else 1.0
    if missing := [name for name in ("start", "end", "label") if name not in use]:
        raise InputError(f"its header lacks {listed(missing)}; it has the columns {listed(header)}")
    found = []
    for row in rows:
        start, end = (scale * row.seconds(use[name]) for name in ("start", "end"))
        apex = scale * row.seconds(use["apex"]) if row.text(use.get("apex")) else None
        face = row.text("face")
        try:
            found.append(TimedLabel(start, end, row.text(use["label"]), apex, int(face) if face.isdecimal() else None))
        except InputError as error:
            raise row.error(error) from error
    return found


def _found(header: Sequence[str], names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Which column of a table is what."""
    pairs = ((what, next((name for name in known if name in header), None)) for what, known in names.items())
    return {what: name for what, name in pairs if name is not None}


def _boris_event(row: _Row) -> Coded:
    """A row of BORIS' tabular events."""
    status = (row.text("behavior type") or row.text("status")).upper()
    if status not in STATUS:
        raise row.error(f"{plain(status)!r} is none of START, STOP and POINT")
    return _coded(row, "time", state=STATUS[status])


def _boris_bout(row: _Row) -> Iterator[Coded]:
    """A row of BORIS' aggregated events as its start and its stop."""
    state = row.text("behavior type").upper() != "POINT"
    for column in ("start (s)", "stop (s)") if state else ("start (s)",):
        yield _coded(row, column, state=state)


def _coded(row: _Row, column: str, *, state: bool) -> Coded:
    offset = row.seconds("time offset (s)") if row.text("time offset (s)") not in ("", "NA") else 0.0
    modifiers = "|".join(value for name, value in row.cells.items() if name.startswith("modifier"))
    category = row.text("behavioral category")
    return Coded(row.seconds(column) - offset, row.text("subject"), row.text("behavior"), modifiers, category, state)
