"""WebVTT: a cue for each event, in the time of a player; what ends before the player's zero is left out."""

from __future__ import annotations

from engine.text import cue
from stream.events.formats.format import DocumentFormat, encoded
from stream.events.formats.timeline import Placed, Timeline


def _document(timeline: Timeline) -> bytes:
    return encoded("WEBVTT\n" + "".join(map(_cue, timeline.events)))


def _cue(placed: Placed) -> str:
    event, fields = placed.entry.event, placed.entry.fields
    confidence = "" if fields["confidence"] is None else f" {event.confidence:.0%}"
    text = f"{cue(event.label)}{confidence} · {event.kind} · {cue(placed.subject)}"
    return f"\n{_time(placed.onset)} --> {_time(placed.offset)}\n{text}\n"


def _time(t: float) -> str:
    ms = round(t * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


VTT = DocumentFormat("text/vtt; charset=utf-8", _document)
