"""Scores of spotted intervals by the rules of the Micro-Expression Grand Challenges (MEGC 2020 onwards).

A prediction is right when its interval overlaps a true one with an intersection over union of at least one half; each truth
and each prediction counts once. Counts are pooled over all videos before any ratio is formed. The spot-then-recognize score
(MEGC 2022) is the F1 of spotting times the F1 of recognition over what was spotted.

Intervals are half-open, in any one unit, seconds or frames. The challenges count whole frames, so an interval from
frame a to frame b, both included, is Interval(a, b + 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.intervals import IOU, Interval, match


@dataclass(frozen=True)
class Score:
    """Pooled counts and their ratios.

    confusion counts (true label, predicted label) over the matched pairs. A ratio without anything to count is 0, as in the
    challenge. recognition_f1 is the unweighted mean of the classes' F1 (over classes that occur among the matched pairs, true
    or predicted, except the prediction `abstain`, which is a miss of the true class).
    """

    tp: int
    fp: int
    fn: int
    confusion: dict[tuple[str, str], int] = field(default_factory=dict, hash=False)
    abstain: str = "uncertain"

    @property
    def precision(self) -> float:
        """Share of the predictions that are right."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the truths that were found."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def abstained(self) -> int:
        """Matched predictions that name no class."""
        return sum(n for (_, guess), n in self.confusion.items() if guess == self.abstain)

    @property
    def accuracy(self) -> float:
        """Share of the matched pairs whose class is right; abstentions count as wrong."""
        return _ratio(sum(n for (true, guess), n in self.confusion.items() if true == guess), sum(self.confusion.values()))

    @property
    def recognition_f1(self) -> float:
        """Unweighted mean of the classes' F1 over the matched pairs."""
        classes = sorted({label for pair in self.confusion for label in pair} - {self.abstain})
        return float(np.mean([self._class_f1(c) for c in classes])) if classes else 0.0

    @property
    def strs(self) -> float:
        """Spot-then-recognize score: f1 * recognition_f1."""
        return self.f1 * self.recognition_f1

    def _class_f1(self, label: str) -> float:
        right = self.confusion.get((label, label), 0)
        true = sum(n for (t, _), n in self.confusion.items() if t == label)
        guessed = sum(n for (_, g), n in self.confusion.items() if g == label)
        return _ratio(2 * right, true + guessed)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def score(
    videos: Iterable[tuple[Sequence[Interval], Sequence[Interval]]], iou: float = IOU, abstain: str = "uncertain"
) -> Score:
    """The Score pooled over (predicted, truth) of videos; labels are compared where both of a matched pair have one."""
    tp = fp = fn = 0
    confusion: dict[tuple[str, str], int] = {}
    for predicted, truth in videos:
        pairs = match(predicted, truth, iou)
        tp += len(pairs)
        fp += len(predicted) - len(pairs)
        fn += len(truth) - len(pairs)
        for p, t in pairs:
            true, guess = truth[t].label, predicted[p].label
            if true is not None and guess is not None:
                confusion[true, guess] = confusion.get((true, guess), 0) + 1
    return Score(tp, fp, fn, confusion, abstain)
