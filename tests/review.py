"""Results of an analysis made by hand, and codes of coders, for tests of their review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from engine.text import json_line
from engine.types import Event, Mark
from stream.events.formats import Entry
from stream.recorded.files import as_json
from stream.review.codes import Code
from stream.sources.file import open_video
from tests.events import an_event
from tests.videos import stepping

REPEATED = 50
"""The pictures of `write_plain` come again after so many."""


def events_at(onsets: Sequence[int], *, rate: float = 30.0, start: float = 0.0, **changes: Any) -> list[Event]:
    """Micro-expressions of twelve frames that begin at these frames of a video of a steady rate."""
    made = []
    for number, onset in enumerate(onsets):
        marks = {
            name: Mark(onset + more, round(start + (onset + more) / rate, 6))
            for name, more in (("onset", 0), ("apex", 6), ("offset", 12))
        }
        label = ("negative", "positive", "surprise")[number % 3]
        fields: dict[str, Any] = {"id": f"event-{number}", "stream": "interview", "label": label, **marks, **changes}
        made.append(an_event(number, **fields))
    return made


def write_results(
    folder: Path, events: Sequence[Event], *, video: Path | None = None, origin: float = 0.0, **facts: Any
) -> Path:
    """A folder of results with these events; facts are of the video."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json_line(Entry.recorded(event, origin).fields) + "\n" for event in events]
    (folder / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    summary = {
        "complete": True,
        "stream": "interview",
        "file": str(video or folder / "interview.mp4"),
        "video": {"origin": origin, "start": origin, **facts},
    }
    (folder / "summary.json").write_text(as_json(summary), encoding="utf-8")
    return folder


def code_of(event: Event, coder: str = "anna", **changes: Any) -> Code:
    """A code that accepts an event as it is."""
    marks = {"onset": event.onset, "apex": event.apex, "offset": event.offset}
    fields: dict[str, Any] = {**marks, "label": event.label, **changes}
    return replace(Code(event.id, coder, event.id, event.face, "accepted", None, None, None, ""), **fields)


def added_code(number: int, onset: int, *, coder: str = "anna", rate: float = 30.0, **changes: Any) -> Code:
    """A code of an expression of twelve frames that the machine missed."""
    marks = [Mark(onset + more, round((onset + more) / rate, 6)) for more in (0, 6, 12)]
    first, top, last = marks
    return replace(Code(f"added-{number}", coder, None, 0, "added", first, top, last, "positive"), **changes)


def write_plain(path: Path, frames: int = 240, *, codec: str = "libx264", pix_fmt: str = "yuv420p", **settings: Any) -> Path:
    """A video of so many frames at 25 a second whose grey bar tells the frame's number, in any codec."""
    options = {"x265-params": "log-level=none", "preset": "ultrafast"} if codec.startswith("libx26") else {}
    with av.open(str(path), "w", format=settings.get("format")) as container:
        track: Any = container.add_stream(codec, rate=25, options={**options, **settings.get("options", {})})
        track.pix_fmt, track.width, track.height = pix_fmt, 160, settings.get("height", 120)
        for picture in islice(cycle(stepping(160, track.height, REPEATED)), frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def write_strobing(path: Path, frames: int) -> Path:
    """A video at 30 frames a second whose every second picture is dark, as of a camera with a strobing light."""
    with av.open(str(path), "w") as container:
        track: Any = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "g": "30"})
        track.pix_fmt, track.width, track.height = "yuv420p", 160, 120
        for number, picture in enumerate(islice(cycle(stepping(160, 120, REPEATED)), frames)):
            lit = np.maximum(picture, 100) if number % 2 == 0 else np.full_like(picture, 4)
            container.mux(track.encode(av.VideoFrame.from_ndarray(lit, format="rgb24")))
        container.mux(track.encode(None))
    return path


def results_of(video: Path, folder: Path, onsets: Sequence[int]) -> Path:
    """Results for a real video with made-up events at these frames."""
    with open_video(video) as source:
        times = [frame.t for frame in source]
        facts = asdict(source.facts)
    events = []
    for number, event in enumerate(events_at(onsets)):
        marks = {name: Mark(mark.frame, round(times[mark.frame], 6)) for name, mark in Entry(event, {}).marks.items() if mark}
        fields: dict[str, Any] = {**marks, "id": f"event-{number}"}
        events.append(replace(event, **fields))
    return write_results(folder, events, video=video, **facts)
