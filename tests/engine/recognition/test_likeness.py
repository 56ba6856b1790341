from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.recognition.likeness import ALIKE, explained, face_explained, like, read_along
from tests.faces import bump, moved, rise

STILL = np.zeros((2, 128, 128), np.float32)


def test_a_change_that_no_flow_explains_is_not_named() -> None:
    """Where a hand comes between, parts of both pictures have nothing in common."""
    rng = np.random.default_rng(5)
    face = np.asarray(cv2.GaussianBlur(rng.uniform(0, 255, (128, 128)).astype(np.float32), (0, 0), 2.0))
    other = np.asarray(cv2.GaussianBlur(rng.uniform(0, 255, (128, 128)).astype(np.float32), (0, 0), 2.0))
    still = np.zeros((2, 128, 128), np.float32)
    hidden = face.copy()
    hidden[64:] = other[64:]
    assert explained(face, face, still) == pytest.approx(1.0, abs=1e-3)
    assert explained(face, hidden, still) < ALIKE
    assert explained(np.full_like(face, 90), np.full_like(face, 91), still) == 1.0


def test_a_mouth_that_opens_is_explained_and_a_hand_before_it_is_not() -> None:
    """Teeth appear where lips were; what lies around them separates an open mouth from a hand."""
    rest = rise("smile")[1][0]
    before, corners = rest.pixels.astype(np.float32), rest.landmarks[[61, 291], :2]
    (left, y), (right, _) = np.rint(corners).astype(int).tolist()
    opened, hidden = before.copy(), before.copy()
    cv2.ellipse(opened, ((left + right) // 2, y), ((right - left) // 2, 7), 0, 0, 360, 10.0, -1)
    hidden[y - 24 :, left - 8 : right + 9] = np.random.default_rng(3).uniform(
        60, 220, hidden[y - 24 :, left - 8 : right + 9].shape
    )
    assert explained(before, opened, STILL) < ALIKE < face_explained(before, opened, STILL, rest.landmarks)
    assert face_explained(before, hidden, STILL, rest.landmarks) < ALIKE
    assert face_explained(before, before, STILL, rest.landmarks) > 0.999


def test_a_mesh_outside_the_crop_leaves_all_of_it_to_compare() -> None:
    rest = rise("smile")[1][0]
    before = rest.pixels.astype(np.float32)
    assert face_explained(before, before[::-1].copy(), STILL, rest.landmarks + 500) < ALIKE


def test_brightness_and_contrast_are_matched() -> None:
    model = rise("smile")[1][0].pixels.astype(np.float32)
    assert np.abs(like(model * 0.8 + 20, model) - model).max() < 1.5


def test_reading_along_a_flow_undoes_it() -> None:
    rest = rise("smile")[1][0]
    flow = bump(64, 64, 3.0, -2.0, sigma=15)
    undone = read_along(moved(rest, flow).pixels.astype(np.float32), flow)
    assert np.abs(undone - rest.pixels)[10:-10, 10:-10].mean() < 2
