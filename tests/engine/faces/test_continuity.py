from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.faces.continuity import Continuity, JumpDetector, SceneContinuity
from engine.types import U8
from tests.faces import photo

HOPPER, BOX = np.asarray(cv2.cvtColor(photo("hopper"), cv2.COLOR_RGB2GRAY), np.uint8), (265.0, 235.0, 190.0)
ASTRONAUT, OTHER_BOX = np.asarray(cv2.cvtColor(photo("astronaut"), cv2.COLOR_RGB2GRAY), np.uint8), (225.0, 125.0, 110.0)


def grainy(picture: U8, sigma: float, seed: int) -> U8:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.asarray(np.clip(picture + noise, 0, 255).round(), np.uint8)


def moved(picture: U8, right: float, down: float) -> U8:
    return np.asarray(cv2.warpAffine(picture, np.array([[1.0, 0, right], [0, 1, down]]), picture.shape[::-1]), np.uint8)


def the_other(box: tuple[float, float, float]) -> U8:
    """The astronaut in the place of the box, as large."""
    zoom = box[2] / OTHER_BOX[2]
    to_box = np.array([[zoom, 0, box[0] - zoom * OTHER_BOX[0]], [0, zoom, box[1] - zoom * OTHER_BOX[1]]])
    return np.asarray(cv2.warpAffine(ASTRONAUT, to_box, HOPPER.shape[::-1]), np.uint8)


def test_a_picture_that_came_before_is_a_repeat_and_grain_makes_it_another() -> None:
    first = grainy(HOPPER, 1, 0)
    seen = Continuity(first, BOX)
    assert seen.step(first) == "repeat"
    assert seen.step(grainy(HOPPER, 1, 1)) == "next"
    assert seen.step(grainy(HOPPER, 1, 1)) == "repeat"


def test_what_changes_beside_the_face_makes_no_new_picture_of_it() -> None:
    clock = HOPPER.copy()
    clock[:20, :60] = 255
    assert Continuity(HOPPER, BOX).step(clock) == "repeat"


@pytest.mark.parametrize("light", [0.5, 0.8, 1.2])
def test_light_and_motion_are_no_cut(light: float) -> None:
    lit = np.asarray(cv2.convertScaleAbs(HOPPER, alpha=light), np.uint8)
    assert Continuity(HOPPER, BOX).step(lit) == "next"
    assert Continuity(HOPPER, BOX).step(moved(lit, 25, -15)) == "next"


def test_another_face_in_the_same_place_is_a_cut() -> None:
    assert Continuity(HOPPER, BOX).step(the_other(BOX)) == "cut"


@pytest.mark.parametrize("level", [0, 255])
def test_a_flash_and_a_black_picture_are_no_cut(level: int) -> None:
    seen = Continuity(HOPPER, BOX)
    assert seen.step(np.full_like(HOPPER, level)) == "next"
    assert seen.step(HOPPER) == "next"


def test_a_face_outside_the_picture_and_pictures_of_another_size_go_on() -> None:
    assert Continuity(HOPPER, (-900.0, 50.0, 60.0)).step(HOPPER) == "next"
    assert Continuity(HOPPER, BOX).step(HOPPER[:200, :200].copy()) == "next"


def test_another_scene_is_no_motion_or_light_in_the_same_one() -> None:
    scene = SceneContinuity()
    assert not scene.is_another(HOPPER)
    assert not scene.is_another(moved(HOPPER, 8, -5))
    assert not scene.is_another(np.asarray(cv2.convertScaleAbs(HOPPER, alpha=0.5), np.uint8))
    assert not scene.is_another(np.zeros_like(HOPPER))
    assert not scene.is_another(HOPPER)
    assert scene.is_another(the_other(BOX))
    assert scene.is_another(HOPPER[:200, :200].copy())


def jumps_at(steps: list[tuple[str, float]], *, doubtful: bool = False) -> list[int]:
    """The numbers of the pictures that jump, at 30 a second, after twenty ordinary ones that change by 2 grey levels."""
    one, found = JumpDetector(), []
    for number, (step, change) in enumerate([("next", 2.0)] * 20 + steps):
        if one.observe(number / 30, "repeat" if step == "repeat" else "next", change, doubtful=doubtful):
            found.append(number - 20)
    return found


STOOD = [("repeat", 0.0)] * 12


def test_a_picture_that_stood_still_jumps_where_it_goes_on_elsewhere() -> None:
    assert jumps_at([*STOOD, ("next", 12.0), ("next", 2.0)]) == [12]
    assert jumps_at([*STOOD, ("next", 2.5), ("next", 12.0)]) == [], "it goes on as it was"
    assert jumps_at([("repeat", 0.0), ("next", 12.0)]) == [], "a few pictures are repeated everywhere"


def test_what_jumps_after_a_loss_is_a_jump() -> None:
    assert jumps_at([("next", 3.0), ("next", 12.0)], doubtful=True) == [1]
    assert jumps_at([("next", 3.0), ("next", 12.0)]) == []


def test_a_still_face_without_grain_begins_to_move_and_does_not_jump() -> None:
    one = JumpDetector()
    found = [
        one.observe(n / 30, "repeat" if n < 30 else "next", 0.0 if n < 30 else 0.3 * (n - 29), doubtful=False)
        for n in range(34)
    ]
    assert not any(found)
