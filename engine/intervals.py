"""Intervals of a video: how far they overlap, and which of two lists belong together.

Intervals are half-open, in any one unit, seconds or frames.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from engine.errors import InputError
from engine.types import F64

IOU = 0.5
"""The least overlap of a match by the rules of the Micro-Expression Grand Challenges."""


@dataclass(frozen=True)
class Interval:
    """A part of a video with an optional class. Raises InputError unless end > start."""

    start: float
    end: float
    label: str | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.start) and np.isfinite(self.end) and self.end > self.start):
            raise InputError(f"an interval ends after it starts, not {self.start} to {self.end}")


def overlap(predicted: Sequence[Interval], truth: Sequence[Interval]) -> F64:
    """[P, T] intersection over union of every pair."""
    a = np.array([(p.start, p.end) for p in predicted], np.float64).reshape(-1, 1, 2)
    b = np.array([(t.start, t.end) for t in truth], np.float64).reshape(1, -1, 2)
    shared = np.clip(np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0]), 0, None)
    return np.asarray(shared / ((a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - shared))


def match(predicted: Sequence[Interval], truth: Sequence[Interval], iou: float = IOU) -> list[tuple[int, int]]:
    """Pairs (index of prediction, index of truth) with overlap of at least iou, as many as possible, each index once; sorted.

    A maximum matching by augmenting paths (Kuhn 1955) that tries better overlaps first: no greedy order can find more pairs.
    Above one half and among intervals of one kind that do not overlap each other every pair is unique anyway.
    """
    if not 0 < iou <= 1:
        raise InputError(f"the least overlap lies above 0 and up to 1, not {iou}")
    overlaps = _overlaps(predicted, truth)
    options = [[t for t in sorted(own, key=lambda t: -own[t]) if own[t] >= iou - 1e-9] for own in overlaps]
    owner: dict[int, int] = {}

    def place(p: int, tried: set[int]) -> bool:
        for t in options[p]:
            if t in tried:
                continue
            tried.add(t)
            if t not in owner or place(owner[t], tried):
                owner[t] = p
                return True
        return False

    for p in sorted(range(len(predicted)), key=lambda p: -max(overlaps[p].values(), default=0.0)):
        place(p, set())
    return sorted((p, t) for t, p in owner.items())


def _overlaps(predicted: Sequence[Interval], truth: Sequence[Interval]) -> list[dict[int, float]]:
    """For each prediction the truths that it overlaps, by index, and the intersection over union; nothing is computed of the
    other pairs, so that hours of events take seconds and little memory."""
    order = sorted(range(len(truth)), key=lambda t: truth[t].start)
    starts = [truth[t].start for t in order]
    latest_end = list(accumulate((truth[t].end for t in order), max))
    found: list[dict[int, float]] = []
    for one in predicted:
        own: dict[int, float] = {}
        k = bisect_left(starts, one.end) - 1
        while k >= 0 and latest_end[k] > one.start:
            other = truth[order[k]]
            shared = min(one.end, other.end) - max(one.start, other.start)
            if shared > 0:
                own[order[k]] = shared / ((one.end - one.start) + (other.end - other.start) - shared)
            k -= 1
        found.append(dict(sorted(own.items())))
    return found
