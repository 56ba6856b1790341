"""The motion of an event: its curve over time, and how far each region of the face went.

The curve is the motion of all regions, smoothed, projected on its direction at the apex and counted from the onset. Its unit is
a pixel of the 128 px face crop; at the apex it is as high as the region that moved most went. Motion that all regions share is
the head's and is not part of the direction.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from engine.registration.align import region_places, without_head
from engine.spotting.motion import SMOOTH_S, region_lengths
from engine.spotting.spotter import BREAK_S
from engine.types import F64, Crop, Event

KEEP_S = 13.0
"""Crops are kept for so long: the longest expression that is followed, and what lies around it."""

AROUND_S = 0.5
"""A curve begins this long before the onset and ends as long after the offset, where the face was seen."""

LEAST_OWN = 0.25
"""Least share of the face's own motion that the whole motion must have in its direction."""

MAX_POINTS = 100
"""Points of a curve at most."""


@dataclass(frozen=True, eq=False)
class Motion:
    """The motion of one event. t [N] are seconds of the source, px [N] the curve at these times, moved [R, 2] how far each
    region went from onset to apex (u right, v down); lengths in pixels of the crop."""

    t: F64
    px: F64
    moved: F64


class CropHistory:
    """The crops of one face in the last seconds."""

    def __init__(self) -> None:
        self._crops: deque[tuple[int, Crop]] = deque()  # with the number of breaks before it
        self._breaks = 0

    def append(self, crop: Crop, *, apart: bool = False) -> None:
        """Take the next crop; apart says that its motion does not continue that of the last one."""
        t = crop.mark.t
        if self._crops and (apart or not 0 < t - self._crops[-1][1].mark.t <= BREAK_S):
            self._breaks += 1
        self._crops.append((self._breaks, crop))
        while t - self._crops[0][1].mark.t > KEEP_S:
            self._crops.popleft()

    @property
    def last_t(self) -> float:
        """Time of the newest crop."""
        return self._crops[-1][1].mark.t

    def around(self, event: Event) -> list[Crop]:
        """The crops from before the onset to after the offset, as far as the motion is continuous around the apex."""
        near = min(self._crops, key=lambda kept: abs(kept[1].mark.t - event.apex.t), default=None)
        if near is None:
            return []
        end = (event.offset or event.apex).t
        first, last = event.onset.t - AROUND_S, end + AROUND_S
        return [crop for breaks, crop in self._crops if breaks == near[0] and first <= crop.mark.t <= last]


def motion_of(event: Event, crops: list[Crop]) -> Motion | None:
    """The motion of an event, from the crops around it; None where these do not show it."""
    t = np.array([crop.mark.t for crop in crops])
    onset, apex = (int(np.searchsorted(t, mark.t - 1e-6)) for mark in (event.onset, event.apex))
    if not onset < apex < len(t):
        return None
    motion = _smooth(t, np.array([crop.motion for crop in crops], np.float64).reshape(len(t), -1))
    change = motion[apex] - motion[onset]
    moved = without_head(change, region_places(crops[apex].landmarks))
    if change @ moved < LEAST_OWN * (moved @ moved):  # the head went the other way
        moved = change
    if moved @ moved < 1e-12:
        return None
    px = (motion - motion[onset]) @ moved * (float(region_lengths(moved).max()) / (change @ moved))
    kept = np.unique([onset, apex, *np.linspace(0, len(t) - 1, min(len(t), MAX_POINTS - 2)).round().astype(int)])
    return Motion(t[kept], px[kept], moved.reshape(-1, 2))


def _smooth(t: F64, rows: F64) -> F64:
    """rows [N, width] as means over +-SMOOTH_S."""
    first, last = np.searchsorted(t, t - SMOOTH_S - 1e-9), np.searchsorted(t, t + SMOOTH_S + 1e-9)
    sums = np.vstack([np.zeros(rows.shape[1]), np.cumsum(rows, axis=0)])
    return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])
