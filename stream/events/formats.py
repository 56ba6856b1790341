"""Formats in which events are exported: live (/api/events), from the store (`apexstream events`), and of recorded videos.

    jsonl   an event's JSON form in a line
    csv     a header and a row for each event; no cell is a formula to a spreadsheet
    vtt     WebVTT: a cue for each event with an offset, in the time of a player; what ends before the player's zero is left out

A new format is a line in FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.text import csv_line, cue, json_line

if TYPE_CHECKING:
    from engine.types import Event, Mark

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
SHORTEST_CUE_S = 0.04


@dataclass(frozen=True)
class Entry:
    """An event to export. fields is its JSON form with what its source adds: seq, emitted_at and latency_ms where it was stored
    live, played where it was found in a recorded video. origin is the source time, seconds, at which a player of that video
    shows 0; None for an event stored live."""

    event: Event
    fields: Mapping[str, Any]
    origin: float | None = None

    @classmethod
    def stored(cls, fields: Mapping[str, Any]) -> Entry:
        """A stored event, from its JSON form."""
        from engine.types import Event  # here, so that the command line starts without NumPy

        return cls(Event.from_dict(fields), fields)

    @classmethod
    def recorded(cls, event: Event, origin: float) -> Entry:
        """An event of a recorded video."""
        entry = cls(event, event.as_dict(), origin)
        played = {name: mark and round(mark.t - origin, 6) for name, mark in entry.marks.items()}
        return cls(event, {**entry.fields, "played": played}, origin)

    @property
    def marks(self) -> dict[str, Mark | None]:
        """Onset, apex and offset."""
        return {"onset": self.event.onset, "apex": self.event.apex, "offset": self.event.offset}


@dataclass(frozen=True)
class Format:
    """How events become text: head first (given whether they are of a recorded video), then write's text of each event.

    media_type is HTTP's name of it. ordered: by onset where all events are at hand, else as they come.
    """

    media_type: str
    write: Callable[[Entry], str]
    head: Callable[[bool], str] = lambda recorded: ""
    ordered: bool = False

    def export(self, entries: Iterable[Entry], *, recorded: bool) -> Iterator[str]:
        """The text of all entries, piece by piece."""
        yield self.head(recorded)
        ordered = sorted(entries, key=lambda entry: (entry.event.onset.t, entry.event.face)) if self.ordered else entries
        yield from map(self.write, ordered)


def columns(recorded: bool) -> tuple[str, ...]:
    """The names of the columns of CSV, for events of a recorded video or stored live."""
    return (*EVENT, *PLAYED) if recorded else (*STORED, *EVENT)


def _csv_row(entry: Entry) -> str:
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


def _vtt_cue(entry: Entry) -> str:
    event, origin = entry.event, entry.origin or 0.0
    if event.offset is None or event.offset.t < origin:
        return ""
    start = max(event.onset.t - origin, 0.0)
    end = max(event.offset.t - origin, start + SHORTEST_CUE_S)
    confidence = "" if entry.fields["confidence"] is None else f" {event.confidence:.0%}"
    return f"\n{_time(start)} --> {_time(end)}\n{cue(event.label)}{confidence} · {event.kind} · face {event.face}\n"


def _time(t: float) -> str:
    ms = round(t * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


FORMATS: dict[str, Format] = {
    "jsonl": Format("application/jsonl; charset=utf-8", lambda entry: json_line(entry.fields) + "\n"),
    "csv": Format("text/csv; charset=utf-8", _csv_row, lambda recorded: csv_line(columns(recorded))),
    "vtt": Format("text/vtt; charset=utf-8", _vtt_cue, lambda recorded: "WEBVTT\n", ordered=True),
}
"""By the name that `--format` and ?format= take, which is the file's ending, too."""
