"""A buffer of what happened lately, addressed by source time.

Its capacity is a length of time, not a count, so a change of frame rate changes nothing. Times never go back inside it: a
source that jumps or resets calls `clear`, and what lies across a gap is never paired.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

from engine.errors import InputError

T = TypeVar("T")


class Ring(Generic[T]):
    """The values of the last `seconds` of source time, oldest first; never more than `most` of them, a guard against a source
    whose time hardly advances (12 s at 1000 frames/s fit)."""

    def __init__(self, seconds: float, most: int = 16384) -> None:
        if seconds <= 0 or most < 1:
            raise InputError(f"a ring needs a positive length and count, not {seconds} s and {most}")
        self.seconds = seconds
        self.most = most
        self._times: list[float] = []
        self._values: list[T] = []

    def append(self, t: float, value: T) -> None:
        """Adds a value at time t, which must be later than all before; what is too old falls out."""
        if self._times and t <= self._times[-1]:
            raise InputError(f"time went back from {self._times[-1]} to {t} s inside a ring; clear it at a reset of the source")
        self._times.append(t)
        self._values.append(value)
        stale = max(bisect_left(self._times, t - self.seconds - 1e-9), len(self._times) - self.most)
        if stale > 0:
            del self._times[:stale], self._values[:stale]

    def nearest(self, t: float) -> T | None:
        """The value nearest to time t, or None where the ring is empty or t lies before all it remembers."""
        if not self._times or t < self._times[0] - 1e-6:
            return None
        right = bisect_left(self._times, t)
        candidates = [k for k in (right - 1, right) if 0 <= k < len(self._times)]
        return self._values[min(candidates, key=lambda k: abs(self._times[k] - t))]

    def between(self, start: float, stop: float) -> list[T]:
        """Values with start <= t <= stop, oldest first."""
        first, last = bisect_left(self._times, start - 1e-9), bisect_right(self._times, stop + 1e-9)
        return self._values[first:last]

    def clear(self) -> None:
        """Forgets everything: a gap or a reset of the source."""
        self._times.clear()
        self._values.clear()

    def __iter__(self) -> Iterator[T]:
        return iter(self._values)
