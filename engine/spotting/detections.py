"""Detections from the judge's answers: where an answer passes a threshold, and as long as it stays above a lower one.

Micro-expressions have an answer and thresholds of their own, since they are fainter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from engine.config import Settings
from engine.spotting.features import HZ
from engine.types import F32, MICRO_LIMIT_S

SHORTEST_S = 0.12
SAME_OVERLAP = 0.5  # from which on two are taken to be the same
MICRO_OVERLAP = 0.3  # from which on a micro detection replaces one of any length, else it is dropped


class Thresholds(Settings):
    """Answers at which a detection counts, and down to which it reaches; `agreed` is enough where the spotter found a motion
    and nobody speaks."""

    high: float = Field(gt=0, lt=1)
    low: float = Field(gt=0, lt=1)
    micro_high: float = Field(gt=0, lt=1)
    micro_low: float = Field(gt=0, lt=1)
    agreed: float = Field(1.0, gt=0, le=1)


@dataclass(frozen=True)
class Detection:
    """An expression from start to end, seconds, with the greatest answer in between; cut: it lasts longer than is detected."""

    start: float
    end: float
    answer: float
    cut: bool = False


class Hysteresis:
    """Detections of one answer: where it passes `high`, as far as it stays above `low`."""

    def __init__(self, high: float, low: float, longest_s: float) -> None:
        self.high, self.low, self.longest_s = high, low, longest_s
        self.open_since: float | None = None
        """Start of the open detection."""
        self._max, self._end = 0.0, 0.0
        self._was_cut = False  # and the answer is still high

    def take(self, t: float, value: float) -> Detection | None:
        """The next answer; returns the detection that it ends."""
        if value > self.low:
            if self._was_cut:
                return None
            if self.open_since is None:
                self.open_since, self._max = t, 0.0
            self._max, self._end = max(self._max, value), t
            if t - self.open_since < self.longest_s:
                return None
            self._was_cut = True
            return self.close()
        self._was_cut = False
        return self.close()

    def close(self) -> Detection | None:
        """Ends the open detection; returns it if it counts."""
        start, self.open_since = self.open_since, None
        if start is None or self._max <= self.high or self._end - start < SHORTEST_S - 1e-6:
            return None
        return Detection(start, self._end, self._max, self._was_cut)


class DetectionMerger:
    """Answers -> detections, in order of time, each as soon as no open one can change it."""

    def __init__(self, thresholds: Thresholds, longest_s: float = 8.0) -> None:
        self._any = Hysteresis(thresholds.high, thresholds.low, longest_s)
        self._micro = Hysteresis(thresholds.micro_high, thresholds.micro_low, longest_s)
        self._recent: list[tuple[float, float, float]] = []
        self._found: list[Detection] = []
        self._found_micro: list[Detection] = []

    @property
    def open_since(self) -> float | None:
        """Start of what is open or not merged yet; None where nothing is."""
        starts = [one.start for one in (*self._found, *self._found_micro)]
        starts += [t for t in (self._any.open_since, self._micro.open_since) if t is not None]
        return min(starts, default=None)

    def take(self, t: float, expression: float, micro: float) -> list[Detection]:
        """The next row's answers, averaged over three rows; returns the detections that became final."""
        self._recent.append((t, expression, micro))
        if len(self._recent) < 3:
            return []
        (_, a, b), (t, c, d), (_, e, f) = self._recent
        del self._recent[0]
        self._keep(self._any.take(t, (a + c + e) / 3), self._micro.take(t, (b + d + f) / 3))
        since = self._micro.open_since  # longer than a micro-expression may last, it does not count
        waits = since is not None and t - since < MICRO_LIMIT_S + 1.5 / HZ
        return [] if waits or self._any.open_since is not None else self._merged()

    def finish(self) -> list[Detection]:
        """Ends what is open."""
        self._keep(self._any.close(), self._micro.close())
        self._recent.clear()
        return self._merged()

    def _keep(self, found: Detection | None, micro: Detection | None) -> None:
        self._found += [found] if found else []
        self._found_micro += [micro] if micro and micro.end - micro.start <= MICRO_LIMIT_S + 1e-6 else []

    def _merged(self) -> list[Detection]:
        out = self._found
        for micro in self._found_micro:
            rival = max(out, key=lambda one: overlap(one, micro), default=None)
            if rival is None or (rival.end < micro.start or rival.start > micro.end):
                out.append(micro)
            elif overlap(rival, micro) >= MICRO_OVERLAP:
                out.remove(rival)
                out.append(micro)
        self._found, self._found_micro = [], []
        return sorted(out, key=lambda one: one.start)


def overlap(a: Detection, b: Detection) -> float:
    """Intersection over union of two detections, a row's length added at their ends."""
    shared = min(a.end, b.end) - max(a.start, b.start) + 1 / HZ
    return max(shared, 0.0) / (max(a.end, b.end) - min(a.start, b.start) + 1 / HZ)


def detect(answers: F32, thresholds: Thresholds, start_t: float = 0.0) -> Sequence[Detection]:
    """The detections in final answers [n, >= 4] of consecutive rows from start_t on, seconds."""
    merger, out = DetectionMerger(thresholds), []
    for k, row in enumerate(answers):
        out += merger.take(start_t + k / HZ, float(row[0]), float(row[3]))
    return [*out, *merger.finish()]
