from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import pytest

from engine.faces.appearance import OTHER, SAME, VIEWS, Looks, look_of
from engine.faces.landmarks import FaceLocator
from engine.types import F32, U8, Frame
from tests.faces import photo


@lru_cache(maxsize=8)
def face(name: str) -> tuple[U8, F32]:
    """A photograph [H, W] and the mesh of its face."""
    picture, locator = photo(name, 0.8), FaceLocator()
    (found,) = [locator.locate(Frame(n, n / 5, picture)) for n in range(2)][-1]
    locator.close()
    return Frame(0, 0.0, picture).grey, found.points


def test_a_look_has_length_one_and_no_light() -> None:
    look = look_of(*face("hopper"))
    assert look.shape == (32, 32)
    assert np.linalg.norm(look) == pytest.approx(1, abs=1e-4)
    assert look.mean() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("angle", [0, 25, 180])
@pytest.mark.parametrize("scale", [0.6, 1.3])
def test_size_place_angle_and_light_make_no_other_look(scale: float, angle: float) -> None:
    grey, points = face("hopper")
    turn = cv2.getRotationMatrix2D((grey.shape[1] / 2, grey.shape[0] / 2), angle, scale)
    turned = np.asarray(cv2.warpAffine(grey, turn, grey.shape[::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)
    moved = np.asarray(points[:, :2] @ turn[:, :2].T + turn[:, 2], np.float32)
    darker = np.asarray(turned * 0.6 + 12, np.uint8)
    assert float(np.vdot(look_of(grey, points), look_of(darker, moved))) > SAME


def test_two_people_are_not_alike() -> None:
    assert float(np.vdot(look_of(*face("hopper")), look_of(*face("astronaut")))) < OTHER


def test_looks_keep_a_few_different_views() -> None:
    looks, rng = Looks(), np.random.default_rng(0)
    views = [view / np.linalg.norm(view) for view in rng.normal(size=(VIEWS + 2, 32, 32)).astype(np.float32)]
    assert looks.likeness(views[0]) == 1, "of whom nothing is known, nothing speaks against"
    for view in views:
        looks.add(view)
        looks.add(view)
        assert looks.likeness(view) == pytest.approx(1, abs=1e-5)
    assert looks.likeness(views[0]) < OTHER
    assert looks.likeness(views[2]) == pytest.approx(1, abs=1e-5)
