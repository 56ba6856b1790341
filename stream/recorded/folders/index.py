"""index.html: the table over all videos as a page that links their reports."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from engine.text import plain
from stream.files import write_atomically
from stream.recorded.folders.table import LABELS, Row
from stream.recorded.folders.tasks import INDEX
from stream.recorded.report.output import NAME as REPORT
from stream.recorded.single_page import THEME, filled, packaged, policy

STYLES = ("dashboard/style.css", "recorded/folders/index.css")
STATES = {"done": "done", "damaged": "damaged", "failed": "failed", "waiting": "not analysed", "gone": "video is gone"}
"""The states of a row, and their words."""
SHAPES = {"negative": "M2 3h12l-6 10z", "positive": "M2 13h12L8 3z", "surprise": "M8 1l7 7-7 7-7-7z", "uncertain": ""}
"""Outlines of the classes' signs, in a square of 16; a circle has none."""


@dataclass(frozen=True)
class Column:
    """A column of figures: its heading as HTML, and the words and the number of a row."""

    heading: str
    figure: str
    words: Callable[[float], str] = lambda value: f"{value:,.0f}"


def write_index(out: Path, rows: Sequence[Row]) -> None:
    """Write the page into the output folder. Raises OutputError."""
    columns = _columns(rows)
    style, theme = "\n".join(map(packaged, STYLES)), packaged(THEME)
    script = f'(() => {{\n"use strict";\n{packaged("recorded/folders/index.js")}}})();'
    states = [state for state in STATES if any(row.state == state for row in rows)]
    named = {
        "policy": policy([style], [theme, script]),
        "title": html.escape(plain(out.resolve().name)),
        "style": style,
        "theme": theme,
        "script": script,
        "facts": html.escape(_facts(rows)),
        "totals": "".join(_totals(rows)),
        "states": "".join(f'<option value="{state}">{STATES[state].capitalize()}</option>' for state in states),
        "heads": "".join(_heads(columns)),
        "rows": "".join(_row(row, out, columns) for row in rows),
    }
    write_atomically(out / INDEX, [filled(packaged("recorded/folders/index.html"), named)])


def clock(seconds: float) -> str:
    """12:05, or 1:02:05 from an hour on."""
    whole = round(seconds)
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes.removeprefix("0")


def _columns(rows: Sequence[Row]) -> list[Column]:
    other = any((row.figures or {}).get("other_labels") for row in rows)
    return [
        Column("Expressions", "events"),
        Column("Micro", "micro"),
        *(Column(f'{_sign(label)}<span class="visually-hidden">{label}</span>', label) for label in LABELS),
        *([Column("Other classes", "other_labels")] if other else []),
        Column("Length", "duration_s", clock),
        Column("With a face", "face_s", clock),
        Column("Speaking", "speech_s", clock),
    ]


def _sign(label: str) -> str:
    outline = f'<path d="{SHAPES[label]}"/>' if SHAPES[label] else '<circle cx="8" cy="8" r="6"/>'
    return f'<svg class="shape class-{label}" viewBox="0 0 16 16" aria-hidden="true"><title>{label}</title>{outline}</svg>'


def _facts(rows: Sequence[Row]) -> str:
    counts = {state: sum(row.state == state for row in rows) for state in STATES}
    parts = [f"{len(rows):,} video{'s' * (len(rows) != 1)}"]
    parts += [f"{counts[state]:,} {STATES[state]}" for state in ("damaged", "failed", "waiting", "gone") if counts[state]]
    return " · ".join(parts)


def _totals(rows: Sequence[Row]) -> Iterator[str]:
    def total(figure: str) -> float:
        return sum((row.figures or {}).get(figure) or 0 for row in rows if row.state != "gone")

    yield f"<li><strong>{total('events'):,.0f}</strong><span>expressions</span></li>"
    yield f"<li><strong>{total('micro'):,.0f}</strong><span>of them micro</span></li>"
    for label in LABELS:
        yield f"<li><strong>{_sign(label)}{total(label):,.0f}</strong><span>{label}</span></li>"
    for name, what in (("duration_s", "of video"), ("face_s", "with a face"), ("speech_s", "speaking")):
        yield f"<li><strong>{clock(total(name))}</strong><span>{what}</span></li>"


def _heads(columns: Sequence[Column]) -> Iterator[str]:
    yield '<th class="name" scope="col" aria-sort="ascending"><button type="button">Video</button></th>'
    for column in columns:
        yield f'<th class="number" scope="col"><button type="button">{column.heading}</button></th>'


def _row(row: Row, out: Path, columns: Sequence[Column]) -> str:
    figures = row.figures or {}
    cells = "".join(_cell(column, figures.get(column.figure)) for column in columns)
    return f'<tr data-state="{row.state}"><td class="name">{_name(row, out)}</td>{cells}</tr>\n'


def _cell(column: Column, value: float | None) -> str:
    if value is None:
        return '<td class="number"></td>'
    zero = " zero" * (not value)
    return f'<td class="number{zero}" data-value="{value}">{column.words(value)}</td>'


def _name(row: Row, out: Path) -> str:
    """The video's name below the folders of its results, linked to its report or, where there is none, to the results."""
    folder, slash, name = row.results.rpartition("/")
    shown = f"{html.escape(plain(name))}"
    if row.figures is not None:
        target = f"{row.results}/{REPORT}" if (out / row.results / REPORT).exists() else f"{row.results}/"
        shown = f'<a href="{html.escape(quote(os.fsencode(target)))}">{shown}</a>'
    if row.state != "done":
        shown += f' <span class="badge state-{row.state}">{STATES[row.state]}</span>'
    before = f'<span class="folder">{html.escape(plain(folder))}/</span>' if slash else ""
    notes = [note for note in (row.problem, (row.figures or {}).get("notes")) if note]
    return before + shown + "".join(f'<span class="note">{html.escape(plain(note))}</span>' for note in notes)
