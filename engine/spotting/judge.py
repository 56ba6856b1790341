"""How likely it is, moment by moment, that a face shows an expression, by a small temporal convolution.

It takes the feature rows of `engine.spotting.features` and looks ahead half a second: its answer about a moment comes DELAY_S
later. It was fitted on expressions of real people, on what real faces do besides (speech, blinks, glances, turns of the head)
and on rendered clips (training/judge.py). One answer comes EARLY_DELAY_S after its moment, for found that are announced before
they are over. `engine.spotting.detections` makes detections of the answers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from engine.runtime.ort import open_session
from engine.spotting.detections import Detection, DetectionMerger, Thresholds
from engine.spotting.features import HZ, FeatureSeries, mesh_features, region_displacement
from engine.types import F32, F64, Crop
from engine.weights import JUDGE, Hashed, default_weights, read_card

DELAY_S = 0.5
EARLY_DELAY_S = 0.1
DELAY = round(DELAY_S * HZ)
"""Rows after which an answer about a moment comes, and those of the early answer."""
EARLY_DELAY = round(EARLY_DELAY_S * HZ)
ANSWERS = ("expression", "onset", "offset", "micro", "early")
"""The answers for each row [5], probabilities."""
FOLD = 2  # rows that the network takes as one
MEMORY = 256  # rows back that an answer may depend on
STRIDE = 6  # rows after which the network runs again

Sensitivity = Literal["low", "normal", "high"]
"""How readily motions are called expressions: low for few false alarms, high for few misses."""


class JudgeCard(Hashed):
    """The card of a judge: what it was fitted on, its scores, what it may be used for."""

    name: str
    thresholds: dict[Sensitivity, Thresholds]
    calibration: tuple[float, float]
    """Slope and shift from the logit of an answer to that of the probability, fitted on people the network had not seen."""
    data: str
    licence: str
    scores: dict[str, float | str] = Field(default_factory=dict)

    def probability(self, answer: float) -> float:
        """The probability that a motion with this greatest answer is an expression."""
        slope, shift = self.calibration
        answer = min(max(answer, 1e-6), 1 - 1e-6)
        return 1 / (1 + math.exp(min(-(slope * math.log(answer / (1 - answer)) + shift), 500.0)))


class JudgeNetwork:
    """A judge from its file. Raises WeightsError where that cannot be used."""

    def __init__(self, weights: Path | None = None) -> None:
        path = weights or default_weights().with_name(f"{JUDGE}.onnx")
        self.card = read_card(path, JudgeCard)
        self._session: Any = open_session(path)

    def __call__(self, rows: F32) -> F32:
        """Answers [n, 5] to rows [n, WIDTH], n even; row k is about row k - DELAY, its early answer about k - EARLY_DELAY."""
        return np.asarray(self._session.run(["answers"], {"rows": rows[None]})[0][0], np.float32)


@lru_cache(maxsize=4)
def judge_network(weights: Path | None = None) -> JudgeNetwork:
    """The judge of a file (default: the shipped one), loaded once."""
    return JudgeNetwork(weights)


class Judge:
    """Follows one face: `observe` takes its crops in order, `finish` ends what is open.

    `max_answer` is the greatest answer of any time that was judged.
    """

    def __init__(self, network: JudgeNetwork, sensitivity: Sensitivity = "normal", longest_s: float = 8.0) -> None:
        self._network = network
        self.thresholds = network.card.thresholds[sensitivity]
        self._longest_s = longest_s
        self._reset()

    def _reset(self) -> None:
        self._features = FeatureSeries()
        self._answered = 0  # rows with answers
        self._answers: F32 = np.zeros((0, len(ANSWERS)), np.float32)
        self._first = 0  # row of the stream with the first of `_answers`
        self._dropped = 0  # rows of the stream that are kept no more
        self._start_t = 0.0
        self._merger = DetectionMerger(self.thresholds, self._longest_s)
        self._ended = False

    @property
    def answered_until(self) -> float:
        """Up to when the final answers are known, seconds of the source; before the first crop minus infinity."""
        return self._start_t + (self._answered - 1 - DELAY) / HZ if self._answered else -np.inf

    @property
    def open_since(self) -> float | None:
        """Start of what is open or not merged yet; None where nothing is."""
        return self._merger.open_since

    def observe(self, crop: Crop) -> list[Detection]:
        """Takes the face's next crop; returns the detections that became final."""
        return self.take(crop.mark.t, region_displacement(crop), mesh_features(crop))

    def take(self, t: float, displacement: F64, mesh: F64 | None) -> list[Detection]:
        """`observe` for displacement [20] in pixels and mesh [7] of a moment (`engine.spotting.features`)."""
        if self._ended:
            self._reset()
        if not self._features.size:
            self._start_t = t
        self._features.append(t, displacement, mesh)
        ready = (self._dropped + self._features.size) // FOLD * FOLD
        if ready - self._answered < STRIDE:
            return []
        found = self._answer(self._features.rows[: ready - self._dropped], ready)
        self._dropped += self._features.drop(MEMORY + 2 * STRIDE + FOLD + (self._dropped + self._features.size) % FOLD)
        return found

    def finish(self) -> list[Detection]:
        """Ends what is open: source, face or time break off here. The last row is taken to go on."""
        if not self._features.size or self._ended:
            return []
        last, known = self._features.rows[-1:], self._dropped + self._features.size
        want = known + DELAY + (known + DELAY) % FOLD
        rows = np.concatenate([self._features.rows, np.repeat(last, want - known, axis=0)])
        found = self._answer(rows, want) + self._merger.finish()
        self._ended = True
        return found

    def max_answer(self, start: float, end: float, answer: str = "expression") -> float:
        """The greatest answer from start to end, as far as it is known; 0 where nothing is."""
        delay = EARLY_DELAY if answer == "early" else DELAY
        first = int(np.ceil((start - self._start_t) * HZ - 1e-6)) + delay - self._first
        last = int(np.floor((end - self._start_t) * HZ + 1e-6)) + delay - self._first
        known = self._answers[max(first, 0) : max(last + 1, 0), ANSWERS.index(answer)]
        return float(known.max()) if len(known) else 0.0

    def _answer(self, rows: F32, until: int) -> list[Detection]:
        """Runs the network on rows, the last of which is row until - 1 of the stream, and takes in the new answers."""
        new = until - self._answered
        window = min(MEMORY + new + new % FOLD, len(rows) - len(rows) % FOLD)
        answers = self._network(rows[len(rows) - window :])[-new:]
        self._answers = np.concatenate([self._answers, answers])
        found: list[Detection] = []
        for k, row in enumerate(answers, self._answered - DELAY):
            if k >= 0:
                found += self._merger.take(self._start_t + k / HZ, float(row[0]), float(row[3]))
        self._answered = until
        keep = round((self._longest_s + 4.0) * HZ)
        if len(self._answers) > 2 * keep:
            self._first += len(self._answers) - keep
            self._answers = self._answers[-keep:]
        return found
