"""Which motions of a face are expressions, and from when to when: what the pipeline asks.

Spotter and judge look at the face side by side. The spotter follows every motion that stands out and locates its onset, apex
and offset precisely; it ignores speech. The judge knows expressions of real people and what else faces do, half a second later
and less precisely. A detection of the judge is an expression: it gets onset, apex and offset of the spotter's span that it
overlaps by half, or else those that the spotter finds in the same time. Spans that no detection overlaps are motion, unless
nobody speaks and the judge's answer comes near its threshold in them. A pending span of the spotter is announced once the
judge's early answer is high.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.config import SpotterSettings
from engine.spotting.candidate import extent, only_lids_close
from engine.spotting.detections import SAME_OVERLAP, Detection, overlap
from engine.spotting.judge import Judge, JudgeNetwork
from engine.spotting.spotter import BREAK_S, Spotter
from engine.types import MICRO_LIMIT_S, Activity, Crop, Mark, Span

ANNOUNCES = 0.9  # early answer from which on a span is announced
SURE = 0.95  # answer from which on lids that close go with an expression; lids alone reach .82
SPOKEN_SHARE = 1 / 3  # of a span in which the face spoke, from which on it counts as speaking
LEAST_FRAMES = 3  # after its onset that an expression takes: one or two may be noise
BREAK_TOLERANCE_S = 0.1  # a detection that ends so near a break was cut by it


SpokenShare = Callable[[float, float], float]
"""(start, end), seconds -> the share of that time in which the face spoke."""


class Decision:
    """Follows one face; `observe` takes its crops in order, `finish` ends what is open.

    `ordinal` is that of the next span, at first more than 0 for a face that returns. `motions` are the spans
    that are no expressions; the reader empties the list.
    """

    def __init__(
        self, settings: SpotterSettings, network: JudgeNetwork, spoke: SpokenShare = lambda *_: 0.0, ordinal: int = 0
    ) -> None:
        self.spotter = Spotter(settings)
        self._spoke = spoke
        self._network = network
        self._judge = Judge(network, settings.sensitivity, settings.longest_s)
        self._waiting: list[Span] = []  # the spotter's final spans without a detection so far
        self._taken: list[Detection] = []  # the last detections reported
        self._candidate: Span | None = None  # the spotter's provisional span
        self._announced: tuple[Span, int] | None = None  # the spotter's span that was announced, and its ordinal here
        self.ordinal = ordinal
        self._last: Mark | None = None
        self._face = 0
        self.motions: list[Activity] = []

    def observe(self, crop: Crop) -> list[Span]:
        """Takes the face's next crop; returns spans that became known, provisional or final."""
        spans: list[Span] = []
        if self._last is not None and crop.mark.t - self._last.t > BREAK_S:
            spans += self.finish()
        self._last, self._face = crop.mark, crop.face
        self._collect(self.spotter.observe(crop))
        for detection in self._judge.observe(crop):
            spans += self._expression(detection, truncated=detection.cut)
        return spans + self._announce(crop.mark.t) + self._settle()

    def finish(self) -> list[Span]:
        """Ends what is open and forgets the crops: source, face or time break off here."""
        spans: list[Span] = []
        last = self._last
        if last is not None:
            detections = self._judge.finish()
            self._collect(self.spotter.end())
            for detection in detections:
                spans += self._expression(detection, truncated=detection.end > last.t - BREAK_TOLERANCE_S)
            spans += self._settle(ended=True)
            self.spotter.reset()
        self._waiting, self._taken, self._candidate, self._announced, self._last = [], [], None, None, None
        return spans

    def _collect(self, spans: list[Span]) -> None:
        """Keeps the spotter's spans until the judge has answered."""
        for span in spans:
            if span.state == "provisional":
                self._candidate = span
            else:
                self._waiting.append(span)
                self._candidate = None

    def _announce(self, now: float) -> list[Span]:
        """The spotter's provisional span, if the judge's early answer is high enough by now."""
        candidate = self._candidate
        if candidate is None or self._announced is not None:
            return []
        if any(overlap(_as_detection(candidate), detection) > 0 for detection in self._taken):
            self._candidate = None  # it was reported before it was announced
            return []
        probability = self._judge.max_answer(candidate.onset.t, now, "early")
        micro_start = Mark(0, candidate.apex.t - MICRO_LIMIT_S)
        if probability < ANNOUNCES or self.spotter.signal.frames_between(micro_start, candidate.apex) < LEAST_FRAMES:
            return []
        self._candidate = None
        self._announced = candidate, self._next_ordinal()
        return [replace(candidate, ordinal=self._announced[1], probability=self._network.card.probability(probability))]

    def _expression(self, detection: Detection, *, truncated: bool) -> list[Span]:
        """The final span of a detection, if it is reported."""
        overlapping = max(self._waiting, key=lambda span: overlap(_as_detection(span), detection), default=None)
        if overlapping is not None and overlap(_as_detection(overlapping), detection) >= SAME_OVERLAP:
            marks, truncated = _marks(overlapping), overlapping.truncated
        elif (found := extent(self.spotter.signal, detection.start, detection.end)) is not None:
            marks = found
        else:  # too short, or only the fading of an expression
            return []
        if detection.answer < SURE and only_lids_close(self.spotter.signal, *marks):
            return []
        too_short = self.spotter.signal.frames_between(marks[0], marks[2]) < LEAST_FRAMES
        announced = self._is_announced(detection)
        self._taken = [*self._taken[-3:], detection]
        if too_short and not announced:
            return []
        if too_short:
            marks = (marks[0], marks[1], self.spotter.signal.frame_after(marks[0], LEAST_FRAMES))
        ordinal = self._take_announced() if announced else self._next_ordinal()
        self._waiting = [span for span in self._waiting if overlap(_as_detection(span), detection) <= 0]
        probability = self._network.card.probability(detection.answer)
        return [Span(0, ordinal, "final", *marks, truncated, probability)]

    def _is_announced(self, detection: Detection) -> bool:
        """Whether a detection is the announced span."""
        if self._announced is None:
            return False
        announced, _ = self._announced
        overlapping = [_as_detection(span) for span in self._waiting if span.ordinal == announced.ordinal]
        now = self._last.t if self._last is not None else announced.apex.t
        so_far = Detection(announced.onset.t, max(now, announced.apex.t), 0.0)
        return any(overlap(span, detection) > 0 for span in overlapping or [so_far])

    def _take_announced(self) -> int:
        """The ordinal of the announced span, which becomes final."""
        assert self._announced is not None
        (_, ordinal), self._announced = self._announced, None
        return ordinal

    def _next_ordinal(self) -> int:
        self.ordinal += 1
        return self.ordinal - 1

    def _settle(self, *, ended: bool = False) -> list[Span]:
        """Settles the spotter's spans that no detection can overlap any more: motion, unless they were announced."""
        spans: list[Span] = []
        for span in list(self._waiting):
            onset, _, offset = marks = _marks(span)
            since = self._judge.open_since
            if not ended and (self._judge.answered_until < offset.t or (since is not None and since < offset.t)):
                continue
            self._waiting.remove(span)
            answer = self._judge.max_answer(onset.t, offset.t)
            probability = self._network.card.probability(answer)
            if self._announced is not None and self._announced[0].ordinal == span.ordinal:
                spans.append(replace(span, ordinal=self._take_announced(), probability=probability))
            elif any(overlap(_as_detection(span), detection) > 0 for detection in self._taken):
                continue
            elif (
                answer > self._judge.thresholds.agreed
                and self._spoke(onset.t, max(offset.t, onset.t + 1e-3)) < SPOKEN_SHARE
                and not only_lids_close(self.spotter.signal, *marks)
                and self.spotter.signal.frames_between(onset, offset) >= LEAST_FRAMES
            ):
                spans.append(replace(span, ordinal=self._next_ordinal(), probability=probability))
            else:
                self.motions.append(Activity(self._face, "motion", onset, offset, probability))
        return spans


def _marks(span: Span) -> tuple[Mark, Mark, Mark]:
    """Onset, apex and offset of a final span."""
    assert span.offset is not None, "final spans have an offset"
    return span.onset, span.apex, span.offset


def _as_detection(span: Span) -> Detection:
    return Detection(span.onset.t, (span.offset or span.apex).t, 0.0)
