from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.config import SpotterSettings
from engine.spotting.decision import Decision
from engine.spotting.detections import Thresholds
from engine.spotting.features import REGIONS
from engine.spotting.judge import ANSWERS, DELAY, EARLY_DELAY, JudgeCard, JudgeNetwork
from engine.types import F32, Crop, Span
from tests.engine.spotting.pulses import SMILE, Pulse, agree, finals, sequence

SAME = Thresholds(high=0.6, low=0.4, micro_high=0.6, micro_low=0.4, agreed=0.5)
CARD = JudgeCard(
    name="scripted",
    thresholds={"low": SAME, "normal": SAME, "high": SAME},
    calibration=(1, 0),
    data="",
    licence="",
    sha256="0" * 64,
)
BROW = 4 * len(REGIONS) + 2 * REGIONS.index("brow_inner_left") + 1


class Scripted(JudgeNetwork):
    """Answers high while all of its regions, by default a brow, are higher than over the last second."""

    def __init__(self, *columns: int, early: bool = True, least: float = 0.1, answer: float = 0.9) -> None:
        self.card, self._columns, self._early, self._least, self._answer = CARD, list(columns or (BROW,)), early, least, answer

    def __call__(self, rows: F32) -> F32:
        moves = rows[:, self._columns].min(axis=1) < -self._least
        out = np.full((len(rows), len(ANSWERS)), 0.02, np.float32)
        out[DELAY:, 0] = np.where(moves[:-DELAY], self._answer, 0.02)
        if self._early:
            out[EARLY_DELAY:, 4] = np.where(moves[:-EARLY_DELAY], 0.95, 0.02)
        return out


def decide(crops: list[Crop], one: Decision, *, end: bool = True) -> list[Span]:
    return [span for crop in crops for span in one.observe(crop)] + (one.finish() if end else [])


TIMES = np.arange(0, 8, 1 / 30)
RAISE = Pulse(3.0, 3.4, 3.9)


def test_an_expression_has_the_marks_of_the_spotter_and_the_probability_of_the_judge(crop: Crop) -> None:
    spans = decide(sequence(crop, TIMES, [RAISE]), Decision(SpotterSettings(), Scripted()))
    assert [(span.state, span.ordinal) for span in spans] == [("provisional", 0), ("final", 0)]
    agree(spans[1], RAISE)
    assert spans[1].probability == pytest.approx(0.9)
    assert not spans[1].truncated


def test_a_span_without_a_detection_is_motion(crop: Crop) -> None:
    one = Decision(SpotterSettings(), Scripted())
    assert decide(sequence(crop, TIMES, [Pulse(3.0, 3.4, 3.9, where=SMILE)]), one) == []
    assert [motion.kind for motion in one.motions] == ["motion"]
    assert one.motions[0].start.t == pytest.approx(3.0, abs=0.07)
    assert one.motions[0].expression_probability == pytest.approx(0.02)


def test_nothing_is_announced_while_the_early_answer_is_low(crop: Crop) -> None:
    spans = decide(sequence(crop, TIMES, [RAISE]), Decision(SpotterSettings(), Scripted(early=False)))
    assert [span.state for span in spans] == ["final"]


def test_a_detection_without_a_span_has_its_apex_where_the_face_moved_most(crop: Crop) -> None:
    faint = Pulse(3.0, 3.4, 3.9, px=0.16)
    spans = decide(sequence(crop, TIMES, [faint], noise=0.001), Decision(SpotterSettings(floor_px=0.5), Scripted(least=0.02)))
    assert [span.state for span in spans] == ["final"]
    assert spans[0].apex.t == pytest.approx(3.4, abs=0.1)
    assert spans[0].onset.t < spans[0].apex.t


def test_an_end_truncates_an_open_span(crop: Crop) -> None:
    spans = finals(decide(sequence(crop, TIMES[TIMES < 3.5], [RAISE]), Decision(SpotterSettings(), Scripted())))
    assert [span.truncated for span in spans] == [True]


def test_a_break_truncates_an_open_span_and_ordinals_go_on(crop: Crop) -> None:
    times = TIMES[(TIMES < 3.5) | (TIMES > 4.5)]
    one = Decision(SpotterSettings(), Scripted())
    spans = finals(decide(sequence(crop, times, [RAISE, Pulse(6.0, 6.4, 6.9)]), one))
    assert [span.ordinal for span in spans] == [0, 1]
    assert spans[0].truncated
    assert not spans[1].truncated


def test_an_announced_span_becomes_final_whatever_the_later_answers(crop: Crop) -> None:
    class Withdraws(Scripted):
        def __call__(self, rows: F32) -> F32:
            out = super().__call__(rows)
            out[:, 0] = 0.02
            return out

    spans = decide(sequence(crop, TIMES, [RAISE]), Decision(SpotterSettings(), Withdraws()))
    assert [(span.state, span.ordinal) for span in spans] == [("provisional", 0), ("final", 0)]
    assert spans[1].probability == pytest.approx(0.02)


def test_two_expressions_have_two_ordinals(crop: Crop) -> None:
    spans = finals(decide(sequence(crop, TIMES, [RAISE, Pulse(5.5, 5.8, 6.2)]), Decision(SpotterSettings(), Scripted())))
    assert [span.ordinal for span in spans] == [0, 1]


def test_closing_lids_are_no_expression_however_long(crop: Crop) -> None:
    def closed(t: float) -> float:
        return 0.05 if 3.0 < t < 5.0 else 0.3

    follows = Pulse(3.0, 3.6, 5.1, px=0.9)
    assert decide(sequence(crop, TIMES, [follows], lids=closed), Decision(SpotterSettings(), Scripted(early=False))) == []
    both = finals(
        decide(sequence(crop, TIMES, [Pulse(3.0, 3.6, 5.1, px=6.0)], lids=closed), Decision(SpotterSettings(), Scripted()))
    )
    assert len(both) == 1


def test_a_blink_during_a_brow_raise_hides_no_clear_expression(crop: Crop) -> None:
    crops = sequence(crop, TIMES, [RAISE], lids=lambda t: 0.05 if 3.3 < t < 3.5 else 0.3)
    settings = SpotterSettings(floor_px=50.0)  # the judge alone
    assert len(finals(decide(crops, Decision(settings, Scripted(early=False, answer=0.97))))) == 1
    assert finals(decide(crops, Decision(settings, Scripted(early=False)))) == []


def test_a_held_expression_that_fades_is_not_another_one(crop: Crop) -> None:
    class Twice(Scripted):
        """Detects the rise and the fall of one expression, not the hold between them."""

        def __call__(self, rows: F32) -> F32:
            out = super().__call__(rows)
            speed = np.abs(rows[:, BROW % (2 * len(REGIONS))]) > 0.02
            out[DELAY:, 0] = np.where(speed[:-DELAY], 0.9, 0.02)
            return out

    crops = sequence(crop, TIMES, noise=0.0005)
    held = [
        replace(one, motion=Pulse(3.0, 3.4, 99).at(np.array([one.mark.t]))[0].astype(np.float32))
        if one.mark.t < 5.0
        else replace(one, motion=Pulse(4.6, 5.0, 5.4).at(np.array([one.mark.t]))[0].astype(np.float32))
        for one in crops
    ]
    spans = finals(decide(held, Decision(SpotterSettings(), Twice(early=False))))
    assert len(spans) == 1 and spans[0].onset.t == pytest.approx(3.0, abs=0.15)


def test_an_expression_while_another_fades_is_one(crop: Crop) -> None:
    fading, raised = Pulse(1.0, 2.0, 5.0, px=6.0, where=SMILE), Pulse(3.0, 3.4, 3.9)
    crops = sequence(crop, TIMES, [fading, raised], noise=0.001)
    spans = finals(decide(crops, Decision(SpotterSettings(floor_px=50.0), Scripted(early=False))))
    assert len(spans) == 1 and spans[0].apex.t == pytest.approx(3.4, abs=0.1)


@pytest.mark.parametrize(("answer", "spoke", "found"), [(0.55, 0.2, 1), (0.55, 0.4, 0), (0.45, 0.0, 0)])
def test_a_weaker_answer_is_enough_where_the_spotter_agrees_and_nobody_speaks(
    crop: Crop, answer: float, spoke: float, found: int
) -> None:
    class Unsure(Scripted):
        def __call__(self, rows: F32) -> F32:
            return np.minimum(super().__call__(rows), np.float32(answer))

    one = Decision(SpotterSettings(), Unsure(), lambda start, end: spoke)
    spans = finals(decide(sequence(crop, TIMES, [RAISE]), one))
    assert len(spans) == found and len(one.motions) == 1 - found


@pytest.mark.parametrize("seed", range(6))
def test_each_announced_expression_ends_once(crop: Crop, seed: int) -> None:
    rng = np.random.default_rng(seed)
    onsets = np.cumsum(rng.uniform(0.5, 1.8, 6))
    pulses = [Pulse(t, t + rng.uniform(0.1, 0.4), t + rng.uniform(0.5, 1.5), px=rng.uniform(0.8, 4)) for t in onsets]
    spans = decide(sequence(crop, np.arange(0, 12, 1 / 30), pulses, seed=seed), Decision(SpotterSettings(), Scripted(BROW)))
    ends = [span.ordinal for span in finals(spans)]
    assert ends and len(ends) == len(set(ends))
    assert {span.ordinal for span in spans if span.state == "provisional"} <= set(ends)
    assert all(span.offset is not None and span.onset.t <= span.apex.t <= span.offset.t for span in finals(spans))


def test_lids_that_close_at_the_end_are_no_expression(crop: Crop) -> None:
    follows = Pulse(3.0, 3.6, 5.1, px=0.9)
    crops = sequence(crop, TIMES[TIMES < 4.2], [follows], lids=lambda t: 0.05 if t > 3.0 else 0.3)
    assert finals(decide(crops, Decision(SpotterSettings(), Scripted(early=False)))) == []


@pytest.mark.parametrize("fps", [5, 10, 30])
def test_no_expression_has_fewer_than_three_frames_after_its_onset(crop: Crop, fps: int) -> None:
    """A brow raised for 0.4 s: one frame or two at five a second, three at ten."""
    times = np.arange(0, 8, 1 / fps)
    spans = decide(sequence(crop, times, [Pulse(3.0, 3.2, 3.4)]), Decision(SpotterSettings(), Scripted()))
    ends = [(span.offset.frame - span.onset.frame, span.kind) for span in spans if span.offset is not None]
    assert all(steps >= 3 for steps, _ in ends)
    assert ends or fps == 5
