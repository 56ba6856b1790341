"""The times of all frames of a file, by the stamps of its packets: without decoding, but the whole file is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np

from engine.types import F64
from stream.sources.clock import GAP_S, MAX_JUMP_S
from stream.sources.decoding import LIMITS, picture_track

SAME_S = 2e-6
"""Times that differ by less are the same: those of marks are rounded to microseconds."""
REPORT_EVERY = 1000
"""Packets from one report of progress to the next."""


@dataclass(frozen=True, eq=False)
class PacketTimes:
    """The times of all packets [N] in order, and those of the key packets among them, seconds."""

    all: F64
    key: F64


def packet_times(video: Path, progress: Callable[[float], None] = lambda share: None) -> PacketTimes | None:
    """The times of the packets; None where those of the frames may differ: some packet has no stamp or is damaged, two have the
    same, or the stamps restart. progress gets the share of the file that is read, 0 to 1."""
    stamps, keys = list[int](), list[int]()
    latest = -math.inf
    try:
        with av.open(f"file:{video}", options={"protocol_whitelist": "file", **LIMITS}) as container:
            track = picture_track(container)
            if track is None or not track.time_base:
                return None
            length, base = container.size or 1, track.time_base
            for packet in container.demux(track):
                if not packet.size:
                    continue
                if packet.pts is None or packet.is_corrupt or packet.pts * base < latest - GAP_S:
                    return None
                latest = max(latest, float(packet.pts * base))
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
                if len(stamps) % REPORT_EVERY == 0:
                    progress(min((packet.pos or 0) / length, 1.0))
    except (av.error.FFmpegError, OSError):
        return None
    times, key = (np.sort(np.array(of, np.int64)) * base.numerator / base.denominator for of in (stamps, keys))
    steps = np.diff(times)
    return None if np.any(steps <= 0) or np.any(steps > MAX_JUMP_S) else PacketTimes(times, key)
