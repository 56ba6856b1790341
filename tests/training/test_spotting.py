from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.intervals import Interval, match
from training.spotting import score

intervals = st.lists(
    st.builds(lambda a, n: Interval(a, a + n), st.integers(0, 20), st.integers(1, 10)),
    max_size=5,
)


def test_each_truth_counts_once() -> None:
    result = score([([Interval(0, 10), Interval(1, 10), Interval(0, 9)], [Interval(0, 10)])])
    assert (result.tp, result.fp, result.fn) == (1, 2, 0)
    assert match([Interval(1, 10), Interval(0, 10)], [Interval(0, 10)]) == [(1, 0)]


def test_counts_are_pooled_over_videos_before_the_ratios() -> None:
    hit = ([Interval(0, 1)], [Interval(0, 1)])
    miss = ([], [Interval(0, 1), Interval(2, 3)])
    false = ([Interval(0, 1)], [])
    result = score([hit, miss, false])
    assert (result.tp, result.fp, result.fn) == (1, 1, 2)
    assert result.precision == 1 / 2
    assert result.recall == 1 / 3
    assert result.f1 == pytest.approx(0.4)


def test_no_intervals_score_zero() -> None:
    result = score([([], [])])
    assert (result.precision, result.recall, result.f1, result.recognition_f1, result.strs) == (0, 0, 0, 0, 0)


def test_recognition_over_what_was_spotted() -> None:
    def at(i: int, label: str) -> Interval:
        return Interval(10 * i, 10 * i + 5, label)

    truth = [at(0, "negative"), at(1, "negative"), at(2, "positive"), at(3, "surprise"), at(4, "surprise")]
    predicted = [at(0, "negative"), at(1, "positive"), at(2, "positive"), at(3, "uncertain"), at(7, "surprise")]
    result = score([(predicted, truth)])
    assert (result.tp, result.fp, result.fn) == (4, 1, 1)
    assert result.abstained == 1
    assert result.accuracy == 2 / 4
    negative, positive, surprise = 2 / 3, 2 / 3, 0.0
    assert result.recognition_f1 == pytest.approx((negative + positive + surprise) / 3)
    assert result.strs == pytest.approx(result.f1 * result.recognition_f1)


@given(intervals)
@settings(max_examples=50, deadline=None)
def test_the_truth_itself_scores_one(truth: list[Interval]) -> None:
    result = score([(truth, truth)])
    assert (result.tp, result.fp, result.fn) == (len(truth), 0, 0)


@given(intervals, intervals)
@settings(max_examples=80, deadline=None)
def test_swapping_sides_swaps_false_alarms_and_misses(predicted: list[Interval], truth: list[Interval]) -> None:
    one, other = score([(predicted, truth)]), score([(truth, predicted)])
    assert (one.tp, one.fp, one.fn) == (other.tp, other.fn, other.fp)
    assert 0 <= one.f1 <= 1
