"""Events of an interview with two faces, as exports are given them: overlapping, cut at zero, reviewed, with hostile text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.types import Activity, Event, Mark
from stream.events.formats import FORMATS, Entry, Recording
from tests.events import an_event, stored

ORIGIN = 36_000.0
"""The recording's clock starts at ten hours."""
FPS = 30.0


def interview_event(number: int, start: int, end: int, **changes: object) -> Event:
    """Event `number` from frame to frame, its apex half way."""
    frames = start, (start + end) // 2, end
    marks = dict(zip(("onset", "apex", "offset"), (Mark(k, ORIGIN + k / FPS) for k in frames), strict=True))
    return replace(an_event(number, stream="interview"), **{**marks, **changes})


EVENTS = [
    interview_event(1, 30, 42),
    interview_event(2, 205, 220, label="positive", speaking=True),
    interview_event(3, 210, 240, label="negative", kind="macro"),
    interview_event(4, 212, 221, label="uncertain", face=1, confidence=0.41, why="not sure"),
]
"""The second and third are the same face's and overlap."""
ACTIVITIES = [
    Activity(0, "speech", Mark(150, ORIGIN + 5), Mark(300, ORIGIN + 10)),
    Activity(1, "blink", Mark(3, ORIGIN + 0.1), Mark(9, ORIGIN + 0.3)),
]
VIDEO = Path("/videos/An interview & more.mp4")
RECORDING = Recording(VIDEO, ORIGIN, 20.0, FPS, True, ACTIVITIES)
HOSTILE = '<b>&"quoted"</b>\n]]>\x1b[2J\ud800\uffff'


def exported(name: str, events: list[Event] | None = None, recording: Recording | None = RECORDING) -> bytes:
    """A file in the format of that name; without a recording the same events as stored live."""
    chosen = EVENTS if events is None else events
    if recording is None:
        entries = [Entry.stored({**stored(1), **event.as_dict(), "seq": seq}) for seq, event in enumerate(chosen, 1)]
    else:
        entries = [Entry.recorded(event, recording.origin) for event in chosen]
    return b"".join(FORMATS[name].export(entries, recording))


def reviewed(name: str) -> bytes:
    """The first event as somebody changed it."""
    entry = Entry.recorded(EVENTS[0], ORIGIN)
    review = {"coder": "anna", "decision": "relabelled", "action_units": ("AU1", "AU2"), "note": HOSTILE}
    changed = replace(entry, fields={**entry.fields, "review": review})
    return b"".join(FORMATS[name].export([changed], replace(RECORDING, coder="anna")))
