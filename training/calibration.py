"""How reliable a confidence is, from answers to faces the networks never saw.

One temperature divides the logits (Guo et al., ICML 2017). It is cross-fitted: the subjects are divided into groups, and each
group's answers are calibrated by the temperature that the other groups' answers give; likewise the threshold below which
an answer is `uncertain`. So no answer takes part in the numbers that calibrate it. Its subject does, as always when the answers
of leave one subject out are used again: the other groups' answers come from folds that were fitted to that subject too. The
shipped temperature and threshold are those of all out-of-fold answers.

The calibration error is the mean distance between confidence and share of right answers over ten bins of equally many
answers. A perfectly calibrated model shows an error too, from chance alone: it is simulated by drawing which answers are
right from the model's own confidences. Only an error beyond that is significant.

Several seeds test the same faces. They are never pooled as if they were more faces: each is calibrated on its own, their
errors are averaged, and in the simulation one draw per map decides for all seeds, so that the band is that of one set of faces.
It is a wide one: seeds that disagree on a map are drawn right or wrong together. So an evaluation is within chance only where
the mean error is, and every seed's own error is within the band of that seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError, InputError
from training.answers import F64, Answers, Labels
from training.split import group_folds

BINS = 10
GROUPS = 10
DRAWS = 2000

PRECISION = 0.75
"""Default share of right answers among the confident ones, for which the threshold is chosen."""

LEAST_THRESHOLD = 0.5
"""An answer no more probable than all others together is always uncertain."""

LEAST_CONFIDENT = 0.05
"""Share of answers that a threshold must leave; the precision of fewer is chance."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """One seed, each row calibrated by other groups' subjects: probabilities [N, K], confident [N], right [N], and the shipped
    figures.

    temperature and threshold come from all answers; threshold is None where none reaches the precision.
    """

    probabilities: F64
    confident: Bools
    right: Bools
    temperature: float
    threshold: float | None

    @property
    def confidence(self) -> F64:
        """[N], the probability of the likeliest class."""
        return np.asarray(self.probabilities.max(1), np.float64)

    @property
    def coverage(self) -> float:
        """Share of the answers that are confident."""
        return float(self.confident.mean())

    @property
    def precision(self) -> float | None:
        """Share of right ones among the confident answers; None where there are none."""
        return float(self.right[self.confident].mean()) if self.confident.any() else None


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence: least and greatest, how many, mean confidence, share right, and the 5th and 95th
    percentile of that share for a perfectly calibrated model."""

    low: float
    high: float
    count: int
    confidence: float
    right: float
    band: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Calibration:
    """All seeds of an evaluation. Errors per seed before and after calibration; perfect_mean and perfect_p95 are of the mean
    over the seeds, seed_p95 of each seed alone."""

    seeds: tuple[CrossFitted, ...]
    asked: float
    raw_errors: tuple[float, ...]
    errors: tuple[float, ...]
    seed_p95: tuple[float, ...]
    perfect_mean: float
    perfect_p95: float
    bins: tuple[Bin, ...]

    @property
    def error(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.errors))

    @property
    def within(self) -> bool:
        """Whether the mean error, and every seed's own, is no greater than what 95 of 100 perfectly calibrated models show."""
        return self.error <= self.perfect_p95 and self.seeds_within == len(self.seeds)

    @property
    def seeds_within(self) -> int:
        """How many seeds' own errors are within their own bands."""
        return sum(error <= p95 for error, p95 in zip(self.errors, self.seed_p95, strict=True))

    @property
    def temperature(self) -> float:
        """To be shipped: the seeds' geometric mean."""
        return float(np.exp(np.mean(np.log([seed.temperature for seed in self.seeds]))))

    @property
    def threshold(self) -> float | None:
        """To be shipped: the seeds' mean; None where one of them reaches the precision nowhere."""
        found = [seed.threshold for seed in self.seeds if seed.threshold is not None]
        return float(np.mean(found)) if len(found) == len(self.seeds) else None


def probabilities(logits: F64, temperature: float) -> F64:
    """Softmax of logits [N, K] / temperature."""
    scaled = logits / temperature
    grown = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(grown / grown.sum(1, keepdims=True), np.float64)


def fit_temperature(logits: F64, truth: Labels) -> float:
    """The temperature in 0.1..10 under which the true classes [N] are likeliest, logits being [N, K].

    The negative log likelihood is convex in 1 / temperature; its slope's zero is bisected. InputError for unequal lengths.
    """
    if not len(truth) or logits.shape[0] != len(truth):
        raise InputError(f"a temperature needs one label a row, not {len(truth)} for {len(logits)}")
    own = logits[np.arange(len(truth)), truth].mean()
    low, high = 0.1, 10.0
    for _ in range(50):
        middle = (low + high) / 2
        slope = float((probabilities(logits, 1 / middle) * logits).sum(1).mean() - own)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 2 / (low + high)


def calibration_error(confidence: F64, right: npt.ArrayLike, bins: int = BINS) -> npt.NDArray[np.float64]:
    """Expected calibration error over bins of equal mass; right is [..., N], so many outcomes can be judged at once."""
    order = np.argsort(confidence, kind="stable")
    starts = _starts(len(confidence), bins)
    gaps = np.asarray(right)[..., order] - confidence[order]
    return np.asarray(np.abs(np.add.reduceat(gaps, starts, axis=-1)).sum(-1) / len(confidence), np.float64)


def threshold_for(confidence: F64, right: Bools, precision: float) -> float | None:
    """The smallest threshold, from LEAST_THRESHOLD up, at which the share of right answers among those at least so confident
    reaches the precision; None where none does while LEAST_CONFIDENT of the answers are left."""
    order = np.argsort(-confidence, kind="stable")
    sure, kept = confidence[order], np.arange(1, len(order) + 1)
    good = (right[order].cumsum() / kept >= precision) & (kept >= LEAST_CONFIDENT * len(order)) & (sure >= LEAST_THRESHOLD)
    good[:-1] &= sure[:-1] > sure[1:]  # equal confidences are kept together or not at all
    found = np.flatnonzero(good)
    if not len(found):
        return None
    reaches_floor = found[-1] + 1 == len(sure) or sure[found[-1] + 1] < LEAST_THRESHOLD
    return LEAST_THRESHOLD if reaches_floor else float(sure[found[-1]])


def cross_fit(answers: Answers, precision: float = PRECISION, groups: int = GROUPS) -> CrossFitted:
    """Calibrate each group of subjects by all others. InputError with fewer than two subjects."""
    folds = group_folds(answers.subjects, min(groups, len(set(answers.subjects))), seed=0)
    calibrated, confident = np.empty_like(answers.logits), np.zeros(len(answers.truth), bool)
    for fold in folds:
        others, own = list(fold.train), list(fold.test)
        temperature, threshold = _shipped(answers.logits[others], answers.truth[others], precision)
        calibrated[own] = probabilities(answers.logits[own], temperature)
        confident[own] = calibrated[own].max(1) >= (np.inf if threshold is None else threshold)
    right = calibrated.argmax(1) == answers.truth
    return CrossFitted(calibrated, confident, right, *_shipped(answers.logits, answers.truth, precision))


def calibrate(seeds: Sequence[Answers], precision: float = PRECISION) -> Calibration:
    """Cross-fit each seed and compare the errors with those of a perfectly calibrated model. ConfigError for a precision
    outside 0 to 1, InputError with fewer than two subjects."""
    if not 0 < precision < 1:
        raise ConfigError(f"the precision of the confident answers lies between 0 and 1, not at {precision}")
    fitted = tuple(cross_fit(answers, precision) for answers in seeds)
    raw = [probabilities(a.logits, 1.0).max(1) for a in seeds]
    drawn = np.random.default_rng(0).random((DRAWS, len(seeds[0].truth)), np.float32)
    perfect = np.array([calibration_error(f.confidence, drawn < f.confidence) for f in fitted])
    mean = perfect.mean(0)
    return Calibration(
        seeds=fitted,
        asked=precision,
        raw_errors=tuple(float(calibration_error(c, f.right)) for c, f in zip(raw, fitted, strict=True)),
        errors=tuple(float(calibration_error(f.confidence, f.right)) for f in fitted),
        seed_p95=tuple(float(np.percentile(row, 95)) for row in perfect),
        perfect_mean=float(mean.mean()),
        perfect_p95=float(np.percentile(mean, 95)),
        bins=_bins(fitted, drawn),
    )


def _shipped(logits: F64, truth: Labels, precision: float) -> tuple[float, float | None]:
    temperature = fit_temperature(logits, truth)
    chances = probabilities(logits, temperature)
    return temperature, threshold_for(chances.max(1), chances.argmax(1) == truth, precision)


def _starts(count: int, bins: int) -> npt.NDArray[np.intp]:
    """Where each of the bins (no more than there are answers) begins among the answers in order of confidence."""
    sizes = [len(part) for part in np.array_split(np.arange(count), min(bins, count))]
    return np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.intp)


def _bins(seeds: Sequence[CrossFitted], drawn: npt.NDArray[np.float32]) -> tuple[Bin, ...]:
    """The diagram's points: the first bin holds each seed's least confident tenth, and so on, averaged over the seeds."""
    count = len(seeds[0].confidence)
    starts = _starts(count, BINS)
    sizes = np.diff([*starts, count])
    sorted_by = [np.argsort(seed.confidence, kind="stable") for seed in seeds]

    def shares(of: Sequence[npt.NDArray[np.bool_]]) -> F64:
        ordered = [values[..., order] for values, order in zip(of, sorted_by, strict=True)]
        return np.asarray(
            np.mean([np.add.reduceat(v, starts, axis=-1, dtype=np.int64) / sizes for v in ordered], 0), np.float64
        )

    sure = np.mean([seed.confidence[order] for seed, order in zip(seeds, sorted_by, strict=True)], 0)
    right = shares([seed.right for seed in seeds])
    low, high = np.percentile(shares([drawn < seed.confidence for seed in seeds]), (5, 95), axis=0)
    rows = []
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        inside = sure[start : start + size]
        least, greatest, middle = float(inside[0]), float(inside[-1]), float(inside.mean())
        rows.append(Bin(least, greatest, int(size), middle, float(right[i]), (float(low[i]), float(high[i]))))
    return tuple(rows)
