"""What of a video could be seen: when each face is in view, turned aside, too small or not registered, and when pictures come
too slowly."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.types import F32, Activity, Face, Frame, Observation
from stream.recorded.report.spans import Span, Spans, seconds, union, within, without
from stream.sources.clock import MICRO_FPS

ASIDE_DEG = 30.0
"""A face is turned aside where its yaw is more than this."""

LEAST_EYES_PX = 50.0
"""A face is too small where its eyes are closer together than this, in pixels of the frame."""

MAX_STEP_S = 1.0
"""Frames further apart than this show nothing of the time between them."""

RATE_FRAMES = 10
"""The frame rate is that of the last so many frames."""

_LEFT_EDGE, _RIGHT_EDGE = 234, 454
_EYES = np.array([33, 133, 362, 263])  # the corners of one eye, then of the other


@dataclass(frozen=True)
class FaceTimes:
    """When a face was in view, and when it was turned aside, too small, or found but not registered."""

    present: Spans = field(default_factory=Spans)
    aside: Spans = field(default_factory=Spans)
    small: Spans = field(default_factory=Spans)
    lost: Spans = field(default_factory=Spans)


class Seen:
    """Takes frames in order. faces holds the times of each face by id; slow is when fewer than MICRO_FPS pictures a second
    came, start and end are the times of the first frame and the last."""

    def __init__(self) -> None:
        self.faces: defaultdict[int, FaceTimes] = defaultdict(FaceTimes)
        self.slow = Spans()
        self.start: float | None = None
        self.end = 0.0
        self._recent: deque[float] = deque(maxlen=RATE_FRAMES + 1)

    def frame(self, frame: Frame, faces: Sequence[Face], observations: Sequence[Observation]) -> None:
        """Take the next frame, the faces in it, and what is known of them."""
        before = frame.t if self.start is None or frame.gap or not 0 < frame.t - self.end <= MAX_STEP_S else self.end
        if self.start is None:
            self.start = frame.t
        if before == frame.t:
            self._recent.clear()
        self._recent.append(frame.t)
        steps = len(self._recent) - 1
        if steps and steps / (frame.t - self._recent[0]) < MICRO_FPS * 0.99:
            self.slow.add(before, frame.t)
        registered = {seen.face for seen in observations if seen.crop is not None}
        for face in faces:
            self._face(face, before, frame.t, face.id in registered)
        self.end = frame.t

    def _face(self, face: Face, before: float, now: float, registered: bool) -> None:
        times = self.faces[face.id]
        times.present.add(before, now)
        if abs(yaw(face.points)) > ASIDE_DEG:
            times.aside.add(before, now)
        if eye_distance(face.points) < LEAST_EYES_PX:
            times.small.add(before, now)
        if not registered:
            times.lost.add(before, now)


def yaw(points: F32) -> float:
    """How far a face [478, 3] is turned to the side, degrees."""
    x, y, z = (points[_RIGHT_EDGE] - points[_LEFT_EDGE]).tolist()
    return math.degrees(math.atan2(z, math.hypot(x, y)))


def eye_distance(points: F32) -> float:
    """Pixels between the middles of the eyes."""
    (ax, ay, _), (bx, by, _), (cx, cy, _), (dx, dy, _) = points[_EYES].tolist()
    return math.hypot(cx + dx - ax - bx, cy + dy - ay - by) / 2


@dataclass(frozen=True)
class Visibility:
    """How long something of a face, or of any face of a video, could be seen, seconds. watched: in view, and none of covered,
    aside, small, lost and slow."""

    present: float
    watched: float
    speaking: float
    covered: float
    aside: float
    small: float
    lost: float
    slow: float


def visibility(seen: Seen, activities: Iterable[Activity]) -> tuple[Visibility, dict[int, Visibility]]:
    """Of the whole video, and of each face in it. Of the whole, a condition counts while it holds for each face in view, speech
    while it does for any."""
    acts: defaultdict[tuple[int, str], list[Span]] = defaultdict(list)
    for one in activities:
        acts[one.face, one.kind].append((one.start.t, one.end.t))
    every = {id_: _conditions(times, acts, id_, list(seen.slow)) for id_, times in seen.faces.items()}
    present = union(span for of in every.values() for span in of["present"])
    whole = {"present": present, "speaking": union(span for of in every.values() for span in of["speaking"])}
    for name in ("covered", "aside", "small", "lost", "slow"):
        free = union(span for of in every.values() for span in without(of["present"], of[name]))
        whole[name] = without(present, free)
    whole["watched"] = union(span for of in every.values() for span in of["watched"])
    return _lengths(whole), {id_: _lengths(of) for id_, of in every.items()}


def _conditions(
    times: FaceTimes, acts: dict[tuple[int, str], list[Span]], face: int, slow: list[Span]
) -> dict[str, list[Span]]:
    """When each condition of `Visibility` holds for one face."""
    present = list(times.present)
    of = {
        name: within(union(acts.get((face, kind), [])), present)
        for name, kind in (("speaking", "speech"), ("covered", "covered"))
    }
    of |= {"aside": list(times.aside), "small": list(times.small), "lost": list(times.lost), "slow": within(slow, present)}
    unseen = union(span for name in ("covered", "aside", "small", "lost", "slow") for span in of[name])
    return {"present": present, "watched": without(present, unseen), **of}


def _lengths(of: dict[str, list[Span]]) -> Visibility:
    return Visibility(**{name: seconds(spans) for name, spans in of.items()})
