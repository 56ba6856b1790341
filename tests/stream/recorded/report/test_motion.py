from __future__ import annotations

import numpy as np
import pytest

from engine.registration.regions import REGION_NAMES
from engine.types import Crop, Event, Mark
from stream.recorded.report.motion import KEEP_S, MAX_POINTS, CropHistory, motion_of
from tests.events import an_event
from tests.reports import a_crop

FPS = 50
CORNER = REGION_NAMES.index("lip_corner_left")


def crop(frame: int, height: float) -> Crop:
    """A crop in which one corner of the lips stands so far from its rest: three parts to the left, four up."""
    motion = np.zeros((len(REGION_NAMES), 2), np.float32)
    motion[CORNER] = (-0.6 * height, -0.8 * height)
    return a_crop(Mark(frame, frame / FPS), motion=motion)


def height(t: float) -> float:
    """Rises by 2 px from 1.0 to 1.2 s and falls until 1.4 s."""
    return 2 * max(0.0, 1 - abs(t - 1.2) / 0.2)


def history(seconds: float = 2.0) -> CropHistory:
    crops = CropHistory()
    for frame in range(round(seconds * FPS)):
        crops.append(crop(frame, height(frame / FPS)))
    return crops


def event() -> Event:
    return an_event(1, onset=Mark(50, 1.0), apex=Mark(60, 1.2), offset=Mark(70, 1.4))


def test_the_curve_rises_from_onset_to_apex_and_falls_again() -> None:
    found = motion_of(event(), history().around(event()))
    assert found is not None
    assert (found.t[0], found.t[-1]) == pytest.approx((0.5, 1.9))
    at = dict(zip(found.t.round(2).tolist(), found.px.tolist(), strict=True))
    assert at[1.0] == 0
    assert at[1.2] == max(at.values()) == pytest.approx(1.64, abs=0.01)  # of 2 px, less what smoothing takes
    assert at[1.9] == pytest.approx(0.0, abs=0.15)


def test_the_regions_that_moved_are_those_of_the_direction() -> None:
    found = motion_of(event(), history().around(event()))
    assert found is not None
    lengths = np.hypot(*found.moved.T)
    assert int(lengths.argmax()) == CORNER
    u, v = found.moved[CORNER]
    assert u / v == pytest.approx(0.75, abs=0.1)
    assert found.px.max() == pytest.approx(lengths.max(), rel=1e-4)


def test_a_long_expression_has_few_points_with_onset_and_apex_among_them() -> None:
    crops = CropHistory()
    for frame in range(9 * FPS):
        crops.append(crop(frame, height(frame / FPS / 5)))
    long = an_event(1, onset=Mark(251, 5.02), apex=Mark(300, 6.0), offset=Mark(400, 8.0))
    found = motion_of(long, crops.around(long))
    assert found is not None
    assert len(found.t) <= MAX_POINTS
    assert {5.02, 6.0} <= set(found.t.round(3).tolist())


def test_nothing_is_compared_over_a_break() -> None:
    crops = CropHistory()
    for frame in range(55):
        crops.append(crop(frame, height(frame / FPS)))
    for frame in range(55, 100):
        crops.append(crop(frame, 5.0), apart=frame == 55)
    around = crops.around(event())
    assert [one.mark.frame for one in around] == list(range(55, 96))
    assert motion_of(event(), around) is None
    later = CropHistory()
    for frame in (*range(40), *range(60, 100)):  # away for 0.4 s
        later.append(crop(frame, 0.0))
    assert later.around(event())[0].mark.frame == 60


def test_a_face_that_was_never_registered_has_no_curve() -> None:
    assert CropHistory().around(event()) == []
    assert motion_of(event(), []) is None
    still = CropHistory()
    for frame in range(100):
        still.append(crop(frame, 0.0))
    assert motion_of(event(), still.around(event())) is None


def test_old_crops_are_dropped() -> None:
    crops = history(KEEP_S + 5.0)
    assert crops.last_t == pytest.approx(KEEP_S + 5.0 - 1 / FPS)
    early = an_event(1, onset=Mark(50, 1.0), apex=Mark(300, 6.0), offset=Mark(400, 8.0))
    assert crops.around(early)[0].mark.t == pytest.approx(crops.last_t - KEEP_S, abs=1 / FPS)
