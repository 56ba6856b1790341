"""A frame's grey levels -> the canvas, the registered crop with a margin around it, or the crop itself."""

from __future__ import annotations

import cv2
import numpy as np

from engine.geometry import apply, compose
from engine.kernels import Compiled, machine_code
from engine.registration.head import CANVAS
from engine.types import F64, U8

SPARE = 5  # pixels around the sampled part, so that the kernel meets no border
MAX_SHRINK = 257  # a line of so many white pixels overflows the machine code's sum
FAR = 3e4  # pixels; places further away, or not finite, are left to OpenCV


def warp(grey: U8, transform: F64, side: int = CANVAS) -> U8:
    """[side, side] of a grey frame [H, W] through transform [2, 3] (frame to canvas pixels), averaged where it shrinks.

    Black where the frame shrinks to less than half a pixel.
    """
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    if scale * min(grey.shape) < 0.5:
        return np.zeros((side, side), np.uint8)
    shrink = int(1 / scale + 0.25) if scale < 0.8 else 1
    if shrink <= 1:
        return _sample(grey, transform, side)
    inverse = np.asarray(cv2.invertAffineTransform(transform), np.float64)
    corners = apply(inverse, np.array([(0.0, 0.0), (0, side), (side, 0), (side, side)]))
    left, top = np.maximum(np.floor(corners.min(axis=0)) - SPARE * shrink, 0).astype(int) // shrink * shrink
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + SPARE * shrink
    part = grey[top:bottom, left:right]
    if part.shape[0] < shrink or part.shape[1] < shrink:
        return np.zeros((side, side), np.uint8)
    small = _shrunk(part, shrink)
    half = (shrink - 1) / 2
    unshrink = np.array([[shrink, 0, left + half], [0, shrink, top + half]], float)
    return _sample(small, compose(transform, unshrink), side)


def shrink_by_opencv(part: U8, by: int) -> U8:
    """The means of the whole squares of by x by pixels of a picture."""
    high, wide = part.shape[0] // by, part.shape[1] // by
    return np.asarray(cv2.resize(part[: high * by, : wide * by], (wide, high), interpolation=cv2.INTER_AREA), np.uint8)


def shrink_by_machine_code(part: U8, by: int, average: Compiled) -> U8:
    """Equals `shrink_by_opencv`."""
    part = np.ascontiguousarray(part)
    return np.asarray(average(part.ravel(), part.shape[1], part.shape[0] // by, part.shape[1] // by, by), np.uint8)


def sample_by_opencv(grey: U8, transform: F64, side: int) -> U8:
    """[side, side] of a picture through a transform, bicubic, its border repeated."""
    flags, border = cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(grey, transform, (side, side), flags=flags, borderMode=border), np.uint8)


def sample_by_machine_code(grey: U8, transform: F64, side: int, sample: Compiled) -> U8:
    """`sample_by_opencv` within one grey level."""
    (xx, xy, x0), (yx, yy, y0) = cv2.invertAffineTransform(transform).tolist()
    last, (height, width) = side - 1, grey.shape
    left, right = x0 + last * (min(xx, 0.0) + min(xy, 0.0)), x0 + last * (max(xx, 0.0) + max(xy, 0.0))
    top, bottom = y0 + last * (min(yx, 0.0) + min(yy, 0.0)), y0 + last * (max(yx, 0.0) + max(yy, 0.0))
    if not (-FAR < left <= right < FAR and -FAR < top <= bottom < FAR):
        return sample_by_opencv(grey, transform, side)
    if left < 2 or top < 2 or right >= width - 3 or bottom >= height - 3:  # a pixel to spare for rounding
        first_x, first_y = int(left) - 4, int(top) - 4
        rows, columns = np.arange(first_y, int(bottom) + 5), np.arange(first_x, int(right) + 5)
        grey = grey[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)]
        x0, y0 = x0 - first_x, y0 - first_y
    grey = np.ascontiguousarray(grey)
    return np.asarray(sample(grey.ravel(), grey.shape[1], xx, xy, x0, yx, yy, y0, side), np.uint8)


def _shrunk(part: U8, by: int) -> U8:
    code = machine_code()
    if code is None or not 2 < by < MAX_SHRINK:  # for squares of two OpenCV is fastest
        return shrink_by_opencv(part, by)
    return shrink_by_machine_code(part, by, code.average)


def _sample(grey: U8, transform: F64, side: int) -> U8:
    code = machine_code()
    if code is None:
        return sample_by_opencv(grey, transform, side)
    return sample_by_machine_code(grey, transform, side, code.sample)
