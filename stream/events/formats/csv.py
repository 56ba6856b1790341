"""CSV: a header and a row for each event; no cell is a formula to a spreadsheet.

Times are there by both clocks: the source's (`_t`), and a player's (`_played`) or, of events stored live, the wall clock
(`emitted_at`, and `onset_at`, which may be missing).
"""

from __future__ import annotations

from engine.text import csv_line
from stream.events.formats.entry import Entry, Recording
from stream.events.formats.format import LineFormat

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
CAPTURED = ("onset_at",)
"""When the frame of the onset was captured, of events stored live."""
PLAYED = ("onset_played", "apex_played", "offset_played")
"""The times by a player's clock, beside those of the source."""
REVIEW = ("coder", "decision", "action_units", "note")
"""What a reviewed event has besides."""


def columns(recording: Recording | None) -> tuple[str, ...]:
    """The names of the columns, for events of a recorded video, reviewed or not, or (None) stored live."""
    if recording is None:
        return (*STORED, *EVENT, *CAPTURED)
    return (*EVENT, *PLAYED, *(REVIEW if recording.coder is not None else ()))


def values(entry: Entry) -> list[object]:
    """An event's values in the order of the columns, None where there is none; times in seconds."""
    event, fields, origin = entry.event, entry.fields, entry.origin
    row: list[object] = [fields.get(name) for name in STORED] if origin is None else []
    row += [fields[name] for name in NAMED]
    for mark in entry.marks.values():
        row += [None, None] if mark is None else [mark.frame, mark.t]
    row.append(None if event.offset is None else event.offset.t - event.onset.t)
    row += [event.truncated, event.speaking]
    row += [fields["probabilities"].get(label) for label in LABELS]
    row += [event.model, event.why, fields.get("expression_probability")]
    if origin is None:
        row += [fields.get(name) for name in CAPTURED]
    else:
        row += [None if mark is None else mark.t - origin for mark in entry.marks.values()]
    if (review := fields.get("review")) is not None:
        units = "+".join(review.get("action_units") or ()) or None
        row += [review.get("coder"), review.get("decision"), units, review.get("note")]
    return row


_SECONDS = {name for name in (*EVENT, *PLAYED) if name.endswith(("_t", "_s", "_played"))}


def _row(entry: Entry) -> str:
    names = columns(None if entry.origin is None else Recording(coder="" if "review" in entry.fields else None))
    return csv_line(_cell(name, value) for name, value in zip(names, values(entry), strict=True))


def _cell(name: str, value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if name in _SECONDS else value


CSV = LineFormat("text/csv; charset=utf-8", _row, lambda recording: csv_line(columns(recording)))
