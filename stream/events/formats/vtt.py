"""WebVTT: a cue for each event, in the time of a player; what ends before the player's zero is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.text import cue
from stream.events.formats.format import DocumentFormat, encoded
from stream.events.formats.timeline import Placed, Timeline

if TYPE_CHECKING:
    from engine.types import Event


def _document(timeline: Timeline) -> bytes:
    return encoded("WEBVTT\n" + "".join(map(_cue, timeline.events)))


def _cue(placed: Placed) -> str:
    event, fields = placed.entry.event, placed.entry.fields
    text = f"{cue(event.label)}{_how_sure(event, fields)} · {event.kind} · {cue(placed.subject)}"
    return f"\n{_time(placed.onset)} --> {_time(placed.offset)}\n{text}\n"


def _how_sure(event: Event, fields: Mapping[str, Any]) -> str:
    """The machine's confidence, or why it is uncertain; nothing behind the class that a person gave."""
    if event.why is not None:
        return f" ({cue(event.why)})"
    return "" if fields["confidence"] is None or fields.get("review") else f" {event.confidence:.0%}"


def _time(t: float) -> str:
    ms = round(t * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


VTT = DocumentFormat("text/vtt; charset=utf-8", _document)
