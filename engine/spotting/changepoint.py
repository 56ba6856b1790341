"""Where the motion curve of an expression leaves its baseline and returns to it: onset and offset."""

from __future__ import annotations

import numpy as np

from engine.quantiles import percentile
from engine.types import F64

MIN_BASELINE_S = 0.35  # least length of baseline that the fit includes
POWERS = (1.0, 1.5, 2.0)  # by which an expression may leave its baseline
DRIFT_SHARE = 0.3  # a drift as steep as this share of the expression's own slope is unusual


def changepoint(t: F64, curve: F64) -> int:
    """Rows from a peak (row 0) to where a falling curve [N] over rising times t [N], seconds, reaches its baseline.

    The baseline may drift, so no level marks the end of the fall; the bend does. From half height to the baseline the curve is
    fitted by a straight line that bends up at t0 as a power of the distance, y = a + b t + c max(0, t0 - t)^n, for every t0 and
    every n of POWERS, by least squares with a penalty on the drift b. The best t0 is the changepoint.
    """
    if len(curve) < 4 or curve[0] <= 0:
        return len(curve) - 1
    stop = _valley(curve / curve[0]) + 1
    part = curve[:stop] / curve[0]
    level = percentile(part, 10) if stop > 8 else float(part.min())
    part = (part - level) / max(1.0 - level, 1e-9)
    half, near = _crossing(t[:stop], part, 0.55), _crossing(t[:stop], part, 0.2)
    reach = float(np.clip(2.5 * (near - half), MIN_BASELINE_S, 1.6))
    first = int(np.searchsorted(t, half))
    last = min(int(np.searchsorted(t, near + reach)), stop)
    if last - first < 4:
        return max(stop - 1, 1)
    bend = _bend(t[first:last], part[first:last])
    last_moving = int(np.searchsorted(t[:stop], bend, side="right")) - 1
    return int(np.clip(last_moving, 1, max(stop - 1, 1)))


def _bend(t: F64, part: F64) -> float:
    """Time at which a falling curve, about half its height at the start, bends into its baseline; t and part [N]."""
    middle, steep = float(t.mean()), float((part[0] - part.min()) / max(t[-1] - t[0], 1e-9))
    candidates = np.linspace(t[1], t[-1] - 0.25 * (t[-1] - t[0]) * (len(t) > 8), max(2 * len(t), 40))
    end, stride = float(t[-1]), max(len(t) // 40, 1)
    t, part = t[::stride], part[::stride]
    line, hinge = np.stack([np.ones_like(t), t - middle]), _hinges(candidates, t)
    (a, b), (_, d) = (line @ line.T).tolist()
    a, d = a + 1e-9, d + (DRIFT_SHARE * steep + 1e-6) ** -2 * 1e-3
    across = np.array([[d, -b], [-b, a]]) @ line / (a * d - b * b)
    residual, hinge_residual = part - (line @ part) @ across, hinge - (hinge @ line.T) @ across  # of the fit of the line alone
    strength = hinge @ residual
    explained = np.where(strength > 0, strength * strength / ((hinge_residual * hinge).sum(axis=1) + 1e-9), 0.0)
    best = int(explained.argmax())
    return float(candidates[best // len(POWERS)]) if explained[best] > 0 else end


def _hinges(bends: F64, t: F64) -> F64:
    """max(0, bend - t)^n for each of bends [C] and each n of POWERS, at times t [N], scaled to height 1: [3 C, N]."""
    distance = np.maximum(bends[:, None] - t, 0.0)
    hinge = np.stack([distance, distance * np.sqrt(distance), distance * distance], axis=1).reshape(-1, len(t))
    return np.asarray(hinge / np.maximum(hinge.max(axis=1, keepdims=True), 1e-12))


def _valley(part: F64) -> int:
    """Row of the first valley after the peak (row 0, height 1): after it the curve rises again by 0.15."""
    valley, low = 0, 1.0
    for k, height in enumerate(part.tolist()):
        if height < low:
            valley, low = k, height
        elif height > low + 0.15 and low < 0.6:
            break
    return max(valley, len(part) - 1) if part[valley:].max() <= low + 0.15 else valley


def _crossing(t: F64, part: F64, level: float) -> float:
    """Time at which the curve (1 at its start) first falls to level, between samples."""
    below = np.nonzero(part <= level)[0]
    if not len(below):
        return float(t[-1])
    k = int(below[0])
    if k == 0:
        return float(t[0])
    share = (part[k - 1] - level) / max(part[k - 1] - part[k], 1e-12)
    return float(t[k - 1] + share * (t[k] - t[k - 1]))
