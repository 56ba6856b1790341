from __future__ import annotations

import numpy as np

from engine.spotting.head_motion_regression import MAX_RESPONSE, TURN_TERMS, HeadMotionRegression


def swaying(seconds: float, fps: float = 30.0) -> np.ndarray:
    """Regressors [N, TURN_TERMS] of a head that sways."""
    t = np.arange(0, seconds, 1 / fps)
    terms = [np.ones_like(t), *(np.sin(2 * np.pi * f * t + f) for f in (0.11, 0.23, 0.31, 0.17))]
    return np.stack(terms[:TURN_TERMS], axis=1)


def test_a_linear_response_is_learned() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 0.5, (TURN_TERMS, 6))
    regression, rows = HeadMotionRegression(6), swaying(20)
    for row in rows:
        regression.update(row, row @ true + rng.normal(0, 0.02, 6), 1 / 30)
    residual = rows[-60:] @ (regression.coefficients - true)
    assert np.abs(residual).max() < 0.08  # measured 0.02


def test_an_expression_is_hardly_learned() -> None:
    rng = np.random.default_rng(1)
    regression, rows = HeadMotionRegression(1), swaying(20)
    for row in rows:
        regression.update(row, rng.normal(0, 0.02, 1), 1 / 30)
    before = rows[-1] @ regression.coefficients
    for row in rows[:9]:  # 0.3 s of a motion of three pixels
        regression.update(row, np.array([3.0]), 1 / 30)
    assert abs((rows[8] @ regression.coefficients - before)[0]) < 0.5


def test_coefficients_stay_within_what_a_face_can_do() -> None:
    regression = HeadMotionRegression(1)
    for row in swaying(60):
        regression.update(row * 0.05, np.array([5.0 * row[1]]), 1 / 30)
    assert np.abs(regression.coefficients[1:]).max() <= MAX_RESPONSE
