"""What an analysis found, by moment: events, speech, and the motion curve of each face. Times are seconds of the source."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np

from engine.types import F64, Activity, Event, Observation

BREAK_S = 0.25
"""Measurements further apart than this are not joined."""

SEEN_MEASUREMENTS = 25
"""A face with fewer measurements and without an event gets no curve."""

T = TypeVar("T")


class Spans(Generic[T]):
    """Things that last from one moment to another."""

    def __init__(self) -> None:
        self._all: list[tuple[float, float, int, T]] = []
        self._longest = 0.0

    def add(self, start: float, end: float, thing: T) -> None:
        """Keep a thing."""
        insort(self._all, (start, end, len(self._all), thing))
        self._longest = max(self._longest, end - start)

    def between(self, start: float, end: float) -> list[T]:
        """The things that last at any moment from start to end, by their starts."""
        first = bisect_left(self._all, start - self._longest, key=lambda one: one[0])
        stop = bisect_right(self._all, end, key=lambda one: one[0])
        return [thing for _, last, _, thing in self._all[first:stop] if last >= start]


class Findings:
    """Filled while a video is analysed: `observe`, `add_event`, `add_activity`."""

    def __init__(self) -> None:
        self._events: dict[int, Spans[Event]] = defaultdict(Spans)
        self._activities: dict[int, Spans[Activity]] = defaultdict(Spans)
        self._t: dict[int, array[float]] = defaultdict(lambda: array("d"))
        self._loudness: dict[int, array[float]] = defaultdict(lambda: array("d"))

    def observe(self, seen: Observation) -> None:
        """Keep what was measured of a face last, once."""
        times = self._t[seen.face]
        if seen.crop is not None and seen.measured_t is not None and (not times or seen.measured_t > times[-1]):
            times.append(seen.measured_t)
            self._loudness[seen.face].append(seen.loudness)

    def add_event(self, event: Event) -> None:
        """Keep a final event, without its evidence."""
        end = event.apex if event.offset is None else event.offset
        self._events[event.face].add(event.onset.t, end.t, replace(event, evidence=None))

    def add_activity(self, activity: Activity) -> None:
        """Keep an activity."""
        self._activities[activity.face].add(activity.start.t, activity.end.t, activity)

    def faces(self, most: int) -> list[int]:
        """The faces that were followed for a while or had an event, by id: those followed longest, at most so many."""
        followed = [face for face in self._t if face in self._events or len(self._t[face]) >= SEEN_MEASUREMENTS]
        return sorted(sorted(followed, key=lambda face: -len(self._t[face]))[:most])

    def events(self, face: int, start: float, end: float) -> list[Event]:
        """The events of a face that last at any moment from start to end, by onset."""
        return self._events[face].between(start, end) if face in self._events else []

    def activities(self, face: int, start: float, end: float) -> list[Activity]:
        """The activities of a face that last at any moment from start to end."""
        return self._activities[face].between(start, end) if face in self._activities else []

    def curve(self, face: int, start: float, end: float) -> list[F64]:
        """Loudness from start to end: pieces [N, 2] of (t, loudness), each without a break."""
        times = self._t.get(face, array("d"))
        first, stop = max(0, bisect_left(times, start) - 1), bisect_right(times, end) + 1
        rows = np.column_stack([times[first:stop], self._loudness[face][first:stop]]) if times else np.zeros((0, 2))
        return np.split(rows, np.flatnonzero(np.diff(rows[:, 0]) > BREAK_S) + 1)
