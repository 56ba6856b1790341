"""Growing arrays of moments and vectors: what the spotter remembers of one face."""

from __future__ import annotations

import numpy as np

from engine.types import F64

BLOCK = 512  # so many rows are dropped at once, or more


class Tape:
    """Growing arrays of frame numbers, times and vectors; old rows are dropped in blocks."""

    def __init__(self, width: int) -> None:
        self.size = 0
        self.frame = np.zeros(1024, np.int64)
        self.t = np.zeros(1024)
        self.row = np.zeros((1024, width))

    def append(self, frame: int, t: float, row: F64) -> None:
        """Adds a moment; t rises."""
        if self.size == len(self.t):
            self.frame, self.t = np.resize(self.frame, 2 * self.size), np.resize(self.t, 2 * self.size)
            self.row = np.concatenate([self.row, np.zeros_like(self.row)])
        self.frame[self.size], self.t[self.size], self.row[self.size] = frame, t, row
        self.size += 1

    def forget_before(self, t: float) -> int:
        """Drops rows before t once they are many; returns how many."""
        if self.size < BLOCK or self.t[BLOCK - 1] >= t:
            return 0
        stale = int(np.searchsorted(self.t[: self.size], t))
        keep = self.size - stale
        for array in (self.frame, self.t, self.row):
            array[:keep] = array[stale : self.size].copy()
        self.size = keep
        return stale

    def first_at(self, t: float) -> int:
        """Index of the first row at or after t."""
        return int(self.t[: self.size].searchsorted(t - 1e-9))
