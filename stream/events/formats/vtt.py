"""WebVTT: a cue for each event with an offset, in the time of a player; what ends before the player's zero is left out."""

from __future__ import annotations

from engine.text import cue
from stream.events.formats.format import Entry, Format

SHORTEST_CUE_S = 0.04


def _cue(entry: Entry) -> str:
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


VTT = Format("text/vtt; charset=utf-8", _cue, lambda recorded: "WEBVTT\n", ordered=True)
