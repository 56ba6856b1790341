from __future__ import annotations

import numpy as np
import pytest

from engine.errors import InputError
from training.metrics import confusion_matrix, score, scores


def test_rows_are_truth_and_columns_are_answers() -> None:
    counts = confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 2], 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


def test_uf1_and_uar_by_hand() -> None:
    found = scores(np.array([[6, 2, 0], [1, 3, 0], [1, 1, 2]]))
    # class 0: TP 6 FP 2 FN 2; class 1: TP 3 FP 3 FN 1; class 2: TP 2 FP 0 FN 2
    assert found.f1 == pytest.approx((12 / 16, 6 / 10, 4 / 6))
    assert found.recall == pytest.approx((6 / 8, 3 / 4, 2 / 4))
    assert found.uf1 == pytest.approx((0.75 + 0.6 + 2 / 3) / 3)
    assert found.uar == pytest.approx((0.75 + 0.75 + 0.5) / 3)
    assert found.accuracy == pytest.approx(11 / 16)
    assert found.missing == ()


def test_one_answer_for_everything_scores_a_third_in_recall() -> None:
    found = score([0] * 8 + [1] + [2], [0] * 10, 3)
    assert found.uar == pytest.approx(1 / 3) and found.uf1 == pytest.approx(16 / 18 / 3)


def test_a_missing_class_counts_with_zero_and_is_named() -> None:
    found = score([0, 0, 1], [0, 0, 1], 3)
    assert found.missing == (2,)
    assert found.uf1 == pytest.approx(2 / 3) and found.uar == pytest.approx(2 / 3)


def test_pooling_is_not_averaging_over_folds() -> None:
    folds = [([0, 0, 0, 1], [0, 0, 0, 0]), ([1, 2], [1, 2])]
    pooled = score([t for f in folds for t in f[0]], [a for f in folds for a in f[1]], 3)
    assert pooled.recall == pytest.approx((1.0, 0.5, 1.0))


@pytest.mark.parametrize(("truth", "answers"), [([0, 1], [0]), ([0, 3], [0, 0]), ([0, 1], [0, -1])])
def test_what_does_not_fit_is_refused(truth: list[int], answers: list[int]) -> None:
    with pytest.raises(InputError):
        confusion_matrix(truth, answers, 3)


def test_no_score_without_maps() -> None:
    with pytest.raises(InputError, match="no map was tested"):
        score([], [], 3)
