"""When the frames of a live source were captured, by the monotonic clock of this machine.

A frame carries its source's time t, which is even, and arrives later than it was captured, by a delay that varies (network,
decoding, a busy machine). The frames with the least delay show how the two clocks lie to each other:

    captured = t + the least of (arrived - t) in the last WINDOW_S

so intervals are those of the source's own clock, and the jitter of arrival is left out. The constant part of the delay, from
the exposure to the quickest arrival, cannot be seen from here and remains.
"""

from __future__ import annotations

from collections import deque

from engine.types import Frame

WINDOW_S = 10.0
"""Long enough for a frame without much delay, and short enough for clocks that drift: 50 millionths are half a millisecond."""
SEGMENTS = 16
"""Times between two gaps that are remembered: an event is decided by a frame after the gap that ended it."""


class CaptureClock:
    """The offset from a source's time to `time.monotonic()` at the capture, estimated again after each gap; for one thread."""

    def __init__(self) -> None:
        self._least: deque[tuple[float, float]] = deque()  # (t, arrived - t), rising: the first is the least of the window
        self._start = float("-inf")
        self._before: deque[tuple[float, float]] = deque(maxlen=SEGMENTS)  # (start, offset) of earlier segments

    def note(self, frame: Frame, arrived: float) -> None:
        """A frame arrived, `time.monotonic()`."""
        t, delay = frame.t, arrived - frame.t
        if frame.gap and self._least:
            self._before.append((self._start, self._least[0][1]))
            self._least.clear()
            self._start = t
        while self._least and self._least[-1][1] >= delay:
            self._least.pop()
        self._least.append((t, delay))
        while self._least[0][0] < t - WINDOW_S:
            self._least.popleft()

    def offset(self, t: float) -> float:
        """What to add to the source's time t, and to times near it, for the monotonic time of the capture, seconds."""
        if t >= self._start or not self._before:
            return self._least[0][1] if self._least else 0.0
        return next((offset for start, offset in reversed(self._before) if t >= start), self._before[0][1])
