"""A candidate span, from the first loud row on: its onset and offset, and whether it is an expression at all.

While it is open, the deviation from its baseline is projected on its own direction at the apex, all regions at once, which
gives one curve of high signal-to-noise ratio. Onset and offset are the changepoints of that curve, whatever the level of its
baseline and however that drifts.

A candidate is no expression where its apex does not stand out from the line between its ends, where the face only returns to
its neutral position, or where it is a blink, which moves brow and cheek by a few tenths of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.quantiles import percentile
from engine.registration.regions import REGION_NAMES
from engine.spotting.changepoint import changepoint
from engine.spotting.motion import MotionSignal, loudest, region_lengths
from engine.types import F64, Mark

STANDS_OUT = 1.05  # loudness of an apex against the line between onset and offset,
STANDS_OUT_EARLY = 1.35  # and of one whose offset is unknown
BRIDGE_SHARE = 0.9  # expressions hardly move the bridge of the nose: what moves it as much as the rest is a turn of the head
RETURN_COSINE = 0.7  # a motion that points so straight to the neutral position is a return
DETOUR = 0.5  # one that meanwhile leaves the straight line by this share of its length is more than that
BLINK_S = 0.6  # a blink moves the face no longer
BLINK_PX = 1.0  # and no further
BLINK_LIDS_S = 0.15  # its lids close within the motion or so shortly before or after
USUAL_LIDS_S = 3.0  # lids are usually as far open as the 75th percentile over so long before a motion,
LIDS_REACH_S = 0.1  # closed where they fall, so near its apex,
CLOSED_LIDS = 0.65  # below this share of that,
LIDS_MOVE_PX = 4.0  # and move the skin around them no further
ELSEWHERE_SHARE = 0.6  # of the largest motion: lids move regions away from the eyes less

_AROUND_EYES = np.array([name.startswith(("brow", "glabella", "forehead", "cheek")) for name in REGION_NAMES])


@dataclass(eq=False)
class Candidate:
    """An open span: the baseline [2 R] it started from, and direction [2 R] and height (pixels) at its apex so far.

    start and apex are rows of the smoothed signal. rise caches how many rows lie between onset and apex, with the times of the
    first row of the curve and of the apex it was fitted for.
    """

    signal: MotionSignal
    longest_s: float
    start: int
    baseline: F64
    direction: F64
    apex: int
    height: float
    announced: bool = False
    rise: tuple[tuple[float, float], int] | None = None

    def deviation(self, row: int) -> F64:
        """Motion [2 R] of a row against the baseline."""
        return np.asarray(self.signal.motion(row, row + 1)[0] - self.baseline)

    def curve(self, first: int, stop: int) -> F64:
        """The curve over smoothed rows first..stop - 1, in pixels."""
        return np.asarray((self.signal.motion(first, stop) - self.baseline) @ self.direction)

    def _raw_curve(self, first: int, stop: int) -> F64:
        return np.asarray((self.signal.raw_motion(first, stop) - self.baseline) @ self.direction)

    def move_apex(self, row: int, deviation: F64) -> None:
        """Makes a row with that deviation [2 R] the apex."""
        self.apex, self.height = row, float(np.linalg.norm(deviation))
        self.direction = deviation / max(self.height, 1e-9)

    def onset(self) -> int:
        """Row of the onset, found before smoothing, which keeps edges sharp.

        Nothing after the apex changes it, so it is fitted once for each apex.
        """
        smooth, raw = self.signal.smooth, self.signal.raw
        first = smooth.first_at(max(smooth.t[self.apex] - self.longest_s - 1, self.signal.quiet_since))
        start, apex = raw.first_at(smooth.t[first]), raw.first_at(smooth.t[self.apex])
        times = raw.t[start : apex + 1]
        fitted_for = float(times[0]), float(times[-1])
        if self.rise is None or self.rise[0] != fitted_for:
            curve = self._raw_curve(start, apex + 1)
            curve[-1] = max(curve[-1], self.height)
            self.rise = fitted_for, changepoint(-times[::-1], curve[::-1])
        return max(self.apex - self.rise[1], first)

    def offset(self, now: int) -> int:
        """Row of the offset, no later than now, found as the onset is."""
        raw = self.signal.raw
        apex, stop = (raw.first_at(self.signal.smooth.t[k]) for k in (self.apex, now))
        curve = self._raw_curve(apex, stop + 1)
        curve[0] = max(curve[0], self.height)
        return min(self.apex + changepoint(raw.t[apex : stop + 1], curve), now)

    def stands_out(self, onset: int, offset: int | None = None) -> bool:
        """Whether the apex is louder than the line from onset to offset, or than the onset where there is no offset, even if as
        much as possible is put down to the head.

        A one-way drift is no expression, nor is one that all regions share as they share a turn of the head.
        """
        signal, t = self.signal, self.signal.smooth.t
        first = line = signal.motion(onset, onset + 1)[0]
        turned = signal.bridge(self.apex) - signal.bridge(onset)
        if offset is not None and offset > self.apex:
            share = (t[self.apex] - t[onset]) / max(t[offset] - t[onset], 1e-9)
            line = first + share * (signal.motion(offset, offset + 1)[0] - first)
            turned = turned - share * (signal.bridge(offset) - signal.bridge(onset))
        apex = signal.motion(self.apex, self.apex + 1)[0]
        if returns_to_neutral(signal, first, apex):
            return False
        size = region_lengths(signal.without_shared(apex - line))
        if loudest(size) < BRIDGE_SHARE * float(np.hypot(*turned)):
            return False
        return signal.loudness(size) > (STANDS_OUT_EARLY if offset is None else STANDS_OUT)

    def is_blink(self, onset: int, offset: int) -> bool:
        """Whether a short, small motion around the eyes comes with lids that close."""
        start, stop = self.signal.smooth.t[onset], self.signal.smooth.t[offset]
        if stop - start > BLINK_S:
            return False
        size = region_lengths(self.deviation(self.apex))
        if size.max() > BLINK_PX or size[~_AROUND_EYES].max() > ELSEWHERE_SHARE * size.max():
            return False
        lids = self.signal.lids
        first, last = lids.first_at(start - BLINK_LIDS_S), lids.first_at(stop + BLINK_LIDS_S)
        if last <= first:
            return False
        usual = percentile(lids.row[lids.first_at(start - 2.0) : last, 0], 75)
        return bool(lids.row[first:last, 0].min() < 0.75 * usual)


def returns_to_neutral(signal: MotionSignal, start: F64, end: F64) -> bool:
    """Whether a motion from start to end [2 R] only takes the face back to its neutral position: a laugh that fades is no
    sadness."""
    if signal.neutral is None:
        return False
    before, after = start - signal.neutral, end - signal.neutral
    away, step = signal.without_shared(before), signal.without_shared(after - before)
    distance, length = float(np.linalg.norm(away)), float(np.linalg.norm(step))
    return distance > 1.0 and float(-away @ step) > RETURN_COSINE * distance * length


def extent(signal: MotionSignal, start: float, end: float) -> tuple[Mark, Mark, Mark] | None:
    """Onset, apex and offset of the motion from start to end, seconds; the apex is furthest from the line between both ends.

    None where less than three rows of that time are known, or where the face goes straight back to its neutral position.
    """
    t = signal.smooth.t
    first, last = signal.smooth.first_at(start), min(signal.smooth.first_at(end), signal.now)
    if last - first < 2:
        return None
    motion = signal.motion(first, last + 1)
    share = ((t[first : last + 1] - t[first]) / (t[last] - t[first]))[:, None]
    away = np.linalg.norm(motion - (motion[0] + share * (motion[-1] - motion[0])), axis=1)
    straight = away.max() < DETOUR * float(np.linalg.norm(motion[-1] - motion[0]))
    if straight and returns_to_neutral(signal, motion[0], motion[-1]):
        return None
    apex = first + int(away.argmax())
    return signal.mark(first), signal.mark(min(max(apex, first + 1), last)), signal.mark(last)


def only_lids_close(signal: MotionSignal, onset: Mark, apex: Mark, offset: Mark) -> bool:
    """Whether the lids are closed at a motion's apex and nothing moves far but the skin around the eyes, which follows them."""
    lids = signal.lids
    first, peak, last = (min(signal.smooth.first_at(mark.t), signal.now) for mark in (onset, apex, offset))
    before, near = lids.first_at(onset.t - USUAL_LIDS_S), lids.first_at(apex.t - LIDS_REACH_S)
    if last <= first or lids.first_at(apex.t + LIDS_REACH_S) <= near:
        return False
    lowest = float(lids.row[near : lids.first_at(apex.t + LIDS_REACH_S), 0].min())
    if lowest > CLOSED_LIDS * percentile(lids.row[before : lids.first_at(offset.t) + 1, 0], 75):
        return False
    ends = signal.motion(first, last + 1)[[0, -1]]
    size = region_lengths(signal.motion(peak, peak + 1)[0] - ends.mean(axis=0))
    return bool(size.max() < LIDS_MOVE_PX and size[~_AROUND_EYES].max() < ELSEWHERE_SHARE * size.max())
