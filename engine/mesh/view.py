"""The part of a frame that one tracker sees: cut out, shrunk and coloured, and nothing done to the rest of the frame."""

from __future__ import annotations

import cv2
import numpy as np

from engine.types import U8, Frame


def rgb_window(frame: Frame, left: int, top: int, side: int, shrink: int = 1) -> U8:
    """The square of a frame as RGB, [side / shrink, side / shrink, 3], each pixel the mean of shrink x shrink of the frame's.

    The same as `cut_window` of `Frame.rgb`; where it is shrunk, left, top and side are multiples of 2 * shrink.
    """
    step = 2 * shrink if frame.layout == "i420" else shrink
    rows, columns = _within(top, side, frame.height, step), _within(left, side, frame.width, step)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return np.zeros((side // shrink, side // shrink, 3), np.uint8)
    if frame.layout == "i420":
        part = _yuv_part(frame, rows, columns, shrink)
    else:
        part = _shrunk(frame.pixels[rows, columns], shrink)
        part = np.asarray(cv2.cvtColor(part, cv2.COLOR_GRAY2RGB), np.uint8) if frame.layout == "grey" else part
    return cut_window(part, (left - columns.start) // shrink, (top - rows.start) // shrink, side // shrink)


def cut_window(picture: U8, left: int, top: int, side: int) -> U8:
    """The square [side, side(, 3)] of a picture; what lies outside the picture is its border repeated."""
    high, wide = picture.shape[:2]
    rows = slice(max(top, 0), max(min(top + side, high), 0))
    columns = slice(max(left, 0), max(min(left + side, wide), 0))
    inner = picture[rows, columns]
    if inner.size == 0:
        return np.zeros((side, side, *picture.shape[2:]), np.uint8)
    if inner.shape[:2] == (side, side):
        return np.ascontiguousarray(inner)
    pads = (rows.start - top, top + side - rows.stop, columns.start - left, left + side - columns.stop)
    return np.asarray(cv2.copyMakeBorder(inner, *pads, cv2.BORDER_REPLICATE), np.uint8)


def _within(start: int, side: int, limit: int, step: int) -> slice:
    """The whole steps inside a picture that hold start to start + side."""
    first = max(start, 0) // step * step
    return slice(first, min(-(-(start + side) // step), limit // step) * step)


def _yuv_part(frame: Frame, rows: slice, columns: slice, shrink: int) -> U8:
    """A part of an I420 frame as RGB: its planes are shrunk first, then coloured."""
    high, wide = frame.height, frame.width
    chroma = frame.pixels.reshape(-1)[high * wide :].reshape(2, high // 2, wide // 2)
    halves = (slice(rows.start // 2, rows.stop // 2), slice(columns.start // 2, columns.stop // 2))
    planes = [frame.pixels[rows, columns], *(plane[halves] for plane in chroma)]
    packed = np.concatenate([_shrunk(plane, shrink).reshape(-1) for plane in planes])
    packed = packed.reshape(-1, (columns.stop - columns.start) // shrink)
    return np.asarray(cv2.cvtColor(packed, cv2.COLOR_YUV2RGB_I420), np.uint8)


def _shrunk(picture: U8, shrink: int) -> U8:
    if shrink == 1:
        return picture
    high, wide = picture.shape[0] // shrink, picture.shape[1] // shrink
    return np.asarray(cv2.resize(picture, (wide, high), interpolation=cv2.INTER_AREA), np.uint8)
