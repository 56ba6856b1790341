from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.faces.change import FaceSnapshot, SceneSnapshot
from engine.faces.landmarks import FaceLocator
from engine.types import F32, U8, Frame
from tests.faces import photo

FACE = photo("astronaut")
SAME, ANOTHER = 0.2, 0.3
"""Changes of a face below and above which there is no doubt."""


@pytest.fixture(scope="module")
def points() -> F32:
    locator = FaceLocator()
    (face,) = locator.locate(Frame(0, 0.0, FACE))
    locator.close()
    return face.points


def grey(picture: U8) -> U8:
    return Frame(0, 0.0, picture).grey


def grainy(picture: U8, sigma: float, seed: int) -> U8:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.asarray(np.clip(picture + noise, 0, 255).round(), np.uint8)


def painted(picture: U8, points: F32, parts: tuple[int, ...], colour_of: int) -> U8:
    """The picture with the hull of some mesh points in the colour of the skin at another point."""
    out = picture.copy()
    x, y = points[colour_of, :2].round().astype(int)
    hull = cv2.convexHull(points[list(parts), :2].round().astype(np.int32))
    cv2.fillConvexPoly(out, hull, [int(value) for value in picture[y, x]])
    return out


EYE = (33, 133, 160, 158, 144, 153)
MOUTH = (61, 291, 0, 17, 37, 267, 84, 314)


@pytest.mark.parametrize(("part", "skin"), [(EYE, 50), (MOUTH, 200)])
def test_eyes_that_close_and_a_mouth_that_changes_are_seen(points: F32, part: tuple[int, ...], skin: int) -> None:
    snapshot = FaceSnapshot(grey(FACE), points)
    assert snapshot.change(grey(FACE)) == (0, 0)
    eyes, mouth = snapshot.change(grey(painted(FACE, points, part, skin)))
    changed, same = (eyes, mouth) if part == EYE else (mouth, eyes)
    assert changed > ANOTHER and same < SAME


def test_grain_light_and_sway_are_no_change(points: F32) -> None:
    first = FaceSnapshot(grey(grainy(FACE, 3, 0)), points)
    assert max(first.change(grey(grainy(FACE, 3, 1)))) < SAME
    brighter = np.asarray(cv2.convertScaleAbs(FACE, alpha=1.05, beta=4), np.uint8)
    assert max(first.change(grey(brighter))) < SAME
    for sway in (0.3, 0.8):
        swayed = cv2.warpAffine(FACE, np.array([[1, 0, sway], [0, 1, 0.6 * sway]]), FACE.shape[1::-1], flags=cv2.INTER_CUBIC)
        assert max(first.change(grey(np.asarray(swayed, np.uint8)))) < SAME, f"{sway} px"


MOTIONS = [(4.0, 3.0, 0.0, 1.0), (12.0, -5.0, 0.0, 1.0), (3.0, 1.0, 2.0, 1.0), (5.0, 2.0, 1.0, 1.03)]
"""How a head of 110 pixels moves: right and down in pixels, turned in degrees, grown."""


def moved(picture: U8, points: F32, motion: tuple[float, float, float, float]) -> U8:
    right, down, turn, scale = motion
    x, y = points[:, :2].mean(axis=0).tolist()
    to_moved = cv2.getRotationMatrix2D((x, y), turn, scale)
    to_moved[:, 2] += np.array([right, down])
    return np.asarray(cv2.warpAffine(picture, to_moved, picture.shape[1::-1], flags=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_head_that_moves_is_followed_and_what_its_face_does_is_still_seen(
    points: F32, motion: tuple[float, float, float, float]
) -> None:
    snapshot = FaceSnapshot(grey(FACE), points)
    for share in (0.25, 0.5, 0.75, 1.0):  # as frames show it
        right, down, turn, scale = motion
        part = share * right, share * down, share * turn, 1 + share * (scale - 1)
        changes = snapshot.change(grey(moved(FACE, points, part)))
        assert max(changes) < 0.25, share
    for parts, skin, which in ((EYE, 50, 0), (MOUTH, 200, 1)):
        changed = snapshot.change(grey(moved(painted(FACE, points, parts, skin), points, motion)))
        assert changed[which] > ANOTHER


def test_a_face_that_is_not_in_the_picture_does_not_change(points: F32) -> None:
    away = points + np.array([5000, 0, 0], np.float32)
    assert FaceSnapshot(grey(FACE), away).change(grey(FACE[::-1].copy())) == (0, 0)
    assert FaceSnapshot(grey(FACE), points).change(grey(FACE)[:100, :100]) == (float("inf"), float("inf"))
    tiny = np.full((24, 24), 9, np.uint8)
    assert FaceSnapshot(tiny, points * 0 + 12).change(tiny) == (0, 0)


def scene(seed: int, *, light: int = 0, guest: tuple[int, int] | None = None) -> Frame:
    """A room, grainy; with a guest's small face at (left, top)."""
    room = np.tile(np.linspace(40, 160, 640).astype(np.uint8), (360, 1))
    if guest is not None:
        left, top = guest
        face = cv2.resize(grey(FACE)[60:220, 160:320], (48, 48), interpolation=cv2.INTER_AREA)
        room[top : top + 48, left : left + 48] = face
    return Frame(0, 0.0, grainy(np.asarray(room + np.uint8(light), np.uint8), 3, seed), "grey")


def test_who_comes_in_changes_the_scene_and_grain_and_light_do_not() -> None:
    snapshot = SceneSnapshot(scene(0))
    assert snapshot.change(scene(1), []) < 2
    assert snapshot.change(scene(2, light=20), []) < 3
    assert snapshot.change(scene(3, guest=(500, 200)), []) > 8


def test_what_happens_in_a_followed_window_is_left_out() -> None:
    snapshot = SceneSnapshot(scene(0))
    assert snapshot.change(scene(1, guest=(200, 100)), [(190, 90, 80)]) < 2
    assert snapshot.change(scene(1), [(-50, -50, 2000)]) == 0
    assert snapshot.change(Frame(0, 0.0, np.zeros((90, 160), np.uint8), "grey"), []) == float("inf")
    assert SceneSnapshot(Frame(0, 0.0, np.zeros((1, 2), np.uint8), "grey")).change(
        Frame(1, 0.1, np.full((1, 2), 7, np.uint8), "grey"), []
    ) == 0  # fmt: skip
