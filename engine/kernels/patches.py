"""Patches of a reference picture found again in another one (Lucas and Kanade 1981), in machine code.

The steps are those of OpenCV's pyramidal tracker (Bouguet 2001) on its finest level, stopping rules and all. What depends on
the reference alone, the patches' pixels and slopes, is computed once and not for every picture.
Equivalent: `engine.registration.patches.Patches.find_by_opencv`.

Pictures lie in a frame of FRAME pixels. A patch of SIDE x SIDE pixels has rows of WIDE, so that they are whole SIMD registers:
the slopes behind its own pixels are 0, and so is what these add to any sum.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# ruff: noqa: PLR0917

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from engine.kernels.machine import SUMS, part
from engine.types import F32, F64, U8

SIDE, WIDE, FRAME = 27, 32, 32
CELLS = SIDE * WIDE
STEPS, SETTLED, SWAYS = 12, 0.005, 0.01  # most steps; shorter ones end it, and so do such that undo the one before
FLATTEST = 0.1024  # smaller eigenvalue of a patch's structure tensor, grey levels squared a pixel, under which it is lost
NEVER = np.float32(1e9)
NEXT = np.uintp(1)
ZERO, ONE, HALF, WHITE = (np.float32(n) for n in (0, 1, 0.5, 255))
OWN = np.repeat([np.arange(WIDE) < SIDE], SIDE, axis=0).astype(np.float32).ravel()


def cut(picture: U8, places: F64) -> tuple[F32, F64]:
    """What `follow` needs of the patches around places [P, 2] of a reference picture.

    [P, 3, CELLS]: each patch's grey and its slopes along x and y; [P, 3]: the sums of the slopes' products xx, xy, yy. As with
    OpenCV the picture is mirrored at its border, and has no slopes behind it.
    """
    around: Any = {"top": SIDE, "bottom": SIDE, "left": SIDE, "right": SIDE}
    sobel: Any = {"ddepth": cv2.CV_32F, "scale": 1 / 32, "borderType": cv2.BORDER_REFLECT_101}
    slopes = cv2.Scharr(picture, dx=1, dy=0, **sobel), cv2.Scharr(picture, dx=0, dy=1, **sobel)
    grey = cv2.copyMakeBorder(picture, **around, borderType=cv2.BORDER_REFLECT_101).astype(np.float32)
    planes = [grey, *(cv2.copyMakeBorder(one, **around, borderType=cv2.BORDER_CONSTANT) for one in slopes)]
    squares = np.zeros((len(places), 3, SIDE, WIDE), np.float32)
    for patch, (x, y) in zip(squares, places, strict=True):
        for k, plane in enumerate(planes):
            patch[k, :, :SIDE] = cv2.getRectSubPix(plane, (SIDE, SIDE), (x + SIDE, y + SIDE))
    patches = squares.reshape(len(places), 3, CELLS)
    along_x, along_y = patches[:, 1].astype(np.float64), patches[:, 2].astype(np.float64)
    products = [(one * other).sum(axis=1) for one, other in ((along_x, along_x), (along_x, along_y), (along_y, along_y))]
    return patches, np.stack(products, axis=1)


@part(SUMS)
def read(picture, size, left, top, out):
    """The window [CELLS] whose corner is (left, top), pixels of the picture; False where that lies beyond the border."""
    column, row = np.floor(left), np.floor(top)
    if not (-SIDE <= column < size and -SIDE <= row < size):
        return False
    stride = size + 2 * FRAME
    x, y = np.float32(left - column), np.float32(top - row)
    a, b, c, d = (ONE - x) * (ONE - y), x * (ONE - y), (ONE - x) * y, x * y
    corner, step = np.uintp((np.intp(row) + FRAME) * stride + np.intp(column) + FRAME), np.uintp(stride)
    for k in range(SIDE):
        upper, start = corner + np.uintp(k) * step, np.uintp(k * WIDE)
        for n in range(WIDE):
            i, j = upper + np.uintp(n), upper + step + np.uintp(n)
            out[start + np.uintp(n)] = a * picture[i] + b * picture[i + NEXT] + c * picture[j] + d * picture[j + NEXT]
    return True


@part(SUMS)
def pull(window, patch):
    """Sums of what a window differs from a patch times the patch's slopes along x and y."""
    across, down = ZERO, ZERO
    for k in range(CELLS):
        rest = window[k] - patch[0, k]
        across += rest * patch[1, k]
        down += rest * patch[2, k]
    return across, down


@part(SUMS)
def difference(window, patch):
    """By how many grey levels a window differs from a patch, the mean over its pixels."""
    total = ZERO
    for k in range(CELLS):
        total += abs(window[k] - patch[0, k]) * OWN[k]
    return total / np.float32(SIDE * SIDE)


@part(SUMS)
def search(picture, size, left, top, patch, products, window):
    """(x, y) by which a patch is found away from (left, top), and the mean difference there, or NEVER."""
    xx, xy, yy = products
    x, y, before_x, before_y = 0.0, 0.0, 0.0, 0.0
    determinant = xx * yy - xy * xy
    smaller = (xx + yy - math.sqrt((xx - yy) * (xx - yy) + 4 * xy * xy)) / 2
    if smaller < FLATTEST * SIDE * SIDE or determinant <= 0:
        return x, y, NEVER
    for step in range(STEPS):
        if not read(picture, size, left + x, top + y, window):
            return x, y, NEVER
        across, down = pull(window, patch)
        dx, dy = (xy * down - yy * across) / determinant, (xy * across - xx * down) / determinant
        x, y = x + dx, y + dy
        if dx * dx + dy * dy <= SETTLED * SETTLED:
            break
        if step > 0 and abs(dx + before_x) < SWAYS and abs(dy + before_y) < SWAYS:
            x, y = x - dx / 2, y - dy / 2
            break
        before_x, before_y = dx, dy
    return x, y, difference(window, patch) if read(picture, size, left + x, top + y, window) else NEVER


def follow(picture, size, places, patches, products, starts, most):
    """Displacement [P, 2] of each patch from its place [P, 2], and 1 where it was found, else 0: [P].

    picture is as `levelled` makes it, of size x size pixels; patches and products are as `cut` makes them; starts [P, 2] are
    the displacements to begin with. A patch is not found that has no texture, leaves the picture or differs by `most` grey
    levels.
    """
    motion, found, window = np.empty_like(starts), np.zeros(len(places)), np.empty(CELLS, np.float32)
    for n in range(len(places)):
        left, top = places[n, 0] - SIDE // 2 + starts[n, 0], places[n, 1] - SIDE // 2 + starts[n, 1]
        sums = products[n, 0], products[n, 1], products[n, 2]
        x, y, error = search(picture, size, left, top, patches[n], sums, window)
        motion[n, 0], motion[n, 1] = starts[n, 0] + x, starts[n, 1] + y
        found[n] = 1.0 if error < most else 0.0
    return motion, found


@part(SUMS)
def light(canvas, edge):
    """Mean and deviation of the grey levels further than `edge` from the border."""
    size = len(canvas) - 2 * edge
    total, squares = np.int64(0), np.int64(0)
    for row in range(edge, edge + size):
        sum_, sum_of_squares = np.int32(0), np.int32(0)
        for column in range(edge, edge + size):
            grey = np.int32(canvas[row, column])
            sum_ += grey
            sum_of_squares += grey * grey
        total, squares = total + np.int64(sum_), squares + np.int64(sum_of_squares)
    mean = total / (size * size)
    return mean, math.sqrt(max(squares / (size * size) - mean * mean, 0.0))


@part(SUMS)
def mirror(picture, size):
    """Fills the frame around a picture that lies in the middle of its array: mirrored, the border itself once."""
    stride, last = size + 2 * FRAME, FRAME + size - 1
    for row in range(FRAME, FRAME + size):
        for k in range(1, FRAME + 1):
            picture[row * stride + FRAME - k] = picture[row * stride + FRAME + k]
            picture[row * stride + last + k] = picture[row * stride + last - k]
    for k in range(1, FRAME + 1):
        for column in range(stride):
            picture[(FRAME - k) * stride + column] = picture[(FRAME + k) * stride + column]
            picture[(last + k) * stride + column] = picture[(last - k) * stride + column]


def levelled(canvas, edge, mean, deviation, stays, top, left):
    """A canvas [S, S] uint8, S > FRAME, in the reference's light, its eyes painted over, in its frame: what `follow` takes.

    mean and deviation are the reference's within `edge` of the border, stays [h, w] the share of what stays, from (left, top).
    """
    size, (high, wide) = len(canvas), stays.shape
    stride = size + 2 * FRAME
    here, spread = light(canvas, edge)
    gain = np.float32(deviation / max(spread, 1.0))
    lift, grey = np.float32(mean - gain * here), np.float32(mean)
    out = np.empty(stride * stride, np.float32)
    for row in range(size):
        start = (row + FRAME) * stride + FRAME
        for column in range(size):
            out[start + column] = min(np.float32(np.int32(abs(gain * canvas[row, column] + lift) + HALF)), WHITE)
    for row in range(high):
        start = (row + top + FRAME) * stride + FRAME + left
        for column in range(wide):
            out[start + column] = np.float32(np.int32((out[start + column] - grey) * stays[row, column] + grey + HALF))
    mirror(out, size)
    return out


_TABLE = "float64[:, ::1]"
FOLLOW = f"Tuple(({_TABLE}, float64[::1]))(float32[::1], intp, {_TABLE}, float32[:, :, ::1], {_TABLE}, {_TABLE}, float64)"
"""numba's signature of `follow`."""

LEVELLED = "float32[::1](uint8[:, ::1], intp, float64, float64, float32[:, ::1], intp, intp)"
"""numba's signature of `levelled`."""
