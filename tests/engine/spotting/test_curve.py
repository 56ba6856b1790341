"""Where a falling curve meets its rest, for several shapes, drifts and noises."""

from __future__ import annotations

import numpy as np
import pytest

from engine.spotting.curve import BENDS, DRIFT_SHARE, _bend, foot


def fall(shape: str, length: float, fps: float, drift: float = 0.0, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Times and a curve of height 1 that falls within `length` seconds and rests for a second."""
    t = np.arange(0, length + 1.0, 1 / fps)
    x = np.clip(t / length, 0, 1)
    curve = {"ramp": 1 - x, "cosine": (1 + np.cos(np.pi * x)) / 2, "late": 1 - x**2}[shape]
    rng = np.random.default_rng(7)
    return t, curve + drift * t + rng.normal(0, noise, len(t))


@pytest.mark.parametrize("shape", ["ramp", "cosine", "late"])
@pytest.mark.parametrize("length", [0.12, 0.25, 0.6])
@pytest.mark.parametrize("fps", [30, 60, 200])
@pytest.mark.parametrize("drift", [0.0, 0.15])
def test_the_foot_of_a_fall(shape: str, length: float, fps: float, drift: float) -> None:
    t, curve = fall(shape, length, fps, drift, noise=0.01)
    found = t[foot(t, curve)]
    # measured: a cosine's end is slow and is met up to a fifth of the fall early
    assert found == pytest.approx(length, abs=max(0.2 * length, 1.5 / fps) + 0.02)


def test_the_level_of_the_rest_does_not_matter() -> None:
    t, curve = fall("cosine", 0.3, 60)
    raised = 0.25 + 0.75 * curve
    assert abs(t[foot(t, raised)] - t[foot(t, curve)]) <= 0.05


def test_what_comes_after_a_valley_is_not_looked_at() -> None:
    t, curve = fall("cosine", 0.2, 60)
    again = curve.copy()
    late = t > 0.6
    again[late] = np.maximum(again[late], np.sin((t[late] - 0.6) * 6) ** 2)
    assert abs(t[foot(t, again)] - t[foot(t, curve)]) <= 0.05


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_curve_too_short_to_have_a_foot_ends_where_it_ends(length: int) -> None:
    t = np.arange(length) / 30
    assert foot(t, np.linspace(1, 0.5, length)) == length - 1


def plain_bend(t: np.ndarray, part: np.ndarray) -> float:
    """The bend by the whole least squares fit of every candidate, one after the other."""
    middle, steep = t.mean(), (part[0] - part.min()) / (t[-1] - t[0])
    ridge = np.diag([1e-9, (DRIFT_SHARE * steep + 1e-6) ** -2 * 1e-3, 1e-9])
    best, least = t[-1], np.inf
    for bend in np.linspace(t[1], t[-1] - 0.25 * (t[-1] - t[0]) * (len(t) > 8), max(2 * len(t), 40)):
        for power in BENDS:
            hinge = np.maximum(bend - t, 0.0) ** power
            basis = np.stack([np.ones_like(t), t - middle, hinge / hinge.max()], axis=1)
            weights = np.linalg.solve(basis.T @ basis + ridge, basis.T @ part)
            error = ((part - basis @ weights) ** 2).sum() + weights @ ridge @ weights
            if weights[2] > 0 and error < least:
                best, least = bend, error
    return float(best)


@pytest.mark.parametrize("seed", range(12))
def test_the_bend_is_that_of_plain_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(4, 40))
    t = np.cumsum(rng.uniform(0.02, 0.05, count))
    part = np.maximum(0.5 - rng.uniform(1, 4) * (t - t[0]), 0.0) + rng.normal(0, 0.03, count)
    assert _bend(t, part) == pytest.approx(plain_bend(t, part), abs=1e-9)


def test_a_curve_that_only_rises_has_no_bend() -> None:
    t = np.arange(20) / 30
    assert _bend(t, t**0.5) == pytest.approx(plain_bend(t, t**0.5))
