from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from engine.spotting.detections import Detection, DetectionMerger, Thresholds, detect, overlap
from engine.spotting.features import HZ
from engine.spotting.judge import ANSWERS
from engine.types import F32

THRESHOLDS = Thresholds(high=0.8, low=0.6, micro_high=0.6, micro_low=0.4)


def answers(*detections: tuple[int, int, float, int], count: int = 120) -> F32:
    """[count, 5] zeros but for detections (first row, last row, value, answer)."""
    out = np.zeros((count, len(ANSWERS)), np.float32)
    for first, last, value, answer in detections:
        out[first : last + 1, answer] = value
    return out


def rows(found: Iterable[Detection]) -> list[tuple[int, int]]:
    return [(round(one.start * HZ), round(one.end * HZ)) for one in found]


def test_a_detection_reaches_down_to_the_lower_threshold() -> None:
    """Answers are averaged over three rows: at an edge two thirds of .7 are below it."""
    row = answers((20, 60, 0.7, 0), (35, 45, 0.95, 0))
    (one,) = detect(row, THRESHOLDS)
    assert rows([one]) == [(21, 59)] and one.answer == pytest.approx(0.95)
    assert detect(answers((20, 60, 0.75, 0)), THRESHOLDS) == []


def test_short_detections_are_dropped_and_times_start_at_start_t() -> None:
    assert detect(answers((20, 22, 0.99, 0)), THRESHOLDS) == []
    (one,) = detect(answers((20, 40, 0.99, 0)), THRESHOLDS, start_t=10.0)
    assert one.start == pytest.approx(10 + 20 / HZ) and one.end == pytest.approx(10 + 40 / HZ)


def test_a_detection_ends_after_the_longest_time() -> None:
    merger = DetectionMerger(THRESHOLDS, longest_s=1.0)
    found = [one for k in range(80) for one in merger.take(k / HZ, 0.9, 0.0)] + merger.finish()
    assert len(found) == 1 and found[0].cut and found[0].end - found[0].start <= 1.0 + 1e-6, (
        "what continues after the cut is no second expression"
    )


@pytest.mark.parametrize(
    ("long", "micro", "expected"),
    [
        ((20, 40), (70, 80), [(20, 40), (70, 80)]),  # apart: both
        ((20, 40), (24, 38), [(24, 38)]),  # large overlap: the micro detection replaces it
        ((20, 80), (24, 36), [(20, 80)]),  # small overlap: the long one stays
        ((20, 80), (60, 90), [(20, 80)]),  # longer than a micro-expression
    ],
)
def test_a_micro_detection_beside_a_long_one(
    long: tuple[int, int], micro: tuple[int, int], expected: list[tuple[int, int]]
) -> None:
    assert rows(detect(answers((*long, 0.96, 0), (*micro, 0.96, 3)), THRESHOLDS)) == expected


def test_overlap() -> None:
    assert overlap(Detection(0, 9 / HZ, 1), Detection(5 / HZ, 14 / HZ, 1)) == pytest.approx(5 / 15)
    assert overlap(Detection(0, 1, 1), Detection(2, 3, 1)) == 0


def test_a_micro_answer_that_lasts_delays_no_detection() -> None:
    merger = DetectionMerger(THRESHOLDS, longest_s=1.0)
    found = [one for k in range(90) for one in merger.take(k / HZ, 0.9 if k < 45 else 0.0, 0.9 if k > 10 else 0.0)]
    assert len(found) == 1


@pytest.mark.parametrize("micro_rows", range(10, 18))
def test_both_answers_to_one_motion_make_one_detection(micro_rows: int) -> None:
    """Also where the micro answer lasts just as long as a micro-expression may, and ends after the other."""
    for start in range(5, 75):
        stop = start + micro_rows
        rows = [(0.95 if start <= k < stop - 1 else 0.0, 0.95 if start <= k < stop else 0.0) for k in range(110)]
        merger = DetectionMerger(THRESHOLDS)
        assert len([one for k, row in enumerate(rows) for one in merger.take(k / HZ, *row)]) == 1
