"""Scores of the composite-database protocol, all from one pooled confusion matrix (MEGC 2019).

A class of the protocol that no map has counts with 0 in UF1 and UAR, never silently left out: `Scores.missing` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import InputError

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scores:
    """uf1 and uar in 0..1, f1 and recall per class, the confusion matrix [K, K] (row: truth, column: answer), and the classes
    that no tested map has."""

    uf1: float
    uar: float
    accuracy: float
    f1: tuple[float, ...]
    recall: tuple[float, ...]
    confusion: Counts
    missing: tuple[int, ...]


def confusion_matrix(truth: npt.ArrayLike, answers: npt.ArrayLike, classes: int) -> Counts:
    """Counts [K, K], row: truth, column: answer, over the declared classes. InputError for what does not fit."""
    true, answered = np.asarray(truth, np.int64).ravel(), np.asarray(answers, np.int64).ravel()
    if true.shape != answered.shape:
        raise InputError(f"{len(true)} true labels cannot be compared with {len(answered)} answers")
    for values, what in ((true, "a true label"), (answered, "an answer")):
        if values.size and not (values.min() >= 0 and values.max() < classes):
            raise InputError(f"{what} lies outside the declared classes 0 to {classes - 1}")
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (true, answered), 1)
    return counts


def scores(confusion: Counts) -> Scores:
    """UF1 = mean over classes of 2TP / (2TP + FP + FN), UAR = mean recall. InputError for an empty matrix."""
    total = int(confusion.sum())
    if not total:
        raise InputError("no map was tested, so there is no score")
    hits, truth, answers = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    f1 = 2 * hits / np.maximum(truth + answers, 1)
    recall = hits / np.maximum(truth, 1)
    return Scores(
        uf1=float(f1.mean()),
        uar=float(recall.mean()),
        accuracy=float(hits.sum() / total),
        f1=tuple(map(float, f1)),
        recall=tuple(map(float, recall)),
        confusion=confusion,
        missing=tuple(np.flatnonzero(truth == 0).tolist()),
    )


def score(truth: Sequence[int], answers: Sequence[int], classes: int) -> Scores:
    """`scores` of the pooled `confusion_matrix`."""
    return scores(confusion_matrix(truth, answers, classes))
