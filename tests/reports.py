"""Reports of analyses that never were, for tests of the page: as many faces and events as wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.types import F32, U8, Activity, Crop, Event, Evidence, Face, Frame, Mark, Observation
from stream.recorded.report.output import ReportPage
from tests.events import an_event

LABELS = ("negative", "positive", "surprise", "uncertain")
LANDMARKS = np.random.default_rng(0).uniform(0, 128, (478, 3)).astype(np.float32)
LANDMARKS[[33, 133]], LANDMARKS[[362, 263]] = (20, 40, 0), (100, 40, 0)  # eyes
LANDMARKS[234], LANDMARKS[454] = (4, 55, 50), (124, 55, 50)  # edges
PIXEL = np.zeros((2, 2), np.uint8)


def face_like(seed: int) -> U8:
    """[128, 128] grey with about as much detail as a face's crop."""
    noise = np.random.default_rng(seed).normal(0, 1, (128, 128)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 3.0) * 300 + cv2.GaussianBlur(noise, (0, 0), 0.8) * 6
    return np.asarray(np.clip(blurred + 128, 0, 255), np.uint8)


def summary_of(events: list[Event], frames: int, fps: float, **changes: Any) -> dict[str, Any]:
    """The parts of summary.json that a report shows."""
    video = {"codec": "h264", "width": 640, "height": 360, "measured_fps": fps, "duration": frames / fps, "frames": frames}
    by_face = {str(face): sum(event.face == face for event in events) for face in {event.face for event in events}}
    return {
        "complete": True,
        "problem": None,
        "notes": [],
        "video": {**video, "warnings": []},
        "events": {"count": len(events), "by_face": by_face},
        "model": "ahmsa-3db@sha256:0123456789ab",
        "versions": {"apexstream": "0.1.0"},
        **changes,
    }


def event_of(number: int, step_s: float, faces: int, fps: float, evidence: Evidence | None) -> Event:
    """Event `number`: one every step_s seconds, of each class, kind and face in turn; every fifth while speaking."""
    onset, length = 1.0 + number * step_s, 0.4 if number % 3 else 0.8
    label = LABELS[number % 4]
    marks = {name: Mark(round(t * fps), t) for name, t in (("onset", onset), ("apex", onset + 0.2), ("offset", onset + length))}
    looks: dict[str, Any] = {"confidence": 0.4 + 0.05 * (number % 12), "why": "not sure" if label == "uncertain" else None}
    changes: dict[str, Any] = {
        "face": number % faces,
        "speaking": number % 5 == 0,
        "expression_probability": 0.7,
        "evidence": evidence,
    }
    return an_event(number, label=label, length_s=length, **marks, **looks, **changes)


def write_report(
    folder: Path,
    count: int,
    *,
    seconds: float = 60.0,
    fps: float = 25.0,
    faces: int = 1,
    pictures: bool = False,
    video: Path | None = None,
    **summary: Any,
) -> Path:
    """A report of a recording so long with so many events; its address on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    video = video or folder.parent / "interview.mp4"
    video.touch()
    page = ReportPage(folder, video, pictures=pictures)
    frames, step = round(seconds * fps), seconds / (count + 2)
    looks = [face_like(k) for k in range(4)] if pictures else [np.zeros((128, 128), np.uint8)]
    flow = np.random.default_rng(1).normal(0, 1, (2, 128, 128)).astype(np.float32)
    flow = np.stack([cv2.GaussianBlur(part, (0, 0), 8.0) * 20 for part in flow]).astype(np.float32)
    pairs = [Evidence(looks[k], looks[(k + 1) % len(looks)], flow) for k in range(len(looks))]
    events = [event_of(k, step, faces, fps, pairs[k % len(pairs)]) for k in range(count)]
    waiting = iter(events)
    after = next(waiting, None)
    for index in range(frames):
        t = index / fps
        seen = [Face(face, LANDMARKS, t) for face in range(faces)]
        page.frame(Frame(index, t, PIXEL, "grey"), seen, [_moving(face, index, t, looks) for face in range(faces)], 0.0)
        while after is not None and after.offset is not None and after.offset.t + 0.5 < t:
            page.event(after, 0.0)
            after = next(waiting, None)
        if index % 100 == 50:
            page.activity(Activity(0, "speech", Mark(index - 20, t - 2.0), Mark(index, t)), 0.0)
        if index % 40 == 30:
            page.activity(Activity(0, "blink", Mark(index - 2, t - 0.2), Mark(index, t)), 0.0)
    for event in (after, *waiting):
        if event is not None:
            page.event(event, 0.0)
    page.finish(summary_of(events, frames, fps, **summary))
    page.close()
    return folder / "report.html"


def a_crop(mark: Mark, *, pixels: U8 | None = None, motion: F32 | None = None, face: int = 0) -> Crop:
    """A registered crop: black and at rest unless given otherwise."""
    pixels = np.zeros((128, 128), np.uint8) if pixels is None else pixels
    motion = np.zeros((15, 2), np.float32) if motion is None else motion
    return Crop(face, mark, pixels, np.eye(2, 3), LANDMARKS, motion, 0.3, np.zeros(4, np.float32), 0.1, 1)


def observed(mark: Mark, crop: Crop | None, *, face: int = 0) -> Observation:
    """What is known of a face in a frame, as far as reports read it."""
    return Observation(face, mark, (0.0, 0.0, 1.0, 1.0), crop, 0.0, 0.0, {})


def _moving(face: int, index: int, t: float, looks: list[U8]) -> Observation:
    motion = np.zeros((15, 2), np.float32)
    motion[11] = (-0.6 * (index % 10), -0.3 * (index % 7))
    motion[12] = (0.5 * (index % 10), -0.2 * (index % 7))
    mark = Mark(index, t)
    return observed(mark, a_crop(mark, pixels=looks[index % len(looks)], motion=motion, face=face), face=face)
