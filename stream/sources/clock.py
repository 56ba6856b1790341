"""From the time stamps a file carries to the time of each frame, with every repair counted.

The source's own clock is kept: the first stamp need not be zero. What can be wrong with it, and what is done:

    no stamps at all                each frame one step (the declared rate, else 1/25 s) after the one before
    one stamp missing               the same, for that frame
    stamps out of order             containers that store B-frames without presentation times: from there on, the frames take
                                    the stamps of the packets read ahead, smallest first
    a jump of > 1 s and > 3 steps   kept, and the frame is marked as coming after a gap
    a jump back by > 1 s            the source started a new clock: marked as a gap; kept for a live source (see `Timeline`),
                                    while in a recording time continues one step after the last frame
    a jump ahead by > 1 h           in a recording the same: no recording pauses for so long
    pictures lost to damage         marked as a gap when more than 3 steps are missing
    pictures lost in transmission   counted, where a steady rate misses some and the stream itself shows that they were sent
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from statistics import median

GAP_S = 1.0
MAX_JUMP_S = 3600.0
GAP_STEPS = 3.0
STEADY_STEPS = 8
STEADY_SHARE = 0.75
UNEVEN = 0.2
"""A rate is steady where three of four of the last steps differ from their median by less than this share."""
DEFAULT_STEP_S = 1 / 25
RATE_CHANGE = 0.25
MIN_STEPS = 3
"""Events are at least so many frames long (`engine.spotting.decision`)."""
MICRO_FPS = 20.0
"""At fewer frames/s the spotter's average over +-0.05 s has one frame only, and a rise of 0.1 s two."""


def slow_rate(fps: float) -> str:
    """One sentence on what cannot be seen at fps frames/s; "" where the rate is high enough or unknown (0)."""
    if fps <= 0 or fps >= MICRO_FPS:
        return ""
    return (
        f"micro-expressions cannot be seen at {fps:.0f} frames/s: nothing shorter than 3 frames ({MIN_STEPS / fps:.2f} s) is"
        ", and they last half a second at most and rise within a tenth or two; record at least 25 frames/s"
    )


class SlowRate:
    """`slow_rate` of a rate that varies: the sentence changes only when the rate has changed by a quarter."""

    def __init__(self) -> None:
        self._fps = 0.0

    def __call__(self, fps: float) -> str:
        """The sentence for the rate now, frames/s, 0 where it is unknown."""
        if fps > 0 and abs(fps - self._fps) > RATE_CHANGE * self._fps:
            self._fps = fps
        return slow_rate(self._fps)


@dataclass(frozen=True)
class Restart:
    """Where a recording's stamps restart: at this frame, which gets the time t and whose own stamp is another, seconds."""

    frame: int
    t: float
    stamp: float


class SourceClock:
    """Stamps the frames of one source; step_s is the declared time from frame to frame, None where none is declared.

    sort: the container's stamps are known to be in the order of storage, not of presentation. recorded: where the stamps
    restart, time continues and `restarts` keeps the place, since no wall clock shows how much time passed. covered is how long
    the pictures last, without gaps, seconds; missing is how many pictures a steady rate lacks where some were lost, in so many
    holes, of which short_holes are no gaps; uneven is how many it lacks elsewhere, as of a camera that skips some in the dark.
    """

    def __init__(self, step_s: float | None, *, sort: bool = False, recorded: bool = False) -> None:
        self.nominal_s = step_s if step_s is not None and 1e-3 <= step_s <= 60 else DEFAULT_STEP_S
        self.invented = self.gaps = self.missing = self.holes = self.short_holes = self.uneven = 0
        self.covered, self.disordered = 0.0, False
        self.restarts: list[Restart] = []
        self._sort, self._recorded = sort, recorded
        self._offset, self._count = 0.0, 0
        self._last: float | None = None
        self._steps: deque[float] = deque(maxlen=15)
        self._ahead: list[float] = []

    def read_ahead(self, t: float | None) -> None:
        """A packet with presentation time t (seconds) was read; its frame comes later."""
        if t is not None:
            heapq.heappush(self._ahead, t)

    def stamp(self, t: float | None, *, lost: bool = False) -> tuple[float, bool]:
        """The time of the next frame and whether a gap lies before it; lost: pictures were lost just before."""
        last = self._last
        if last is None:
            return self._advance(self._first(t), gap=False)
        step = median(self._steps) if self._steps else self.nominal_s
        if t is not None and (t < last - GAP_S or (self._recorded and t > last + MAX_JUMP_S)):
            self._ahead = [ahead for ahead in self._ahead if abs(ahead - t) < abs(ahead - last) and ahead > t]
            heapq.heapify(self._ahead)
            if self._recorded:
                self._offset += last + step - t
                self.restarts.append(Restart(self._count, t + self._offset, t))
            return self._advance(t, gap=True)
        t = self._repaired(t, last)
        far = t - last > GAP_STEPS * step * 1.001
        gap = far and (lost or t - last > GAP_S)
        self._count_missing(t - last, step, lost=lost, gap=gap)
        if not gap:
            self._steps.append(t - last)
        return self._advance(t, gap=gap)

    def _count_missing(self, step: float, usual: float, *, lost: bool, gap: bool) -> None:
        """Count the pictures that are missing in a step, where the steps before it were even."""
        steps = self._steps
        steady = len(steps) >= STEADY_STEPS and sum(abs(one / usual - 1) < UNEVEN for one in steps) >= STEADY_SHARE * len(steps)
        lacks = round(step / usual) - 1
        if steady and lacks >= 1 and abs(step / usual - round(step / usual)) < UNEVEN:
            self.holes += lost
            self.short_holes += lost and not gap
            self.missing += lacks * lost
            self.uneven += lacks * (not lost)

    def _first(self, t: float | None) -> float:
        self.invented += t is None
        return 0.0 if t is None else min([t, *self._ahead]) if self._sort else t

    def _repaired(self, t: float | None, last: float) -> float:
        """t where it is plausible, else the best estimate; always after last."""
        if t is not None and t <= last:
            self.disordered = self._sort = True
        if self._sort:
            while self._ahead and self._ahead[0] <= last:
                heapq.heappop(self._ahead)
            t = self._ahead[0] if self._ahead else None
        if t is None:
            self.invented += 1
            return last + self.nominal_s
        return t

    def _advance(self, t: float, *, gap: bool) -> tuple[float, bool]:
        if self._last is not None and not gap:
            self.covered += t - self._last
        self._last = t
        self._count += 1
        self.gaps += gap
        while self._ahead and self._ahead[0] <= t:
            heapq.heappop(self._ahead)
        return t + self._offset, gap


class Timeline:
    """One continuous time for a source that reconnects or loops: it follows the source's own clock, continues where that
    restarts, and never goes back.

    follows_wall is for live sources: after a restart time continues by the wall clock, and a jump ahead of it counts as a
    restart. Otherwise time continues one step after the last frame.
    """

    def __init__(self, *, follows_wall: bool) -> None:
        self._follows_wall = follows_wall
        self._offset = 0.0
        self._last: tuple[float, float] | None = None
        self._step = DEFAULT_STEP_S

    def place(self, t: float, now: float, *, gap: bool) -> float:
        """The time of a frame with the source's time t that arrived at now (seconds of a monotonic clock); gap: t may belong to
        another clock than the previous frame's."""
        placed = t + self._offset
        if self._last is not None:
            last, before = self._last
            passed = now - before if self._follows_wall else 0.0
            expected = last + max(passed, self._step)
            jumped = gap and (placed <= last or (self._follows_wall and abs(placed - expected) > GAP_S))
            if jumped or placed <= last:
                self._offset += expected - placed
                placed = expected
            elif not gap:
                self._step = placed - last
        self._last = (placed, now)
        return placed
