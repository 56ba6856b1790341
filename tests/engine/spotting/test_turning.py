"""What turns of the head leave in the regions is learned; what the face does is not."""

from __future__ import annotations

import numpy as np

from engine.spotting.turning import MOST_ANSWER, TURN_TERMS, Turning


def turned(seconds: float, fps: float = 30.0) -> np.ndarray:
    """Regressors [N, TURN_TERMS] of a head that sways."""
    t = np.arange(0, seconds, 1 / fps)
    ways = [np.ones_like(t), *(np.sin(2 * np.pi * f * t + f) for f in (0.11, 0.23, 0.31, 0.17))]
    return np.stack(ways[:TURN_TERMS], axis=1)


def test_a_linear_answer_is_learned() -> None:
    rng = np.random.default_rng(0)
    answer = rng.normal(0, 0.5, (TURN_TERMS, 6))
    turning, rows = Turning(6), turned(20)
    for row in rows:
        turning.learn(row, row @ answer + rng.normal(0, 0.02, 6), 1 / 30)
    left = rows[-60:] @ (turning.answer - answer)
    assert np.abs(left).max() < 0.08  # measured 0.02


def test_an_expression_is_hardly_learned() -> None:
    rng = np.random.default_rng(1)
    turning, rows = Turning(1), turned(20)
    for row in rows:
        turning.learn(row, rng.normal(0, 0.02, 1), 1 / 30)
    before = rows[-1] @ turning.answer
    for row in rows[:9]:  # 0.3 s of a motion of three pixels
        turning.learn(row, np.array([3.0]), 1 / 30)
    assert abs((rows[8] @ turning.answer - before)[0]) < 0.5


def test_what_is_learned_stays_within_what_a_face_can_do() -> None:
    turning = Turning(1)
    for row in turned(60):
        turning.learn(row * 0.05, np.array([5.0 * row[1]]), 1 / 30)
    assert np.abs(turning.answer[1:]).max() <= MOST_ANSWER
