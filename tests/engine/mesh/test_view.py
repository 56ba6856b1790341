from __future__ import annotations

from typing import get_args

import cv2
import numpy as np
import pytest

from engine.mesh.view import cut_window, rgb_window
from engine.types import U8, Frame, Layout
from tests.faces import photo

PICTURE = photo("hopper", 0.6)[:240, :180]
CODES = {"grey": cv2.COLOR_RGB2GRAY, "i420": cv2.COLOR_RGB2YUV_I420}
PLACES = [(10, 20, 48), (-13, 101, 77), (121, 199, 100), (-40, -60, 320), (33, 7, 51)]
"""left, top, side: inside, over the left edge, over the corner, all around the picture, odd."""


def in_layout(layout: Layout, picture: U8 = PICTURE) -> Frame:
    code = CODES.get(layout)
    pixels = picture if code is None else np.asarray(cv2.cvtColor(picture, code), np.uint8)
    return Frame(0, 0.0, pixels, layout)


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("place", PLACES)
def test_a_window_is_the_frames_own_colours(layout: Layout, place: tuple[int, int, int]) -> None:
    frame = in_layout(layout)
    assert np.array_equal(rgb_window(frame, *place), cut_window(frame.rgb, *place))


@pytest.mark.parametrize("layout", ["rgb", "grey"])
def test_the_last_odd_row_and_column_are_seen(layout: Layout) -> None:
    frame = in_layout(layout, PICTURE[:101, :77])
    assert np.array_equal(rgb_window(frame, 40, 60, 61), cut_window(frame.rgb, 40, 60, 61))


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize(("left", "top", "side"), [(12, 24, 96), (-24, 60, 120), (96, 180, 120)])
def test_a_shrunk_window_is_the_mean_of_its_pixels(layout: Layout, left: int, top: int, side: int) -> None:
    frame = in_layout(layout)
    whole = cut_window(frame.rgb, left, top, side).astype(float)
    means = whole.reshape(side // 3, 3, side // 3, 3, 3).mean(axis=(1, 3))
    rows, columns = (np.arange(side // 3) * 3 + first for first in (top, left))
    inside = np.outer((rows >= 0) & (rows < frame.height), (columns >= 0) & (columns < frame.width))
    luma = np.array([0.299, 0.587, 0.114])
    apart = np.abs(rgb_window(frame, left, top, side, 3) @ luma - means @ luma)[inside]
    assert inside.sum() > 400 and apart.mean() < 1.0


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("place", [(500, 20, 40), (20, -90, 40), (-48, -48, 48)])
def test_a_window_beside_the_picture_is_black(layout: Layout, place: tuple[int, int, int]) -> None:
    window = rgb_window(in_layout(layout), *place)
    assert window.shape == (place[2], place[2], 3) and not window.any()


@pytest.mark.parametrize(("left", "top"), [(0, 0), (-5, 3), (12, -4), (15, 12), (-30, 0), (40, 40)])
def test_a_window_over_the_border_keeps_its_place(left: int, top: int) -> None:
    picture: U8 = np.arange(20 * 24, dtype=np.uint32).astype(np.uint8).reshape(20, 24)
    window = cut_window(picture, left, top, 10)
    assert window.shape == (10, 10)
    for row, column in np.ndindex(10, 10):
        if 0 <= top + row < 20 and 0 <= left + column < 24:
            assert window[row, column] == picture[top + row, left + column]
