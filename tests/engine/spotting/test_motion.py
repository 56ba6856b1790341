from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.config import SpotterSettings
from engine.registration.regions import REGION_NAMES
from engine.spotting.motion import (
    FIRST_DEVIATION_PX,
    MAX_RESPONSE,
    SMOOTH_S,
    TURN_TERMS,
    HeadMotionRegression,
    MotionSignal,
    loudest,
    region_lengths,
)
from engine.types import Crop, Mark
from tests.engine.spotting.pulses import (
    BROWS_UP,
    SMILE,
    Pulse,
    agree,
    finals,
    sequence,
    spot,
    steady,
)


def filled(crops: list[Crop]) -> MotionSignal:
    signal = MotionSignal(SpotterSettings())
    for one in crops:
        signal.append(one)
    while signal.advance():
        pass
    return signal


def test_smoothing_keeps_a_straight_line_and_waits_for_later_rows(crop: Crop) -> None:
    """The weights are symmetrical in time, but for the first and last rows."""
    t = steady(100, 1)
    signal = MotionSignal(SpotterSettings())
    for one, at in zip(sequence(crop, t, noise=0), t, strict=True):
        signal.append(replace(one, motion=np.full_like(one.motion, at)))
    while signal.advance(t[-1] - SMOOTH_S + 1e-9):
        pass
    assert signal.now == len(t) - 1 - round(SMOOTH_S * 100)
    assert np.allclose(signal.smooth.row[10 : signal.now, 0], t[10 : signal.now], atol=1e-6)
    assert signal.mark(10) == Mark(10, float(t[10]))


def test_the_baseline_is_the_median_of_the_recent_quiet_rows(crop: Crop) -> None:
    signal = filled(sequence(crop, steady(30, 4), [Pulse(1.0, 1.5, 1e9)], noise=0))
    brow = 2 * REGION_NAMES.index("brow_inner_left") + 1
    assert signal.baseline(signal.now)[brow] - signal.baseline(30)[brow] < -1.0
    signal.release(signal.now - 2)
    assert signal.baseline(signal.now)[brow] == pytest.approx(
        np.median(signal.motion(signal.now - 2, signal.now), axis=0)[brow]
    )


def test_turns_of_the_head_are_removed_by_a_response_that_is_frozen_for_a_candidate(crop: Crop) -> None:
    t = steady(30, 20)
    crops = []
    for one, at in zip(sequence(crop, t), t, strict=True):
        turn = np.zeros_like(one.turn)
        turn[0] = np.sin(at)
        crops.append(replace(one, turn=turn, motion=one.motion + np.float32(0.5 * np.sin(at))))
    signal = filled(crops)
    assert np.abs(signal.motion(signal.now - 90, signal.now)).max() < 0.15 < np.abs(signal.smooth.row[: signal.now, 0]).max()
    signal.freeze()
    frozen = signal.head_response
    signal.append(replace(crops[-1], mark=Mark(600, 20.0), motion=crops[-1].motion + 3))
    assert signal.head_response is frozen
    signal.release(signal.now)
    assert signal.head_response is not frozen


def test_noise_raises_the_thresholds_and_a_repeated_picture_does_not_lower_them(crop: Crop) -> None:
    quiet, noisy = (filled(sequence(crop, steady(30, 6), noise=noise)) for noise in (0.01, 0.4))
    lengths = np.ones(len(REGION_NAMES))
    assert quiet.loudness(lengths) == pytest.approx(1 / SpotterSettings().noise_factor / FIRST_DEVIATION_PX)
    before = noisy.loudness(lengths)
    assert before < 0.5 * quiet.loudness(lengths)
    last = sequence(crop, steady(30, 6), noise=0.4)[-1]
    for k in range(30):
        noisy.append(replace(last, mark=Mark(180 + k, 6 + k / 30)))
        noisy.advance()
    assert noisy.loudness(lengths) == pytest.approx(before, rel=0.05)


def test_the_loudest_regions_count_together() -> None:
    sizes = np.zeros(len(REGION_NAMES))
    sizes[3], sizes[7] = 3.0, 1.0
    assert loudest(sizes) == 2.0
    assert region_lengths(np.array([3.0, 4.0, 0.0, -2.0])).tolist() == [5.0, 2.0]


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.06, 0.12])
@pytest.mark.parametrize("seed", range(3))
def test_noise_is_no_event_and_hides_none(crop: Crop, noise: float, seed: int) -> None:
    """White noise in pixels of the crop; the registration of a camera with 2 grey levels of noise leaves 0.01."""
    t, pulse = steady(30, 10), Pulse(6.0, 6.2, 6.45, 2.5)
    assert spot(sequence(crop, t, noise=noise, seed=seed)) == []
    (span,) = finals(spot(sequence(crop, t, [pulse], noise=noise, seed=seed)))
    agree(span, pulse)


@pytest.mark.parametrize("seed", range(3))
def test_a_camera_that_becomes_four_times_as_noisy_raises_no_event(crop: Crop, seed: int) -> None:
    t = steady(30, 20)
    assert spot(sequence(crop, t, noise=np.where(t < 8, 0.02, 0.08), seed=seed)) == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_very_noisy_camera_raises_its_own_thresholds(crop: Crop, seed: int) -> None:
    """Noise above the first threshold keeps the machine from ever being quiet; it must be learned all the same."""
    t = np.arange(0, 12, 1 / 30)
    assert len(finals(spot(sequence(crop, t, noise=0.2, seed=seed)))) <= 1


def test_dropping_old_rows_changes_nothing_over_a_long_time(crop: Crop) -> None:
    starts = np.arange(2.0, 118.0, 4.0)
    pulses = [Pulse(s, s + 0.2, s + 0.45, 2, where) for s, where in zip(starts, [BROWS_UP, SMILE] * 20, strict=False)]
    found = finals(spot(sequence(crop, steady(60, 120), pulses)))
    assert [span.ordinal for span in found] == list(range(len(pulses)))
    for span, pulse in zip(found, pulses, strict=True):
        agree(span, pulse)


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
