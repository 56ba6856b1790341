"""Which motions of a face are expressions, and from when to when: what the pipeline asks.

Two look at the face side by side. The spotter follows every motion that stands out and measures its onset, apex and offset
closely; it knows nothing of speech. The judge knows what expressions of real people look like and what else faces do, half
a second later; its stretches are rougher. A stretch of the judge is an expression: it takes the moments of the spotter's
span that it overlaps by half, or else those that the spotter reads from the same motion. Spans that no stretch overlaps are
motion, unless nobody speaks and the judge's answer comes near its threshold in them. What the spotter would announce is
announced once the judge's early answer is sure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.config import SpotterSettings
from engine.spotting.judge import HALF, Detection, Judge, JudgeNetwork, judge_network, overlap
from engine.spotting.spotter import BREAK_S, Spotter
from engine.types import MICRO_LIMIT_S, Activity, Crop, Mark, Span

ANNOUNCES = 0.9  # the early answer from which on a span is announced before the judge is sure
SURE = 0.95  # an answer from which on lids that close go with an expression; lids alone of people and on photographs reach .82
SPOKEN_SHARE = 1 / 3  # a face that spoke for so much of a span speaks in it
LEAST_STEPS = 3  # pictures after its onset that an expression takes at least: one or two may be noise
LATE_S = 0.1  # a stretch that ends so near a break was cut by it


@dataclass(eq=False)
class _Announced:
    """A span of the spotter that was announced before it was over."""

    span: Span
    ordinal: int


class Decision:
    """Follows one face; `observe` takes its crops in order, `finish` ends what is open. spoke tells in which share of the time
    from start to end the face spoke; ordinal is that of the first span: a face that returns has had some before.

    `motions` are those that turned out to be no expressions; whoever reads them empties the list.
    """

    def __init__(
        self,
        settings: SpotterSettings | None = None,
        network: JudgeNetwork | None = None,
        spoke: Callable[[float, float], float] = lambda start, end: 0.0,
        ordinal: int = 0,
    ) -> None:
        settings = settings or SpotterSettings()
        self.spotter = Spotter(settings)
        self._spoke = spoke
        self._network = network or judge_network(settings.judge)
        self._judge = Judge(self._network, settings.sensitivity, settings.longest_s)
        self._waiting: list[Span] = []  # the spotter's final spans that no stretch has taken yet
        self._taken: list[Detection] = []  # the last stretches that became expressions
        self._candidate: Span | None = None  # what the spotter would announce
        self._announced: _Announced | None = None
        self._ordinal = ordinal
        self._last: Mark | None = None
        self._face = 0
        self.motions: list[Activity] = []

    @property
    def ordinal(self) -> int:
        """That of the next span."""
        return self._ordinal

    @property
    def loudness(self) -> float:
        """How loud the face is, see `Spotter`."""
        return self.spotter.loudness

    @property
    def moved_px(self) -> float:
        """The largest regional motion, pixels of the crop."""
        return self.spotter.moved_px

    def pending(self) -> tuple[Mark, Mark] | None:
        """Onset and apex of the span that would be announced next, see `Spotter.pending`."""
        return self.spotter.pending()

    def observe(self, crop: Crop) -> list[Span]:
        """Takes the face's next crop; returns spans that became sure, provisional or final."""
        spans: list[Span] = []
        if self._last is not None and crop.mark.t - self._last.t > BREAK_S:
            spans += self.finish()
        self._last, self._face = crop.mark, crop.face
        self._collect(self.spotter.observe(crop))
        for stretch in self._judge.observe(crop):
            spans += self._expression(stretch, truncated=stretch.cut)
        return spans + self._announce(crop.mark.t) + self._settle()

    def finish(self) -> list[Span]:
        """The source, the face or time breaks off here: ends what is open and starts from rest."""
        spans: list[Span] = []
        last = self._last
        if last is not None:
            stretches = self._judge.finish()
            self._collect(self.spotter.end())
            for stretch in stretches:
                spans += self._expression(stretch, truncated=stretch.end > last.t - LATE_S)
            spans += self._settle(ended=True)
            self.spotter.reset()
        self._waiting, self._taken, self._candidate, self._announced, self._last = [], [], None, None, None
        return spans

    def _collect(self, spans: list[Span]) -> None:
        """What the spotter says: it waits for the judge."""
        for span in spans:
            if span.state == "provisional":
                self._candidate = span
            else:
                self._waiting.append(span)
                self._candidate = None

    def _announce(self, now: float) -> list[Span]:
        """The span that the spotter would announce, if the judge's early answer agrees by now."""
        candidate = self._candidate
        if candidate is None or self._announced is not None:
            return []
        if any(overlap(_stretch(candidate), stretch) > 0 for stretch in self._taken):
            self._candidate = None  # it was final before it was announced
            return []
        probability = self._judge.peak(candidate.onset.t, now, "early")
        lately = Mark(0, candidate.apex.t - MICRO_LIMIT_S)
        if probability < ANNOUNCES or self.spotter.frames_between(lately, candidate.apex) < LEAST_STEPS:
            return []
        self._candidate = None
        span = replace(candidate, ordinal=self._ordinal, probability=self._network.card.probability(probability))
        self._announced = _Announced(candidate, self._ordinal)
        self._ordinal += 1
        return [span]

    def _expression(self, stretch: Detection, *, truncated: bool) -> list[Span]:
        """A stretch has become sure: the final span."""
        overlapping = max(self._waiting, key=lambda span: overlap(_stretch(span), stretch), default=None)
        marks: tuple[Mark, Mark, Mark] | None
        if overlapping is not None and overlapping.offset is not None and overlap(_stretch(overlapping), stretch) >= HALF:
            marks, truncated = (overlapping.onset, overlapping.apex, overlapping.offset), overlapping.truncated
        else:
            marks = self.spotter.extent(stretch.start, stretch.end)
        if marks is None:  # too short, or the face only goes back to rest: a smile that fades is no expression of its own
            return []
        if stretch.answer < SURE and self.spotter.only_lids_close(*marks):
            return []
        brief = self.spotter.frames_between(marks[0], marks[2]) < LEAST_STEPS
        announced = self._is_announced(stretch)
        self._taken = [*self._taken[-3:], stretch]
        if brief and not announced:
            return []
        if brief:
            marks = (marks[0], marks[1], self.spotter.frame_after(marks[0], LEAST_STEPS))
        ordinal = self._number(announced)
        self._waiting = [span for span in self._waiting if overlap(_stretch(span), stretch) <= 0]
        probability = self._network.card.probability(stretch.answer)
        return [Span(0, ordinal, "final", *marks, truncated, probability)]

    def _is_announced(self, stretch: Detection) -> bool:
        """Whether a stretch is what was announced."""
        announced = self._announced
        if announced is None:
            return False
        same = [_stretch(span) for span in self._waiting if span.ordinal == announced.span.ordinal]
        now = self._last.t if self._last is not None else announced.span.apex.t
        going_on = Detection(announced.span.onset.t, max(now, announced.span.apex.t), 0.0)
        return any(overlap(span, stretch) > 0 for span in same or [going_on])

    def _number(self, announced: bool) -> int:
        """The ordinal of a stretch: the announced one's, if that is what it is."""
        known = self._announced
        if announced and known is not None:
            self._announced = None
            return known.ordinal
        self._ordinal += 1
        return self._ordinal - 1

    def _settle(self, *, ended: bool = False) -> list[Span]:
        """Spans of the spotter that no stretch can take any more: motion, unless they were announced."""
        spans: list[Span] = []
        for span in list(self._waiting):
            assert span.offset is not None, "final spans have an offset"
            since = self._judge.since
            if not ended and (self._judge.judged_until < span.offset.t or (since is not None and since < span.offset.t)):
                continue
            self._waiting.remove(span)
            answer = self._judge.peak(span.onset.t, span.offset.t)
            probability = self._network.card.probability(answer)
            announced = self._announced
            if announced is not None and announced.span.ordinal == span.ordinal:
                self._announced = None
                spans.append(replace(span, ordinal=announced.ordinal, probability=probability))
            elif any(overlap(_stretch(span), stretch) > 0 for stretch in self._taken):
                continue
            elif (
                answer > self._judge.thresholds.agreed
                and self._silent(span)
                and self.spotter.frames_between(span.onset, span.offset) >= LEAST_STEPS
            ):
                spans.append(replace(span, ordinal=self._ordinal, probability=probability))
                self._ordinal += 1
            else:
                self.motions.append(Activity(self._face, "motion", span.onset, span.offset, probability))
        return spans

    def _silent(self, span: Span) -> bool:
        """Whether the face does not speak in a final span, and shows more than lids that close."""
        assert span.offset is not None, "final spans have an offset"
        spoke = self._spoke(span.onset.t, max(span.offset.t, span.onset.t + 1e-3)) >= SPOKEN_SHARE
        return not spoke and not self.spotter.only_lids_close(span.onset, span.apex, span.offset)


def _stretch(span: Span) -> Detection:
    end = span.offset or span.apex
    return Detection(span.onset.t, end.t, 0.0)
