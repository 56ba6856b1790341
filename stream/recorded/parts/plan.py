"""Which parts a video is analysed in.

A long video is cut into parts of equal length, so that several processes can analyse it at once. Each part is read from earlier
on, until what is usual for a face has been learned, and beyond its end, until the expressions that begin before it are over;
`stream.recorded.parts.join` finds the moment in the overlap where one part gives way to the next.

Only a file whose frames are certain to have the same times wherever reading starts is cut: its packets have time stamps that
never restart, and its frames right after each place of entry are those that the stamps announce.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import SourceError
from engine.types import F64
from stream.sources.file import open_video
from stream.sources.packets import SAME_S, packet_times

WARM_S = 30.0
"""So long before the overlap reading starts, seconds: the longest memory of `engine.activity.watch`. With twice as much, parts
are no more like the whole (docs/results.md)."""
JOIN_S = 10.0
"""Parts may give way to one another so long before and after the planned moment, seconds."""
TAIL_S = 12.0
"""After so long each expression is over that began before: the longest one that is followed, and the judge's delay."""
LEAST_S = 60.0
"""Parts are at least so long, so that the places where they overlap are apart."""
TRIED_FRAMES = 50
"""Frames that are compared with the stamps at each place of entry."""


@dataclass(frozen=True)
class Part:
    """A part of a video, from start to end in seconds of the source, infinite at the ends of the video."""

    start: float = -math.inf
    end: float = math.inf

    @property
    def first(self) -> float:
        """Where reading starts."""
        return self.start - JOIN_S - WARM_S

    @property
    def last(self) -> float:
        """Where reading ends."""
        return self.end + JOIN_S + TAIL_S


WHOLE = Part()


def plan_parts(video: Path, part_s: float) -> tuple[Part, ...]:
    """The parts of a video, about part_s long each, LEAST_S at least, 0 for no cuts; only `WHOLE` where it is short or cannot
    be cut.

    Raises SourceError where it is no video that can be read.
    """
    part_s = max(part_s, LEAST_S) if part_s else math.inf
    if not video.is_file():
        return (WHOLE,)
    with open_video(video) as source:
        length = source.reading.declared.seconds
    if length is not None and round(length / part_s) < 2:
        return (WHOLE,)
    times = packet_times(video)
    count = 1 if times is None or len(times) < 2 else round(float(times[-1] - times[0]) / part_s)
    if times is None or count < 2:
        return (WHOLE,)
    seams = np.linspace(times[0], times[-1], count + 1)[1:-1].tolist()
    parts = tuple(Part(start, end) for start, end in zip([-math.inf, *seams], [*seams, math.inf], strict=True))
    return parts if all(_enters(video, part, times) for part in parts[1:]) else (WHOLE,)


def _enters(video: Path, part: Part, times: F64) -> bool:
    """Whether the frames where reading of the part starts are those that the stamps announce."""
    with open_video(video) as source:
        try:
            source.seek(part.first)
            read = []
            for frame in source:
                if frame.t >= part.first:
                    read.append(frame.t)
                if len(read) == TRIED_FRAMES:
                    break
        except SourceError:
            return False
        return not source.disordered and _follow(read, times)


def _follow(read: Sequence[float], times: F64) -> bool:
    """Whether the times that were read follow one another among those of all frames."""
    at = int(np.searchsorted(times, read[0] - SAME_S)) if read else len(times)
    expected = times[at : at + len(read)]
    return len(expected) == len(read) > 0 and bool(np.all(np.abs(expected - read) < SAME_S))
