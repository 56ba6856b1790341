"""Waits between attempts that fail: each twice as long as the one before, up to a limit."""

from __future__ import annotations

import random


class Backoff:
    """Seconds to wait before each attempt, from first_s doubling to longest_s.

    jitter shortens each wait at random by up to that share of it, so that many clients do not retry all at once.
    """

    def __init__(self, first_s: float, longest_s: float, *, jitter: float = 0.0) -> None:
        self._first, self._longest, self._jitter = first_s, longest_s, jitter
        self._wait = first_s

    def next(self) -> float:
        """The wait before the next attempt, seconds; the following one is twice as long."""
        wait, self._wait = self._wait, min(2 * self._wait, self._longest)
        return wait * random.uniform(1 - self._jitter, 1)

    def reset(self) -> None:
        """Start again with the shortest wait, after an attempt that succeeded."""
        self._wait = self._first
