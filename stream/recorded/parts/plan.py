"""Which parts a video is analysed in.

A long video is cut into parts of equal length, so that several processes can analyse it at once. Each part is read from earlier
on, until what is usual for a face has been learned, and beyond its end, until the expressions that begin before it are over;
`stream.recorded.parts.join` finds the moment in the overlap where one part gives way to the next.

Only a file whose frames are certain to have the same times wherever reading starts is cut: its packets have time stamps that
never restart, and its frames right after each place of entry are those that the stamps announce.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import SourceError
from engine.types import F64
from stream.sources.clock import GAP_S
from stream.sources.file import open_video
from stream.sources.packets import SAME_S, PacketTimes, packet_times

WARM_S = 30.0
"""So long before the overlap reading starts, seconds: the longest memory of `engine.activity.watch`. With twice as much, parts
are no more like the whole (docs/results.md)."""
JOIN_S = 10.0
"""Parts may give way to one another so long before and after the planned moment, seconds."""
TAIL_S = 12.0
"""After so long each expression is over that began before: the longest one that is followed, and the judge's delay."""
LEAST_S = 60.0
"""Parts are at least so long, so that the places where they overlap are apart."""
LEAD_S = 5.0
"""So long before a part its file is entered, seconds."""
MOST_LEAD_S = 60.0
"""No part begins further behind a key picture than this: all between would be decoded for nothing."""
TRIED_FRAMES = 50
"""Frames that are compared with the stamps at each place of entry."""


@dataclass(frozen=True)
class Part:
    """A part of a video, from start to end in seconds of the source, infinite at the ends of the video."""

    start: float = -math.inf
    end: float = math.inf

    @property
    def first(self) -> float:
        """The time of the first frame at the earliest."""
        return self.start - JOIN_S - WARM_S

    @property
    def enter(self) -> float:
        """Where the file is entered: some formats have no index, and begin a little behind the place that is asked for."""
        return self.first - LEAD_S

    @property
    def last(self) -> float:
        """Where reading ends."""
        return self.end + JOIN_S + TAIL_S


WHOLE = Part()


def plan_parts(video: Path, part_s: float) -> tuple[Part, ...]:
    """The parts of a video, about part_s long each, LEAST_S at least, 0 for no cuts; only `WHOLE` where it is short or cannot
    be cut. The whole file is read, unless it says that it is short.

    Raises SourceError where it is no video that can be read.
    """
    if not part_s or not video.is_file():
        return (WHOLE,)
    part_s = max(part_s, LEAST_S)
    with open_video(video) as source:
        length = source.reading.declared.seconds
    if length is not None and round(length / part_s) < 2:
        return (WHOLE,)
    packets = packet_times(video)
    if packets is None or len(packets.all) < 2:
        return (WHOLE,)
    count = max(1, round(float(packets.all[-1] - packets.all[0]) / part_s))
    planned = np.linspace(packets.all[0], packets.all[-1], count + 1)[1:-1].tolist()
    seams = [seam for seam in planned if _can_be(seam, packets)]
    parts = tuple(Part(start, end) for start, end in zip([-math.inf, *seams], [*seams, math.inf], strict=True))
    return parts if all(_enters(video, part, packets.all) for part in parts[1:]) else (WHOLE,)


def _can_be(seam: float, packets: PacketTimes) -> bool:
    """Whether the video goes on without a gap around a seam, and can be entered not long before."""
    part = Part(seam)
    first, last = part.first, Part(end=seam).last
    at, to = np.searchsorted(packets.all, [first, last])
    around = packets.all[max(at - 1, 0) : to + 1]
    key = int(np.searchsorted(packets.key, max(part.enter, packets.all[0]), "right")) - 1
    goes_on = bool(around[0] <= first and around[-1] >= last and np.all(np.diff(around) <= GAP_S))
    return goes_on and key >= 0 and bool(packets.key[key] >= first - MOST_LEAD_S)


def _enters(video: Path, part: Part, times: F64) -> bool:
    """Whether the frames where reading of the part starts are those that the stamps announce."""
    with open_video(video) as source:
        try:
            source.seek(part.enter)
            read = []
            for frame in source:
                if frame.t >= part.first:
                    read.append(frame.t)
                if len(read) == TRIED_FRAMES:
                    break
        except SourceError:
            return False
        at = int(np.searchsorted(times, part.first))
        expected = times[at : at + len(read)]
        same = len(expected) == len(read) > 0 and bool(np.all(np.abs(expected - read) < SAME_S))
        return same and not source.disordered
