"""How likely it is, moment by moment, that a face shows an expression, and from when to when it does.

A small temporal convolution looks at the rows of `engine.spotting.features`, causal but for half a second: what it says of a
moment it says DELAY_S later. It was fitted on expressions of real people, on what real faces do besides (speech, blinks,
glances, turns of the head) and on rendered clips (training/judge.py). Where its answer passes a threshold, and as long as it
stays above a lower one, lies a stretch; short stretches have answers and thresholds of their own, since a micro-expression is a
quieter thing. One answer comes early, EARLY_DELAY_S after its moment, for what is announced before it is over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from engine.runtime.ort import open_session
from engine.spotting.features import HZ, FeatureSeries, mesh_features, region_displacement
from engine.types import F32, F64, MICRO_LIMIT_S, Crop
from engine.weights import JUDGE, Hashed, default_weights, read_card

DELAY_S = 0.5
"""How far ahead of a moment the judge looks, seconds."""
EARLY_DELAY_S = 0.1
DELAY = round(DELAY_S * HZ)
EARLY_DELAY = round(EARLY_DELAY_S * HZ)
ANSWERS = ("expression", "onset", "offset", "micro", "early")
"""What it answers for each row [5], probabilities."""
FOLD = 2  # rows that the network takes as one
MEMORY = 256  # rows back that an answer may hang on
STRIDE = 6  # rows after which the network looks again
SHORTEST_S = 0.12
HALF = 0.5  # overlap of what is taken to be the same
SHARED = 0.3  # a short stretch that overlaps a long one so far takes its place, else it gives way to it


class Thresholds(BaseModel):
    """Answers at which a stretch begins to count, and down to which it reaches; agreed is enough where the spotter found a
    motion and nobody speaks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    high: float = Field(gt=0, lt=1)
    low: float = Field(gt=0, lt=1)
    micro_high: float = Field(gt=0, lt=1)
    micro_low: float = Field(gt=0, lt=1)
    agreed: float = Field(1.0, gt=0, le=1)


Sensitivity = Literal["low", "normal", "high"]
"""How readily motions are called expressions: low for few false alarms, high for few misses."""


class JudgeCard(Hashed):
    """What is known of a judge: what it was fitted on, how good it is, what it may be used for."""

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


@dataclass(frozen=True)
class Detection:
    """From when to when a face shows an expression, seconds, and the greatest answer in between; cut: it goes on for longer."""

    start: float
    end: float
    answer: float
    cut: bool = False


class JudgeNetwork:
    """A judge from its file. Raises WeightsError where that cannot be used."""

    def __init__(self, weights: Path | None = None) -> None:
        path = weights or default_weights().with_name(f"{JUDGE}.onnx")
        self.card = read_card(path, JudgeCard)
        self._session: Any = open_session(path)

    def __call__(self, rows: F32) -> F32:
        """Answers [n, 5] to rows [n, WIDTH], n even; row k is about row k - DELAY, its early answer about k - EARLY_DELAY."""
        out: F32 = self._session.run(["answers"], {"rows": rows[None]})[0][0]
        return out


@lru_cache(maxsize=4)
def judge_network(weights: Path | None = None) -> JudgeNetwork:
    """The judge of a file (default: the shipped one), loaded once."""
    return JudgeNetwork(weights)


class _Track:
    """DetectionMerger of one answer: where it passes `high`, as far as it stays above `low`."""

    def __init__(self, high: float, low: float, longest_s: float) -> None:
        self.high, self.low, self.longest_s = high, low, longest_s
        self._start: float | None = None
        self._best, self._end = 0.0, 0.0
        self._held = False  # what was cut goes on

    @property
    def since(self) -> float | None:
        """When the stretch now open began; None where none is."""
        return self._start

    def take(self, t: float, value: float) -> Detection | None:
        """One more answer; returns the stretch that it ends."""
        if value > self.low:
            if self._held:
                return None
            if self._start is None:
                self._start, self._best = t, 0.0
            self._best, self._end = max(self._best, value), t
            if t - self._start < self.longest_s:
                return None
            self._held = True
            return self.close()
        self._held = False
        return self.close()

    def close(self) -> Detection | None:
        """Ends what is open; returns it if it counts."""
        start, self._start = self._start, None
        if start is None or self._best <= self.high or self._end - start < SHORTEST_S - 1e-6:
            return None
        return Detection(start, self._end, self._best, self._held)


class DetectionMerger:
    """Answers -> stretches, in order of time, each as soon as no open one can change it."""

    def __init__(self, thresholds: Thresholds, longest_s: float = 8.0) -> None:
        self._long = _Track(thresholds.high, thresholds.low, longest_s)
        self._short = _Track(thresholds.micro_high, thresholds.micro_low, longest_s)
        self._smooth: list[tuple[float, float, float]] = []
        self._found: list[Detection] = []
        self._brief: list[Detection] = []

    @property
    def since(self) -> float | None:
        """When what is open or waits now began; None where all is settled."""
        starts = [one.start for one in (*self._found, *self._brief)]
        starts += [t for t in (self._long.since, self._short.since) if t is not None]
        return min(starts, default=None)

    def take(self, t: float, expression: float, micro: float) -> list[Detection]:
        """One more row's answers; returns the stretches that are sure now."""
        self._smooth.append((t, expression, micro))
        if len(self._smooth) < 3:
            return []
        (_, a, b), (t, c, d), (_, e, f) = self._smooth
        del self._smooth[0]
        self._keep(self._long.take(t, (a + c + e) / 3), self._short.take(t, (b + d + f) / 3))
        brief = self._short.since  # longer than a micro-expression may last, it does not count
        waits = brief is not None and t - brief < MICRO_LIMIT_S + 1.5 / HZ
        return [] if waits or self._long.since is not None else self._settled()

    def finish(self) -> list[Detection]:
        """Ends what is open."""
        self._keep(self._long.close(), self._short.close())
        self._smooth.clear()
        return self._settled()

    def _keep(self, long: Detection | None, short: Detection | None) -> None:
        self._found += [long] if long else []
        self._brief += [short] if short and short.end - short.start <= MICRO_LIMIT_S + 1e-6 else []

    def _settled(self) -> list[Detection]:
        out = self._found
        for short in self._brief:
            rival = max(out, key=lambda one: overlap(one, short), default=None)
            if rival is None or (rival.end < short.start or rival.start > short.end):
                out.append(short)
            elif overlap(rival, short) >= SHARED:
                out.remove(rival)
                out.append(short)
        self._found, self._brief = [], []
        return sorted(out, key=lambda one: one.start)


def overlap(a: Detection, b: Detection) -> float:
    """Intersection over union of two stretches, a row's length added at their ends."""
    shared = min(a.end, b.end) - max(a.start, b.start) + 1 / HZ
    return max(shared, 0.0) / (max(a.end, b.end) - min(a.start, b.start) + 1 / HZ)


class Judge:
    """Follows one face: `observe` takes its crops in order, `finish` ends what is open.

    `peak` says how high an answer rose in any time that was judged.
    """

    def __init__(self, network: JudgeNetwork, sensitivity: Sensitivity = "normal", longest_s: float = 8.0) -> None:
        self._network = network
        self.thresholds = network.card.thresholds[sensitivity]
        self._longest_s = longest_s
        self._begin()

    def _begin(self) -> None:
        self._signals = FeatureSeries()
        self._answered = 0  # rows whose answers are known
        self._answers: F32 = np.zeros((0, len(ANSWERS)), np.float32)
        self._first = 0  # row of the stream at which `_answers` begins
        self._dropped = 0  # rows of the stream that are forgotten
        self._start_t = 0.0
        self._stretches = DetectionMerger(self.thresholds, self._longest_s)
        self._ended = False

    @property
    def judged_until(self) -> float:
        """Up to when the final answers are known, seconds of the source; before the first crop minus infinity."""
        return self._start_t + (self._answered - 1 - DELAY) / HZ if self._answered else -np.inf

    @property
    def since(self) -> float | None:
        """When the stretch that is open began; None where all is settled."""
        return self._stretches.since

    def observe(self, crop: Crop) -> list[Detection]:
        """Takes the face's next crop; returns the stretches that became sure."""
        return self.take(crop.mark.t, region_displacement(crop), mesh_features(crop))

    def take(self, t: float, displacement: F64, mesh: F64 | None) -> list[Detection]:
        """`observe` for displacement [20] in pixels and mesh [7] of a moment (`engine.spotting.features`)."""
        if self._ended:
            self._begin()
        if not self._signals.size:
            self._start_t = t
        self._signals.take(t, displacement, mesh)
        ready = (self._dropped + self._signals.size) // FOLD * FOLD
        return self._judge(ready) if ready - self._answered >= STRIDE else []

    def finish(self) -> list[Detection]:
        """The source, the face or time breaks off: the last row is taken to go on, what is open ends."""
        if not self._signals.size or self._ended:
            return []
        last, known = self._signals.rows[-1:], self._dropped + self._signals.size
        want = known + DELAY + (known + DELAY) % FOLD
        rows = np.concatenate([self._signals.rows, np.repeat(last, want - known, axis=0)])
        spans = self._answer(rows, want) + self._stretches.finish()
        self._ended = True
        return spans

    def peak(self, start: float, end: float, answer: str = "expression") -> float:
        """The greatest answer from start to end, as far as it is known; 0 where nothing is."""
        behind = EARLY_DELAY if answer == "early" else DELAY
        first = int(np.ceil((start - self._start_t) * HZ - 1e-6)) + behind - self._first
        last = int(np.floor((end - self._start_t) * HZ + 1e-6)) + behind - self._first
        known = self._answers[max(first, 0) : max(last + 1, 0), ANSWERS.index(answer)]
        return float(known.max()) if len(known) else 0.0

    def _judge(self, ready: int) -> list[Detection]:
        spans = self._answer(self._signals.rows[: ready - self._dropped], ready)
        gone = self._signals.forget(MEMORY + 2 * STRIDE + FOLD + (self._dropped + self._signals.size) % FOLD)
        self._dropped += gone
        return spans

    def _answer(self, rows: F32, until: int) -> list[Detection]:
        """Looks at rows (the last is row until - 1 of the stream) and takes in the answers that are new."""
        new = until - self._answered
        window = min(MEMORY + new + new % FOLD, len(rows) - len(rows) % FOLD)
        answers = self._network(rows[len(rows) - window :])[-new:]
        self._answers = np.concatenate([self._answers, answers])
        spans: list[Detection] = []
        for k, row in enumerate(answers, self._answered - DELAY):
            if k >= 0:
                spans += self._stretches.take(self._start_t + k / HZ, float(row[0]), float(row[3]))
        self._answered = until
        keep = round((self._longest_s + 4.0) * HZ)
        if len(self._answers) > 2 * keep:
            self._first += len(self._answers) - keep
            self._answers = self._answers[-keep:]
        return spans


def detect(answers: F32, thresholds: Thresholds, start_t: float = 0.0) -> Sequence[Detection]:
    """The stretches in final answers [n, >= 4] of consecutive rows from start_t on."""
    one, out = DetectionMerger(thresholds), []
    for k, row in enumerate(answers):
        out += one.take(start_t + k / HZ, float(row[0]), float(row[3]))
    return [*out, *one.finish()]
