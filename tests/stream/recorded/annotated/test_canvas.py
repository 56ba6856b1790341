from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.types import U8, Frame
from stream.recorded.annotated.canvas import Canvas, fitted, text_width, yuv


def rgb_of(canvas: Canvas) -> U8:
    return np.asarray(cv2.cvtColor(canvas.pixels, cv2.COLOR_YUV2RGB_I420), np.uint8)


def noise(height: int, width: int) -> U8:
    return np.random.default_rng(0).integers(16, 236, (height, width), np.uint8)


@pytest.mark.parametrize("colour", ["#000000", "#FFFFFF", "#D55E00", "#0072B2"])
def test_a_canvas_has_its_colour(colour: str) -> None:
    expected = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    assert np.abs(rgb_of(Canvas(8, 4, colour)).astype(int) - expected).max() <= 3
    assert yuv("#FFFFFF") == (235, 128, 128)


def test_planes_are_shown_unchanged_and_stay_so_where_nothing_is_drawn() -> None:
    pixels, canvas = noise(90, 80), Canvas(80, 60)
    assert canvas.show(Frame(0, 0.0, pixels, "i420"), 80, 60) == (0, 0)
    assert (canvas.pixels == pixels).all()
    canvas.lines([np.array([(10.0, 10.0), (30.0, 20.0)])], "#FFFFFF", 2)
    canvas.text((12, 40), "ab", "#FFFFFF", 12)
    changed = canvas.pixels[:60] != pixels[:60]
    assert changed[10:20, 10:30].any() and changed[28:42, 12:40].any()
    changed[6:24, 6:34] = changed[26:46, 10:40] = False
    assert not changed.any()


@pytest.mark.parametrize("layout", ["grey", "rgb"])
def test_odd_pictures_are_extended(layout: str) -> None:
    canvas = Canvas(8, 6, "#FFFFFF")
    pixels = np.full((5, 7) if layout == "grey" else (5, 7, 3), 100, np.uint8)
    canvas.show(Frame(0, 0.0, pixels, "grey" if layout == "grey" else "rgb"), 8, 6)
    assert len(np.unique(canvas.pixels[:6])) == 1
    assert np.unique(canvas.pixels[6:]).tolist() == [128]


def test_a_smaller_frame_is_shown_in_the_middle_of_black() -> None:
    canvas = Canvas(40, 30, "#FFFFFF")
    assert canvas.show(Frame(0, 0.0, np.full((10, 20), 200, np.uint8), "grey"), 40, 20) == (10, 4)
    luma = canvas.pixels[:30]
    assert (luma[4:14, 10:30] == 200).all()
    assert (luma[:4] == 16).all() and (luma[14:20] == 16).all() and (luma[:20, :10] == 16).all()
    assert (luma[20:] == 235).all()


def test_a_rectangle_covers_what_is_there_by_alpha() -> None:
    canvas = Canvas(20, 20)
    canvas.fill((4, 6, 10, 12), "#FFFFFF", 0.5)
    canvas.fill((-5, -5, 2, 2), "#FFFFFF")
    canvas.fill((30, 30, 40, 40), "#FFFFFF")
    luma = canvas.pixels[:20]
    assert np.abs(luma[6:12, 4:10].astype(int) - (16 + 235) // 2).max() <= 1
    assert (luma[:2, :2] == 235).all()
    assert (luma > 16).sum() == 36 + 4


def test_lines_are_antialiased_and_where_they_should_be() -> None:
    canvas = Canvas(64, 64)
    canvas.lines([np.array([(5.0, 20.5), (58.0, 20.5)])], "#FFFFFF", 2)
    rows = canvas.pixels[:64, 32].astype(float) - 16
    assert (rows @ np.arange(64)) / rows.sum() == pytest.approx(20.5, abs=0.2)
    canvas = Canvas(64, 64)
    canvas.lines([np.array([(5.0, 5.0), (58.0, 30.0)])], "#FFFFFF")
    assert len(np.unique(canvas.pixels[:64])) > 5


def test_colour_is_where_the_line_is() -> None:
    canvas = Canvas(64, 64)
    canvas.area(np.array([(20.0, 20.0), (43.0, 20.0), (43.0, 43.0), (20.0, 43.0)]), "#D55E00")
    shown = rgb_of(canvas)
    assert np.abs(shown[24:40, 24:40].astype(int) - (0xD5, 0x5E, 0x00)).max() <= 3
    assert shown[:18].max() <= 3 and shown[46:].max() <= 3


def test_what_lies_outside_is_cut_off() -> None:
    canvas = Canvas(32, 32)
    canvas.lines([np.array([(-50.0, -50.0), (100.0, 100.0)])], "#FFFFFF", 3)
    canvas.lines([np.zeros((0, 2))], "#FFFFFF")
    for x, y in ((-10, 10), (28, 10), (5, 2), (5, 36), (200, 200), (-200, 5)):
        canvas.text((x, y), "wide text", "#FFFFFF", 12)
    assert canvas.pixels[:32].max() == 235


def test_text_fits_where_it_should() -> None:
    assert text_width("uncertain", 20) < text_width("uncertain", 40)
    assert fitted("surprise", 1000, 14) == "surprise"
    short = fitted("unlike known expressions", 80, 14)
    assert short.endswith("…") and 40 < text_width(short, 14) <= 80
    assert fitted("surprise", 3, 14) == ""
