from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import ConfigError, InputError
from training.answers import F64, Answers
from training.calibration import (
    LEAST_THRESHOLD,
    calibrate,
    calibration_error,
    cross_fit,
    fit_temperature,
    probabilities,
    threshold_for,
)


def drawn(count: int, draw: np.random.Generator, spread: float = 1.5) -> tuple[F64, np.ndarray]:
    """Logits [count, 3] of a perfectly calibrated model, and the true labels that make it one."""
    logits = draw.normal(0, spread, (count, 3))
    chances = probabilities(logits, 1.0)
    truth = (chances.cumsum(1) < draw.random((count, 1))).sum(1)
    return logits, truth


def answers(logits: F64, truth: np.ndarray, subjects: int = 40, seed: int = 0) -> Answers:
    people = tuple(f"a/{i % subjects}" for i in range(len(truth)))
    return Answers(seed, tuple(map(str, range(len(truth)))), ("a",) * len(truth), people, truth, logits)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_temperature_undoes_what_the_logits_were_multiplied_by(temperature: float) -> None:
    logits, truth = drawn(20_000, np.random.default_rng(0))
    assert fit_temperature(logits * temperature, truth) == pytest.approx(temperature, rel=0.05)


def test_the_fitted_temperature_is_the_likeliest() -> None:
    logits, truth = drawn(300, np.random.default_rng(1))
    rows = np.arange(300)

    def loss(temperature: float) -> float:
        return float(-np.log(probabilities(logits, temperature)[rows, truth]).mean())

    best = fit_temperature(logits, truth)
    assert loss(best) < min(loss(best * 0.99), loss(best * 1.01))


def test_the_error_is_the_mean_gap_over_bins_of_equal_mass() -> None:
    confidence = np.array([0.9, 0.5, 0.9, 0.5])
    assert calibration_error(confidence, np.array([True, True, False, False]), bins=2) == pytest.approx(0.2)
    assert calibration_error(confidence, np.array([[True, False, True, False]] * 3), bins=2) == pytest.approx([0.3] * 3)


def test_a_perfectly_calibrated_model_is_within_chance_in_19_of_20_sets() -> None:
    draw = np.random.default_rng(2)
    sets = [calibrate([answers(*drawn(400, draw))]) for _ in range(30)]
    assert sum(found.within for found in sets) >= 26
    assert np.mean([found.error for found in sets]) == pytest.approx(np.mean([found.perfect_mean for found in sets]), rel=0.15)


def test_a_seed_beyond_chance_is_not_hidden_by_the_mean() -> None:
    found = calibrate([answers(*drawn(60, np.random.default_rng(seed)), seed=seed) for seed in (0, 1)])
    fair = replace(found, errors=(0.05, 0.06), seed_p95=(0.06, 0.06), perfect_p95=0.06)
    assert fair.within and fair.seeds_within == 2
    hidden = replace(fair, errors=(0.01, 0.08))
    assert hidden.error <= hidden.perfect_p95 and not hidden.within and hidden.seeds_within == 1


def test_cross_fitting_corrects_an_overconfident_model_and_shows_the_error_before() -> None:
    logits, truth = drawn(450, np.random.default_rng(3))
    found = calibrate([answers(logits * 4, truth)])
    assert found.raw_errors[0] > found.perfect_p95 > found.error
    assert found.temperature == pytest.approx(4, rel=0.2)


def test_what_no_temperature_corrects_is_not_called_calibrated() -> None:
    """Right half of the time at every confidence: chance says another curve."""
    draw = np.random.default_rng(4)
    logits, _ = drawn(600, draw)
    best, other = logits.argmax(1), logits.argmin(1)
    sure = probabilities(logits, 1.0).max(1) > 0.6
    truth = np.where(np.where(sure, draw.random(600) < 0.5, draw.random(600) < 0.9), best, other)
    found = calibrate([answers(logits, truth)])
    assert not found.within and found.error > 1.5 * found.perfect_p95


def test_no_subjects_answers_decide_how_they_are_calibrated() -> None:
    logits, truth = drawn(400, np.random.default_rng(5))
    before = cross_fit(answers(logits, truth))
    mine = np.array([s == "a/3" for s in answers(logits, truth).subjects])
    turned = cross_fit(answers(logits, np.where(mine, (truth + 1) % 3, truth)))
    assert np.array_equal(before.probabilities[mine], turned.probabilities[mine])
    assert np.array_equal(before.confident[mine], turned.confident[mine])
    assert not np.array_equal(before.probabilities[~mine], turned.probabilities[~mine])


def test_the_same_seed_twice_is_no_better_known_than_once() -> None:
    one = answers(*drawn(300, np.random.default_rng(6)))
    once, twice = calibrate([one]), calibrate([one, one])
    assert (twice.error, twice.perfect_p95, twice.temperature) == pytest.approx(
        (once.error, once.perfect_p95, once.temperature)
    )
    assert twice.bins == once.bins


def test_the_smallest_threshold_that_reaches_the_precision_is_found() -> None:
    confidence = np.array([0.55, 0.6, 0.7, 0.8, 0.9, 0.95])
    right = np.array([False, False, True, False, True, True])
    assert threshold_for(confidence, right, 0.7) == 0.7
    assert threshold_for(confidence, right, 0.99) == 0.9
    assert threshold_for(confidence, right, 0.5) == LEAST_THRESHOLD
    assert threshold_for(confidence, ~right, 0.8) is None


def test_answers_of_equal_confidence_are_kept_together() -> None:
    assert threshold_for(np.array([0.8, 0.8, 0.8, 0.8]), np.array([True, False, False, False]), 0.9) is None


def test_the_asked_precision_is_reached_on_other_subjects() -> None:
    found = calibrate([answers(*drawn(4000, np.random.default_rng(7)))], precision=0.8)
    (seed,) = found.seeds
    assert seed.precision == pytest.approx(0.8, abs=0.025) and 0.3 < seed.coverage < 0.9
    assert found.threshold is not None and LEAST_THRESHOLD < found.threshold < 0.8


def test_where_no_threshold_reaches_the_precision_all_is_uncertain() -> None:
    draw = np.random.default_rng(8)
    found = calibrate([answers(draw.normal(0, 1, (300, 3)), draw.integers(0, 3, 300))], precision=0.95)
    assert found.threshold is None and found.seeds[0].coverage == 0 and found.seeds[0].precision is None


def test_the_band_contains_the_diagonal_and_a_calibrated_models_points() -> None:
    found = calibrate([answers(*drawn(2000, np.random.default_rng(9)))])
    assert len(found.bins) == 10 and sum(b.count for b in found.bins) == 2000
    assert all(b.band[0] < b.confidence < b.band[1] for b in found.bins)
    assert sum(b.band[0] <= b.right <= b.band[1] for b in found.bins) >= 7
    assert all(a.high <= b.low for a, b in zip(found.bins, found.bins[1:], strict=False))


@pytest.mark.parametrize("precision", [0.0, 1.0, -3.0])
def test_a_precision_that_is_no_share_is_refused(precision: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        calibrate([answers(*drawn(30, np.random.default_rng(0)))], precision)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="one label a row"):
        fit_temperature(np.zeros((3, 3)), np.zeros(2, np.int64))
    with pytest.raises(InputError, match="subjects"):
        cross_fit(answers(*drawn(5, np.random.default_rng(0)), subjects=1))
