from __future__ import annotations

import time
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.intervals import Interval, match, overlap

intervals = st.lists(
    st.builds(lambda a, n: Interval(a, a + n), st.integers(0, 20), st.integers(1, 10)),
    max_size=5,
)


def test_an_interval_must_end_after_its_start() -> None:
    for start, end in ((1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(InputError, match="ends after it starts"):
            Interval(start, end)


def test_overlap_by_hand() -> None:
    ious = overlap([Interval(0, 2), Interval(5, 6)], [Interval(1, 3), Interval(0, 2), Interval(2, 4)])
    assert np.allclose(ious, [[1 / 3, 1, 0], [0, 0, 0]])


def test_exactly_one_half_matches_and_just_below_does_not() -> None:
    truth = [Interval(0, 10)]
    assert match([Interval(0, 5)], truth) == [(0, 0)]
    assert match([Interval(0, 4.99)], truth) == []


def test_one_half_in_frames_matches_in_spite_of_rounding() -> None:
    """7 of 14 frames, times in seconds that binary floats cannot hold."""
    assert match([Interval(0.1, 0.1 + 7 / 30)], [Interval(0.1, 0.1 + 14 / 30)]) == [(0, 0)]


def test_matching_is_maximal_where_greedy_is_not() -> None:
    predicted = [Interval(0, 10), Interval(0, 7)]
    truth = [Interval(0, 9), Interval(2, 14)]
    ious = overlap(predicted, truth)
    assert ious[0, 0] == ious.max()
    assert ious[1, 1] < 0.5 <= ious[0, 1]
    assert match(predicted, truth) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("iou", [0.0, -1.0, 1.5])
def test_a_least_overlap_out_of_range_is_an_input_error(iou: float) -> None:
    with pytest.raises(InputError, match="least overlap"):
        match([], [], iou)


@given(intervals, intervals, st.sampled_from([0.2, 0.5, 0.9]))
@settings(max_examples=150, deadline=None)
def test_matching_is_valid_and_maximal(predicted: list[Interval], truth: list[Interval], iou: float) -> None:
    pairs = match(predicted, truth, iou)
    assert len({p for p, _ in pairs}) == len({t for _, t in pairs}) == len(pairs)
    ious = overlap(predicted, truth)
    assert all(ious[p, t] >= iou - 1e-9 for p, t in pairs)
    few, many = sorted((len(predicted), len(truth)))
    table = ious if len(predicted) <= len(truth) else ious.T
    best = max((sum(table[i, order[i]] >= iou - 1e-9 for i in range(few)) for order in permutations(range(many))), default=0)
    assert len(pairs) == best


def test_the_better_of_two_overlaps_is_matched_whatever_the_order() -> None:
    """A long interval that began first does not hide one that overlaps later."""
    truth = [Interval(0, 100), Interval(10, 20), Interval(50, 60)]
    assert match([Interval(50, 61), Interval(9, 20), Interval(0, 90)], truth) == [(0, 2), (1, 1), (2, 0)]


def test_thousands_of_intervals_take_seconds() -> None:
    """Nothing is computed of pairs that do not overlap: 400 million of them."""
    many = [Interval(k, k + 0.9) for k in range(20_000)]
    began = time.process_time()
    assert match(many, many) == [(k, k) for k in range(20_000)]
    assert time.process_time() - began < 5
