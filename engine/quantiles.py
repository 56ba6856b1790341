"""Medians and percentiles of a few numbers: the values of numpy's functions, whose generality takes most of their time."""

from __future__ import annotations

import numpy as np

from engine.types import F64


def median(values: F64) -> F64:
    """The median over the first axis of finite values [N, ...], N > 0: [...]."""
    ordered, count = np.sort(values, axis=0), len(values)
    low, high = ordered[(count - 1) // 2], ordered[count // 2]
    return np.asarray(low if count % 2 else (low + high) / 2, np.float64)


def percentile(values: F64, percent: float) -> float:
    """The percentile of finite values [N], N > 0, linear between neighbours."""
    ordered = np.sort(values)
    place = percent / 100 * (len(ordered) - 1)
    below = int(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    share = place - below
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
