from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.activity.watch import ActivityWatch
from engine.types import ACTIVITY_KINDS, F64, Activity, Crop, Mark
from tests.engine.activity.test_speech import mouth_crops, syllables, times

RNG = np.random.default_rng(5)
FACE = np.kron(RNG.integers(60, 200, (16, 16)), np.ones((8, 8))).astype(np.uint8)


def still(t: F64) -> list[Crop]:
    """A quiet face."""
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[234], landmarks[454], landmarks[10], landmarks[2] = (20, 64, 0), (108, 64, 0), (64, 10, 0), (64, 80, 0)
    return [replace(crop, pixels=FACE, landmarks=landmarks) for crop in mouth_crops(t, np.zeros_like(t))]


def between(crops: list[Crop], start: float, stop: float, **changes: Any) -> list[Crop]:
    """The crops with some fields changed from start up to stop, and blendshapes added."""
    shapes = changes.pop("blendshapes", {})
    return [
        replace(crop, blendshapes={**crop.blendshapes, **shapes}, **changes) if start <= crop.mark.t < stop - 1e-9 else crop
        for crop in crops
    ]


def watch(crops: list[Crop]) -> list[Activity]:
    watcher = ActivityWatch()
    return [one for crop in crops for one in watcher.observe(crop)] + watcher.finish()


def turned(crop: Crop, degrees: float) -> Crop:
    """The crop, its mesh turned around the vertical axis."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
    return replace(crop, landmarks=(crop.landmarks @ turn.T).astype(np.float32))


def test_a_quiet_face_has_no_activity() -> None:
    assert watch(still(times(30, 10))) == []


def test_a_short_closure_is_a_blink() -> None:
    (blink,) = watch(between(still(times(30, 4)), 2.0, 2.2, eye_opening=0.05))
    assert blink.kind == "blink"
    assert (blink.start.t, blink.end.t) == pytest.approx((2.0, 2.2 - 1 / 30))


def test_a_long_closure_is_closed_eyes() -> None:
    (closed,) = watch(
        between(still(times(30, 20)), 2.0, 14.0, eye_opening=0.05, blendshapes={"eyeBlinkLeft": 0.7, "eyeBlinkRight": 0.7})
    )
    assert closed.kind == "eyes_closed"
    assert (closed.start.t, closed.end.t) == pytest.approx((2.0, 14.0 - 1 / 30))


def test_a_blink_may_show_in_the_blendshapes_alone() -> None:
    shapes = {"eyeBlinkLeft": 0.6, "eyeBlinkRight": 0.6}
    (blink,) = watch(between(still(times(30, 4)), 2.0, 2.2, eye_opening=0.24, blendshapes=shapes))
    assert blink.kind == "blink"


def test_a_squint_is_neither_blink_nor_closed_eyes() -> None:
    assert watch(between(still(times(30, 8)), 2.0, 4.0, eye_opening=0.19)) == []


def test_a_glance_down_is_gaze_and_no_blink() -> None:
    shapes = {"eyeLookDownLeft": 0.6, "eyeLookDownRight": 0.6, "eyeBlinkLeft": 0.4, "eyeBlinkRight": 0.4}
    (gaze,) = watch(between(still(times(30, 6)), 2.0, 2.4, eye_opening=0.19, blendshapes=shapes))
    assert gaze.kind == "gaze"
    assert gaze.start.t == pytest.approx(2.0)


def test_looking_aside_is_gaze_and_small_motions_are_not() -> None:
    aside = {"eyeLookOutLeft": 0.6, "eyeLookInRight": 0.6}
    (gaze,) = watch(between(still(times(30, 6)), 2.0, 3.0, blendshapes=aside))
    assert gaze.kind == "gaze"
    assert (gaze.start.t, gaze.end.t) == pytest.approx((2.0, 3.0 - 1 / 30))
    assert watch(between(still(times(30, 6)), 2.0, 3.0, blendshapes=dict.fromkeys(aside, 0.2))) == []


def test_a_quick_turn_of_the_head_is_reported_and_a_slow_one_is_not() -> None:
    crops = still(times(30, 8))
    quick = [turned(crop, 25 * float(np.clip((crop.mark.t - 2) / 0.5, 0, 1))) for crop in crops]
    slow = [turned(crop, 25 * float(np.clip((crop.mark.t - 2) / 5, 0, 1))) for crop in crops]
    (turn,) = watch(quick)
    assert turn.kind == "head_turn"
    assert 2.0 < turn.start.t < 2.4
    assert 2.4 < turn.end.t < 3.0
    assert watch(slow) == []


def test_roll_is_a_head_turn() -> None:
    crops = still(times(30, 6))
    rolled = np.array([[0.98, -0.19, 0.0], [0.19, 0.98, 0.0]])
    (turn,) = watch(between(crops, 2.0, 10.0, transform=rolled))
    assert turn.kind == "head_turn"


@pytest.mark.parametrize("part", [np.s_[64:, :], np.s_[:, :64], np.s_[:64, 64:]], ids=["mouth", "left half", "one eye"])
def test_an_object_before_the_face_covers_it(part: tuple[slice, slice]) -> None:
    hand = FACE.copy()
    hand[part] = 230
    (covered,) = watch(between(still(times(30, 8)), 4.0, 5.5, pixels=hand))
    assert covered.kind == "covered"
    assert (covered.start.t, covered.end.t) == pytest.approx((4.0, 5.5), abs=0.12)


@pytest.mark.parametrize(("presence", "reported"), [(17.0, []), (15.0, ["covered"])])
def test_an_unusual_appearance_is_a_cover_where_the_mesh_is_less_sure(presence: float, reported: list[str]) -> None:
    smile = FACE.copy()
    smile[64:] = 230
    crops = [replace(crop, presence=19.0) for crop in still(times(30, 8))]
    assert [one.kind for one in watch(between(crops, 4.0, 5.5, pixels=smile, presence=presence))] == reported


def test_a_hand_that_stays_covers_as_long_as_the_mesh_is_unsure() -> None:
    crops = [replace(crop, presence=19.0) for crop in still(times(30, 20))]
    (covered,) = watch(between(crops, 4.0, 16.0, presence=9.0))
    assert covered.kind == "covered"
    assert (covered.start.t, covered.end.t) == pytest.approx((4.0, 16.0 - 1 / 30))


def test_an_open_mouth_or_a_turned_head_makes_the_mesh_less_sure_too() -> None:
    crops = [replace(crop, presence=19.0) for crop in still(times(30, 12))]
    assert "covered" not in {one.kind for one in watch(between(crops, 4.0, 5.5, presence=9.0, blendshapes={"jawOpen": 0.7}))}
    aside = [turned(crop, 26) if crop.mark.t >= 4 else crop for crop in crops]
    assert "covered" not in {one.kind for one in watch(between(aside, 4.0, 12.0, presence=12.0))}


def test_what_keeps_a_face_from_being_seen_is_known_by_its_time() -> None:
    crops = [replace(crop, presence=19.0) for crop in still(times(30, 9))]
    crops = between(crops, 2.0, 3.0, presence=9.0)
    crops = [turned(crop, 20) if crop.mark.t >= 6 else crop for crop in crops]
    watcher = ActivityWatch()
    for crop in crops:
        watcher.observe(crop)
    found = {start: watcher.hindrance(start, start + 0.9) for start in (0.5, 1.5, 4.0, 5.5)}
    assert found == {0.5: None, 1.5: "covered", 4.0: None, 5.5: "turned away"}
    assert watcher.hindrance(2.5, 6.5) == "covered", "where nothing names it, not even facial actions"


def test_changing_light_covers_nothing() -> None:
    assert watch(between(still(times(30, 8)), 4.0, 5.5, pixels=(FACE * 0.6 + 20).astype(np.uint8))) == []


def test_speech_is_reported_and_known_while_it_lasts() -> None:
    t = times(30, 9)
    watcher, done = ActivityWatch(), []
    for crop in mouth_crops(t, syllables(t, 2, 6)):
        done += watcher.observe(crop)
        if 3.5 < crop.mark.t < 5.5:
            assert "speech" in watcher.doing()
            assert watcher.spoke(3.0, crop.mark.t) == 1.0
    assert [one.kind for one in done] == ["speech"]
    assert "speech" not in watcher.doing()
    assert watcher.spoke(0.0, 1.0) == 0.0
    assert watcher.spoke(4.0, 5.0) == 1.0
    assert watcher.spoke(1.0, 3.0) == pytest.approx(0.5, abs=0.15)


def test_finish_ends_open_activities() -> None:
    crops = between(between(still(times(30, 6)), 1.0, 1.2, eye_opening=0.05), 5.0, 6.0, eye_opening=0.05)
    watcher = ActivityWatch()
    done = [one for crop in crops for one in watcher.observe(crop)]
    assert [one.kind for one in done] == ["blink"]
    (closed,) = watcher.finish()
    assert closed.kind == "eyes_closed"
    assert closed.end == crops[-1].mark
    assert watcher.finish() == []
    later = [replace(crop, mark=Mark(crop.mark.frame, crop.mark.t + 100)) for crop in still(times(30, 3))]
    assert [one for crop in later for one in watcher.observe(crop)] == []


def test_the_json_form() -> None:
    one = Activity(2, "speech", Mark(10, 0.4), Mark(40, 1.6000001))
    assert one.as_dict("cam") == {
        "type": "activity",
        "v": 1,
        "stream": "cam",
        "face": 2,
        "kind": "speech",
        "start": {"frame": 10, "t": 0.4},
        "end": {"frame": 40, "t": 1.6},
    }
    assert one.kind in ACTIVITY_KINDS
