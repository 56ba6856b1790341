from __future__ import annotations

import numpy as np
import pytest

from engine.spotting.changepoint import DRIFT_SHARE, POWERS, _bend, changepoint


def fall(shape: str, length: float, fps: float, drift: float = 0.0, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Times and a curve of height 1 that falls within `length` seconds and stays at its baseline for a second."""
    t = np.arange(0, length + 1.0, 1 / fps)
    x = np.clip(t / length, 0, 1)
    curve = {"ramp": 1 - x, "cosine": (1 + np.cos(np.pi * x)) / 2, "late": 1 - x**2}[shape]
    rng = np.random.default_rng(7)
    return t, curve + drift * t + rng.normal(0, noise, len(t))


@pytest.mark.parametrize("shape", ["ramp", "cosine", "late"])
@pytest.mark.parametrize("length", [0.12, 0.25, 0.6])
@pytest.mark.parametrize("fps", [30, 60, 200])
@pytest.mark.parametrize("drift", [0.0, 0.15])
def test_the_end_of_a_fall_is_found(shape: str, length: float, fps: float, drift: float) -> None:
    t, curve = fall(shape, length, fps, drift, noise=0.01)
    found = t[changepoint(t, curve)]
    # measured: the end of a cosine is slow and is found up to a fifth of the fall early
    assert found == pytest.approx(length, abs=max(0.2 * length, 1.5 / fps) + 0.02)


def test_the_level_of_the_baseline_does_not_matter() -> None:
    t, curve = fall("cosine", 0.3, 60)
    raised = 0.25 + 0.75 * curve
    assert abs(t[changepoint(t, raised)] - t[changepoint(t, curve)]) <= 0.05


def test_a_rise_after_a_valley_is_ignored() -> None:
    t, curve = fall("cosine", 0.2, 60)
    again = curve.copy()
    late = t > 0.6
    again[late] = np.maximum(again[late], np.sin((t[late] - 0.6) * 6) ** 2)
    assert abs(t[changepoint(t, again)] - t[changepoint(t, curve)]) <= 0.05


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_curve_too_short_for_a_fit_ends_at_its_last_row(length: int) -> None:
    t = np.arange(length) / 30
    assert changepoint(t, np.linspace(1, 0.5, length)) == length - 1


def reference_bend(t: np.ndarray, part: np.ndarray) -> float:
    """The bend by the whole least squares fit of every candidate, one after the other."""
    middle, steep = t.mean(), (part[0] - part.min()) / (t[-1] - t[0])
    ridge = np.diag([1e-9, (DRIFT_SHARE * steep + 1e-6) ** -2 * 1e-3, 1e-9])
    best, least = t[-1], np.inf
    for bend in np.linspace(t[1], t[-1] - 0.25 * (t[-1] - t[0]) * (len(t) > 8), max(2 * len(t), 40)):
        for power in POWERS:
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
    assert _bend(t, part) == pytest.approx(reference_bend(t, part), abs=1e-9)


def test_a_curve_that_only_rises_has_no_bend() -> None:
    t = np.arange(20) / 30
    assert _bend(t, t**0.5) == pytest.approx(reference_bend(t, t**0.5))
