from __future__ import annotations

import numpy as np
import pytest

from engine.config import SpotterSettings
from engine.spotting import candidate
from engine.spotting.candidate import extent, only_lids_close
from engine.spotting.motion import MotionSignal
from engine.spotting.spotter import Spotter
from engine.types import Crop
from tests.engine.spotting.pulses import (
    BROWS_UP,
    SMILE,
    TOLERANCE_S,
    WHOLE_HEAD,
    Pulse,
    agree,
    finals,
    lids_of,
    sequence,
    spot,
    steady,
)


@pytest.mark.parametrize(("length", "kind"), [(0.2, "micro"), (0.3, "micro"), (0.43, "micro"), (0.65, "macro"), (1.2, "macro")])
@pytest.mark.parametrize("px", [0.8, 2.0, 4.0])
def test_half_a_second_divides_micro_from_macro(crop: Crop, length: float, kind: str, px: float) -> None:
    pulse = Pulse(2.0, 2.0 + 0.45 * length, 2.0 + length, px, SMILE)
    (span,) = finals(spot(sequence(crop, steady(60, 5), [pulse])))
    assert span.kind == kind
    agree(span, pulse)


def test_the_onset_of_a_pending_span_is_not_fitted_again(crop: Crop, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    fit = candidate.changepoint
    monkeypatch.setattr(candidate, "changepoint", lambda t, curve: [fitted.append(len(t)), fit(t, curve)][1])
    one, asked, reported = Spotter(), 0, []
    for taken in sequence(crop, steady(60, 4), [Pulse(1.5, 1.7, 2.0)]):
        before = len(fitted)
        spans = one.observe(taken)
        reported += [(span.state, len(fitted) - before) for span in spans]
        asked += one.pending() is not None
    assert asked > 1
    assert reported == [("provisional", 0), ("final", 1)], "only the offset is new"
    assert len(fitted) <= asked + 1, "the onset is fitted once for each apex"


def test_the_apex_is_the_highest_of_two_summits(crop: Crop) -> None:
    pulses = [Pulse(2.0, 2.2, 3.0, 2), Pulse(2.25, 2.6, 3.0, 2.2)]
    height = sum(float(np.abs(pulse.at(np.array([2.6]))).max()) for pulse in pulses)
    assert height > 2.2
    (span,) = finals(spot(sequence(crop, steady(60, 5), pulses)))
    assert abs(span.apex.t - 2.6) <= TOLERANCE_S


@pytest.mark.parametrize("length", [0.4, 3.0, 12.0])
def test_a_motion_of_all_regions_alike_is_the_head(crop: Crop, length: float) -> None:
    pulse = Pulse(3.0, 3.0 + length / 2, 3.0 + length, 2.0, WHOLE_HEAD)
    assert finals(spot(sequence(crop, steady(30, 16), [pulse]))) == []


def test_a_slow_drift_is_no_event(crop: Crop) -> None:
    assert finals(spot(sequence(crop, steady(30, 20), [Pulse(2.0, 18.0, 1e9, 3)]))) == []


@pytest.mark.parametrize("fps", [30, 120])
def test_an_event_is_found_on_top_of_a_drift(crop: Crop, fps: float) -> None:
    pulse = Pulse(7.0, 7.2, 7.4, 2)
    (span,) = finals(spot(sequence(crop, steady(fps, 12), [Pulse(1, 6, 12, 1.5, WHOLE_HEAD), pulse])))
    agree(span, pulse)


@pytest.mark.parametrize("fps", [30, 60, 120])
@pytest.mark.parametrize("px", [0.0, 0.3, 0.6])
def test_a_blink_is_not_reported(crop: Crop, fps: float, px: float) -> None:
    """Lids pull the brows along; the same motion under open eyes is an expression (the last line), so the lids decide."""
    t, with_brows = steady(fps, 8), [Pulse(4.0, 4.08, 4.25, px, -BROWS_UP)]
    spotter = Spotter()
    assert spot(sequence(crop, t, with_brows, lids=lids_of(4.08)), spotter) == []
    spotter = Spotter()
    assert len(finals(spot(sequence(crop, t, with_brows), spotter))) == (px > 0.5)


def test_an_expression_with_a_blink_in_it_is_still_one(crop: Crop) -> None:
    pulse, spotter = Pulse(4.0, 4.2, 4.45, 2.5, SMILE), Spotter()
    (span,) = finals(spot(sequence(crop, steady(60, 8), [pulse], lids=lids_of(4.2)), spotter))
    agree(span, pulse)


def followed(crops: list[Crop]) -> MotionSignal:
    spotter = Spotter(SpotterSettings(floor_px=50.0))  # nothing is loud
    for one in crops:
        spotter.observe(one)
    return spotter.signal


def test_the_extent_has_its_apex_furthest_from_the_line_between_its_ends(crop: Crop) -> None:
    signal = followed(sequence(crop, steady(60, 5), [Pulse(2.0, 2.3, 2.8)]))
    marks = extent(signal, 2.0, 2.8)
    assert marks is not None
    assert [mark.t for mark in marks] == pytest.approx([2.0, 2.3, 2.8], abs=TOLERANCE_S)
    assert extent(signal, 2.0, 2.01) is None, "fewer than three rows"


def test_a_straight_return_to_the_neutral_position_has_no_extent(crop: Crop) -> None:
    signal = followed(sequence(crop, steady(30, 9), [Pulse(6.0, 6.4, 7.6, 4, SMILE)]))
    assert extent(signal, 6.6, 7.5) is None
    assert extent(signal, 6.0, 6.4) is not None


@pytest.mark.parametrize(("where", "lids", "alone"), [("brows", 4.2, True), ("smile", 4.2, False), ("brows", 2.0, False)])
def test_lids_that_close_alone(crop: Crop, where: str, lids: float, alone: bool) -> None:
    pulse = Pulse(4.0, 4.2, 4.5, 2, {"brows": BROWS_UP, "smile": SMILE}[where])
    signal = followed(sequence(crop, steady(60, 6), [pulse], lids=lids_of(lids)))
    marks = extent(signal, 4.0, 4.5)
    assert marks is not None and only_lids_close(signal, *marks) is alone
