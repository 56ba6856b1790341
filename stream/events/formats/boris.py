"""BORIS projects (.boris): an observation of the video, its events as states with start, stop and frame index.

Faces are subjects, classes are behaviours with the modifier micro or macro, and each apex is a point event. A state of BORIS
ends where the same one is coded again, so events of a face that overlap go to a second subject, "face 0 (2)".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from engine.text import plain
from stream.events.formats.csv import LABELS
from stream.events.formats.entry import Recording
from stream.events.formats.format import DocumentFormat, encoded
from stream.events.formats.tiers import APEX, attributes_of
from stream.events.formats.timeline import Placed, Timeline, seconds, without_overlap

EXPRESSION, ACTIVITY = "expression", "activity"
"""The categories of behaviours; those of the first are read as truth."""
STATE, POINT = "State event", "Point event"
KINDS = ("micro", "macro")
UNCERTAIN = "uncertain"
FORMAT_VERSION = "7.0"

Row = tuple[float, str, str, str, str, int]
"""An event of a project: time, subject, behaviour, modifiers, comment, frame index."""


def _document(timeline: Timeline) -> bytes:
    recording = timeline.recording
    path = None if recording is None else recording.path
    name = "live" if recording is None else (plain(path.stem).strip() if path is not None else "") or "video"
    rows = _rows(timeline)
    subjects = sorted({str(row[1]) for row in rows} | set(timeline.subjects))
    project = {
        "time_format": "s",
        "project_date": timeline.date,
        "project_name": name,
        "project_description": "",
        "project_format_version": FORMAT_VERSION,
        "subjects_conf": _numbered({"key": "", "name": subject, "description": ""} for subject in subjects),
        "behaviors_conf": _numbered(_behaviours(timeline)),
        "observations": {name: {**_medium(recording), **_OBSERVATION, "date": timeline.date, "events": rows}},
        "behavioral_categories": [EXPRESSION, ACTIVITY],
        "behavioral_categories_config": _numbered({"name": one, "color": ""} for one in (EXPRESSION, ACTIVITY)),
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    return encoded(json.dumps(project, indent=1, ensure_ascii=False) + "\n")


_OBSERVATION = {
    "description": "times are the player's, in whole milliseconds",
    "time offset": 0.0,
    "observation time interval": [0, 0],
    "independent_variables": {},
    "close_behaviors_between_videos": False,
    "scan_sampling_time": 0,
    "start_from_current_time": False,
}


def _medium(recording: Recording | None) -> dict[str, Any]:
    """What an observation says of the video; without one it is a live observation."""
    if recording is None or recording.path is None:
        return {"type": "LIVE", "file": []}
    path = plain(recording.path)
    return {
        "type": "MEDIA",
        "file": {str(player): [path] if player == 1 else [] for player in range(1, 9)},
        "media_info": {
            "length": {path: recording.length_s or 0.0},
            "fps": {path: recording.fps or 0.0},
            "hasVideo": {path: True},
            "hasAudio": {path: recording.sound},
            "offset": {"1": 0.0},
            "display": {path: "Nothing"},
        },
    }


def _behaviours(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """The ethogram: classes with the modifier micro or macro, apexes, activities."""
    labels = dict.fromkeys((*LABELS, UNCERTAIN, *(plain(one.entry.event.label) for one in timeline.events)))
    kinds = {"0": {"name": "kind", "description": "", "type": 0, "ask at stop": False, "values": list(KINDS)}}
    for label in labels:
        yield _behaviour(label, STATE, EXPRESSION, kinds)
    yield _behaviour(APEX, POINT, EXPRESSION, {})
    for kind in dict.fromkeys(one.kind for one in timeline.activities):
        yield _behaviour(kind, STATE, ACTIVITY, {})


def _behaviour(code: str, type_: str, category: str, modifiers: dict[str, Any]) -> dict[str, Any]:
    shared = {"key": "", "description": "", "color": "", "excluded": "", "coding map": ""}
    return {"type": type_, "code": code, "category": category, "modifiers": modifiers, **shared}


def _rows(timeline: Timeline) -> Sequence[tuple[object, ...]]:
    """The events of the observation in BORIS' order, without frames where it is live."""
    rows: list[Row] = []
    for subject in timeline.subjects:
        own = [one for one in timeline.events if one.subject == subject]
        for number, events in enumerate(without_overlap(own, lambda one: one.onset, lambda one: one.offset), 1):
            for event in events:
                rows += _rows_of(event, subject if number == 1 else f"{subject} ({number})")
    for doing in timeline.activities:
        first, last = doing.frames
        rows.append((seconds(doing.start), doing.subject, doing.kind, "", "", first))
        rows.append((seconds(doing.end), doing.subject, doing.kind, "", "", last))
    live = timeline.recording is None or timeline.recording.path is None
    rows.sort(key=lambda row: row[:3])
    return [row[:5] for row in rows] if live else rows


def _rows_of(placed: Placed, subject: str) -> Iterator[Row]:
    event, known = placed.entry.event, attributes_of(placed.entry)
    assert event.offset is not None
    label, kind = plain(event.label), known.pop("kind", KINDS[0])
    comment = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in known.items())
    yield seconds(placed.onset), subject, label, kind, comment, event.onset.frame
    yield seconds(placed.apex), subject, APEX, "", "", event.apex.frame
    yield seconds(placed.offset), subject, label, kind, "", event.offset.frame


def _numbered(values: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {str(number): value for number, value in enumerate(values)}


BORIS = DocumentFormat("application/json", _document)
