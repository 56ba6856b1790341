"""The tables, against the functions of OpenCV that the CPU's steps call."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.geometry import CROP_SIDE, MAP_SIDE
from engine.recognition.tables import averaging, blurring, face_window


@pytest.mark.parametrize(("sigma", "apart"), [(4.0, 1e-6), (24.0, 1e-6)])
def test_a_lines_blur_is_opencvs(sigma: float, apart: float) -> None:
    picture = np.random.default_rng(1).random((CROP_SIDE, CROP_SIDE)).astype(np.float32)
    line = blurring(sigma)
    np.testing.assert_allclose(line @ picture @ line.T, cv2.GaussianBlur(picture, (0, 0), sigma), atol=apart)


@pytest.mark.parametrize("length", [MAP_SIDE, 100, CROP_SIDE, 224])
def test_the_means_over_cells_are_opencvs(length: int) -> None:
    picture = np.random.default_rng(2).random((length, length)).astype(np.float32)
    means = averaging(length)
    resized = cv2.resize(picture, (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(means @ picture @ means.T, resized, atol=1e-6)


def test_the_middle_of_the_face_counts_most() -> None:
    window = face_window(CROP_SIDE, CROP_SIDE)
    line = cv2.getGaussianKernel(CROP_SIDE, CROP_SIDE / 4)
    np.testing.assert_allclose(window, line @ line.T, atol=1e-6)  # OpenCV rounds its own a little
    assert window.argmax() == 63 * CROP_SIDE + 63 and window.sum() == pytest.approx(1, abs=1e-6)
