"""CSV: a header and a row for each event; no cell is a formula to a spreadsheet."""

from __future__ import annotations

from engine.text import csv_line
from stream.events.formats.format import Entry, Format

LABELS = ("negative", "positive", "surprise")
"""Classes whose probabilities have columns; those of other classes are in the JSON form alone."""
STORED = ("seq", "emitted_at", "latency_ms")
NAMED = ("id", "stream", "face", "kind", "label", "confidence", "intensity")
EVENT = (
    *NAMED,
    *("onset_frame", "onset_t", "apex_frame", "apex_t", "offset_frame", "offset_t", "duration_s", "truncated", "speaking"),
    *(f"p_{label}" for label in LABELS),
    *("model", "why", "expression_probability"),
)
PLAYED = ("onset_played", "apex_played", "offset_played")
"""The times by a player's clock, beside those of the source."""


def columns(recorded: bool) -> tuple[str, ...]:
    """The names of the columns of CSV, for events of a recorded video or stored live."""
    return (*EVENT, *PLAYED) if recorded else (*STORED, *EVENT)


def _row(entry: Entry) -> str:
    event, fields, origin = entry.event, entry.fields, entry.origin
    row: list[object] = [fields.get(name, "") for name in STORED] if origin is None else []
    row += [fields[name] for name in NAMED]
    for mark in entry.marks.values():
        row += ["", ""] if mark is None else [mark.frame, f"{mark.t:.6f}"]
    row.append("" if event.offset is None else f"{event.offset.t - event.onset.t:.6f}")
    row += [str(event.truncated).lower(), str(event.speaking).lower()]
    row += [fields["probabilities"].get(label, "") for label in LABELS]
    row += [event.model, event.why or "", fields.get("expression_probability", "")]
    if origin is not None:
        row += ["" if mark is None else f"{mark.t - origin:.6f}" for mark in entry.marks.values()]
    return csv_line(row)


CSV = Format("text/csv; charset=utf-8", _row, lambda recorded: csv_line(columns(recorded)))
