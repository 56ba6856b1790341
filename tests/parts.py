"""Steps of parts of videos, made up, and parts so short that a clip of some seconds has several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from engine.types import F32, Activity, ActivityKind, Event, Face, Frame, Mark, Observation
from stream.recorded.parts import join, plan
from stream.recorded.passage import Ending, Found, Seen
from stream.sources.facts import Declared, ReadCounts, Reading

FPS = 10.0
PIXELS = np.zeros((48, 64, 3), np.uint8)
DECLARED = Declared(
    path="v.mp4", codec="h264", fps=FPS, frames=0, seconds=None, end=None, step_s=1 / FPS, sound=False, warnings=()
)


def shorten_parts(patch: pytest.MonkeyPatch, *, warm: float, around: float, tail: float, least: float) -> None:
    """Let parts be as short as least, and overlap by little, seconds."""
    for module in (join, plan):
        patch.setattr(module, "WARM_S", warm)
        patch.setattr(module, "JOIN_S", around)
        patch.setattr(module, "TAIL_S", tail)
    patch.setattr(plan, "LEAST_S", least)


def reading(counts: ReadCounts, *, start: float = 0.0, end: float = 0.0) -> Reading:
    """How reading went."""
    return Reading(
        declared=DECLARED,
        pixel_format="yuv420p",
        size=(64, 48),
        rotation=0,
        mirrored=False,
        start=start,
        end=end,
        origin=start,
        restarts=(),
        disordered=False,
        not_deinterlaced=None,
        finished=True,
        counts=counts,
    )


class MadePart:
    """Steps of a part whose frames are the numbers first to last of a video of FPS frames a second; in the part they are
    numbered from 0. faces are those in view, by their numbers in this part, with their places (x) of 100 pixels side."""

    def __init__(self, first: int, last: int, faces: Mapping[int, float] | None = None) -> None:
        self.first, self.faces = first, {0: 0.0} if faces is None else faces
        self.steps = [self._seen(number) for number in range(first, last + 1)]
        self.found: dict[int, Found] = {}
        self.failure: str | None = None
        self.stopped = False

    def place_faces(self) -> None:
        """Have the frames show the faces."""
        self.steps = [self._seen(number + self.first) for number in range(len(self.steps))]

    def hide(self, number: int, face: int) -> None:
        """A face is not in a frame, by its number in the part."""
        seen = self.steps[number]
        faces, observations = (
            [one for one in seen.faces if one.id != face],
            [one for one in seen.observations if one.face != face],
        )
        self.steps[number] = replace(seen, faces=faces, observations=observations)

    def show(self, number: int, face: int, x: float) -> None:
        """One more face is in a frame, by its number in the part."""
        before, self.faces = self.faces, {face: x}
        seen, more = self.steps[number], self._seen(number + self.first)
        faces, observations = [*seen.faces, *more.faces], [*seen.observations, *more.observations]
        self.steps[number], self.faces = replace(seen, faces=faces, observations=observations), before

    def look(self, number: int, face: int, look: F32) -> None:
        """A face looks so in a frame, by its number in the part."""
        self.steps[number] = replace(self.steps[number], looks={**self.steps[number].looks, face: look})

    def mark(self, t: float) -> Mark:
        """The moment as this part numbers its frame."""
        return Mark(round(t * FPS) - self.first, t)

    def event(self, onset: float, offset: float, *, known: float, face: int = 0) -> None:
        """It finds an expression, at the frame of a time."""
        marks = self.mark(onset), self.mark((onset + offset) / 2), self.mark(offset)
        event = Event("?", "v", face, "final", "macro", *marks, "positive", {"positive": 1.0}, 1.0, 1.0, "net@1")
        self._find(known, replace(Found([], []), events=[event]))

    def activity(self, start: float, end: float, *, known: float, face: int = 0, kind: ActivityKind = "speech") -> None:
        """It finds an activity, at the frame of a time."""
        for number, seen in enumerate(self.steps):
            if start <= seen.frame.t < known:
                now = [replace(one, doing={**one.doing, kind: start}) if one.face == face else one for one in seen.observations]
                self.steps[number] = replace(seen, observations=now)
        self._find(known, Found([], [Activity(face, kind, self.mark(start), self.mark(end))]))

    def __iter__(self) -> Iterable[Seen | Found | Ending]:
        for number, seen in enumerate(self.steps):
            yield seen
            if number + self.first in self.found:
                yield self.found[number + self.first]
        counts = ReadCounts(frames=len(self.steps))
        ended = reading(counts, start=self.steps[0].frame.t, end=self.steps[-1].frame.t)
        yield Ending(ended, {"gaps": 0}, "net@1", "ort", self.failure, 1.5, self.stopped)

    def _find(self, known: float, found: Found) -> None:
        at = round(known * FPS)
        before = self.found.get(at, Found([], []))
        self.found[at] = Found([*before.events, *found.events], [*before.activities, *found.activities])

    def _seen(self, number: int) -> Seen:
        index, t = number - self.first, number / FPS
        points = np.zeros((478, 3), np.float32)
        faces = [Face(face, points, t) for face in self.faces]
        seen = [Observation(face, Mark(index, t), (x, 0.0, 100.0, 100.0), None, 0.0, 0.0, {}) for face, x in self.faces.items()]
        counts = reading(ReadCounts(frames=index + 1), start=self.first / FPS, end=t)
        return Seen(Frame(index, t, PIXELS), faces, seen, counts, {"gaps": 0})
