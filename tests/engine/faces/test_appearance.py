from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import pytest

from engine.faces.appearance import OTHER, SAME, VIEWS, Gallery, appearance_of
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


def test_an_appearance_has_length_one_and_no_light() -> None:
    seen = appearance_of(*face("hopper"))
    assert seen.shape == (32, 32)
    assert np.linalg.norm(seen) == pytest.approx(1, abs=1e-4)
    assert seen.mean() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("angle", [0, 25, 180])
@pytest.mark.parametrize("scale", [0.6, 1.3])
def test_size_place_angle_and_light_do_not_change_the_appearance(scale: float, angle: float) -> None:
    grey, points = face("hopper")
    turn = cv2.getRotationMatrix2D((grey.shape[1] / 2, grey.shape[0] / 2), angle, scale)
    turned = np.asarray(cv2.warpAffine(grey, turn, grey.shape[::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)
    moved = np.asarray(points[:, :2] @ turn[:, :2].T + turn[:, 2], np.float32)
    darker = np.asarray(turned * 0.6 + 12, np.uint8)
    assert float(np.vdot(appearance_of(grey, points), appearance_of(darker, moved))) > SAME


def test_two_people_are_not_alike() -> None:
    assert float(np.vdot(appearance_of(*face("hopper")), appearance_of(*face("astronaut")))) < OTHER


def test_a_gallery_keeps_a_few_different_views() -> None:
    gallery, rng = Gallery(), np.random.default_rng(0)
    views = [view / np.linalg.norm(view) for view in rng.normal(size=(VIEWS + 2, 32, 32)).astype(np.float32)]
    assert gallery.likeness(views[0]) == 1, "of whom nothing is known, nothing speaks against"
    for view in views:
        gallery.add(view)
        gallery.add(view)
        assert gallery.likeness(view) == pytest.approx(1, abs=1e-5)
    assert gallery.likeness(views[0]) < OTHER
    assert gallery.likeness(views[2]) == pytest.approx(1, abs=1e-5)
