from __future__ import annotations

import numpy as np
import pytest

from engine.types import F32, Activity, Face, Frame, Mark
from stream.recorded.report.seen import Seen, Visibility, eye_distance, visibility, yaw
from tests.reports import a_crop, observed

PIXEL = np.zeros((1, 1), np.uint8)


def mesh(*, eyes_px: float = 80.0, yaw_deg: float = 0.0) -> F32:
    """A mesh of which only eyes and edges lie somewhere."""
    points = np.zeros((478, 3), np.float32)
    points[[33, 133], 0], points[[362, 263], 0] = 0.0, eyes_px
    points[454] = (100 * np.cos(np.radians(yaw_deg)), 0, 100 * np.sin(np.radians(yaw_deg)))
    return points


def watch(seen: Seen, times: list[float], *, face: int = 0, registered: bool = True, gap: bool = False, **look: float) -> None:
    """Frames at these times with one face in each."""
    for number, t in enumerate(times):
        mark = Mark(number, t)
        observations = [observed(mark, a_crop(mark) if registered else None, face=face)]
        seen.frame(Frame(number, t, PIXEL, "grey", gap=gap and not number), [Face(face, mesh(**look), t)], observations)


def steady(start: float, end: float, fps: float = 25.0) -> list[float]:
    return [float(t) for t in np.arange(round(start * fps), round(end * fps)) / fps]


def whole(seen: Seen, *activities: Activity) -> Visibility:
    return visibility(seen, activities)[0]


def test_a_mesh_says_where_the_head_is_turned_and_how_large_it_is() -> None:
    assert yaw(mesh(yaw_deg=-40.0)) == pytest.approx(-40.0, abs=0.01)
    assert eye_distance(mesh(eyes_px=62.0)) == pytest.approx(62.0)


def test_a_face_in_view_is_seen_well() -> None:
    seen = Seen()
    watch(seen, steady(0, 10))
    found = whole(seen)
    assert (found.present, found.watched) == pytest.approx((9.96, 9.96))
    assert (found.aside, found.small, found.lost, found.slow, found.covered, found.speaking) == (0,) * 6


def test_what_stands_in_the_way_is_counted_apart() -> None:
    seen = Seen()
    watch(seen, steady(0, 2))
    watch(seen, steady(2, 4), yaw_deg=35.0)
    watch(seen, steady(4, 6), eyes_px=40.0)
    watch(seen, steady(6, 8), registered=False)
    watch(seen, steady(8, 10))
    found = whole(seen)
    assert (found.aside, found.small, found.lost) == pytest.approx((2.0, 2.0, 2.0))
    assert found.watched == pytest.approx(9.96 - 6.0)


def test_too_few_pictures_a_second_are_noted() -> None:
    seen = Seen()
    watch(seen, steady(0, 4))
    watch(seen, steady(4, 8, fps=12.5))
    found = whole(seen)
    assert found.slow == pytest.approx(4.0, abs=0.5)
    assert found.watched == pytest.approx(found.present - found.slow)
    steady_rate = Seen()
    watch(steady_rate, steady(0, 4, fps=20.0))
    assert whole(steady_rate).slow == 0, "20 a second are enough"


def test_no_time_passes_in_a_gap() -> None:
    seen = Seen()
    watch(seen, steady(0, 2))
    watch(seen, steady(60, 62), gap=True)
    assert whole(seen).present == pytest.approx(3.92)
    assert list(seen.faces[0].present) == [(0.0, 1.96), (60.0, 61.96)]


def test_activities_count_while_the_face_is_in_view() -> None:
    seen = Seen()
    watch(seen, steady(0, 10))
    found = whole(
        seen,
        Activity(0, "speech", Mark(0, 1.0), Mark(0, 3.0)),
        Activity(0, "covered", Mark(0, 4.0), Mark(0, 5.0)),
        Activity(0, "covered", Mark(0, 4.5), Mark(0, 5.5)),
        Activity(0, "covered", Mark(0, 9.0), Mark(0, 12.0)),
        Activity(0, "blink", Mark(0, 6.0), Mark(0, 6.2)),
    )
    assert (found.speaking, found.covered) == pytest.approx((2.0, 1.5 + 0.96))
    assert found.watched == pytest.approx(found.present - found.covered)


def test_of_two_faces_one_that_is_seen_well_is_enough() -> None:
    seen = Seen()
    for number, t in enumerate(steady(0, 4)):
        faces = [Face(0, mesh(), t), Face(1, mesh(yaw_deg=50.0), t)]
        observations = [observed(Mark(number, t), a_crop(Mark(number, t)), face=face.id) for face in faces]
        seen.frame(Frame(number, t, PIXEL, "grey"), faces, observations)
    watch(seen, steady(4, 6), face=1, yaw_deg=50.0)
    found, each = visibility(seen, [])
    assert (found.present, found.watched, found.aside) == pytest.approx((5.96, 3.96, 2.0))
    assert (each[0].aside, each[1].watched) == (0.0, 0.0)
    assert each[1].aside == pytest.approx(5.96)


def test_nothing_is_seen_in_a_video_without_a_face() -> None:
    seen = Seen()
    seen.frame(Frame(0, 0.0, PIXEL, "grey"), [], [])
    assert whole(seen) == Visibility(*(0.0,) * 8)
