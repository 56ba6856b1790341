"""A picture through an affine map, in machine code.

Equivalents: `engine.registration.warp.sample_by_opencv`, `shrink_by_opencv`.

One row of the result after the other, in three loops that LLVM turns into SIMD: where its pixels lie and their weights, the
four by four pixels around each place (four to a word), and their weighted sum.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# ruff: noqa: PLR0917

from __future__ import annotations

import numpy as np

from engine.kernels.machine import SUMS, part

KEYS = np.float32(-0.75)  # OpenCV's: sharper than the -0.5 that Keys (1981) recommends
ZERO, ONE, TWO, THREE, HALF, WHITE = (np.float32(n) for n in (0, 1, 2, 3, 0.5, 255))
BYTE, EIGHT, SIXTEEN, TWENTY_FOUR = (np.uint32(n) for n in (255, 8, 16, 24))
SECOND, THIRD, FOURTH = (np.uintp(n) for n in (1, 2, 3))
FINE, PART = 65536.0, np.float32(1 / 65536)  # places are counted in so small parts of a pixel
BITS, LAST = np.int32(16), np.int32(65535)


@part(SUMS)
def four_pixels(pixels, first):
    """Four pixels side by side as one word; LLVM reads them at once."""
    low = np.uint32(pixels[first]) | np.uint32(pixels[first + SECOND]) << EIGHT
    return low | np.uint32(pixels[first + THIRD]) << SIXTEEN | np.uint32(pixels[first + FOURTH]) << TWENTY_FOUR


@part(SUMS)
def grey(word, shift):
    """One of a word's four pixels."""
    return np.float32(np.int32((word >> shift) & BYTE))


@part(SUMS)
def cubic_weights(f):
    """Weights of the four pixels around a place that lies the fraction f behind the second one."""
    g = ONE - f
    second = ((KEYS + TWO) * f - (KEYS + THREE)) * f * f + ONE
    third = ((KEYS + TWO) * g - (KEYS + THREE)) * g * g + ONE
    return KEYS * f * g * g, second, third, KEYS * g * f * f


def sampled(pixels, stride, xx, xy, x0, yx, yy, y0, side):
    """[side, side] of a picture [H * stride] uint8: its grey at (xx x + xy y + x0, yx x + yy y + y0), bicubic, rounded.

    The four by four pixels around every such place must lie in the picture, and no place further off than 32,767 pixels.
    """
    out = np.empty((side, side), np.uint8)
    places, weights, words = np.empty(side, np.intp), np.empty((8, side), np.float32), np.empty((4, side), np.uint32)
    steps = np.empty((2, side), np.int32)
    for x in range(side):
        steps[0, x], steps[1, x] = np.rint(xx * x * FINE), np.rint(yx * x * FINE)
    for y in range(side):
        first_u, first_v = np.int32(np.rint((xy * y + x0) * FINE)), np.int32(np.rint((yy * y + y0) * FINE))
        for x in range(side):
            u, v = np.int32(first_u + steps[0, x]), np.int32(first_v + steps[1, x])
            places[x] = (np.intp(v >> BITS) - 1) * stride + np.intp(u >> BITS) - 1
            weights[0, x], weights[1, x], weights[2, x], weights[3, x] = cubic_weights(np.float32(u & LAST) * PART)
            weights[4, x], weights[5, x], weights[6, x], weights[7, x] = cubic_weights(np.float32(v & LAST) * PART)
        for x in range(side):
            for k in range(4):
                words[k, x] = four_pixels(pixels, np.uintp(places[x] + k * stride))
        for x in range(side):
            total = HALF
            a, b, c, d = weights[0, x], weights[1, x], weights[2, x], weights[3, x]
            for k in range(4):
                word = words[k, x]
                left_half = a * grey(word, np.uint32(0)) + b * grey(word, EIGHT)
                total += weights[4 + k, x] * (left_half + c * grey(word, SIXTEEN) + d * grey(word, TWENTY_FOUR))
            out[y, x] = np.uint8(np.int32(min(max(total, ZERO), WHITE)))
    return out


def averaged(pixels, stride, high, wide, side):
    """[high, wide]: the means of squares of side x side pixels of a picture [H * stride] uint8."""
    out, line = np.empty((high, wide), np.uint8), np.empty(wide * side, np.uint16)
    share = np.float32(1 / (side * side))
    for y in range(high):
        row = np.uintp(y * side * stride)
        for x in range(wide * side):
            line[x] = pixels[row + np.uintp(x)]
        for k in range(1, side):
            below = row + np.uintp(k * stride)
            for x in range(wide * side):
                line[x] += pixels[below + np.uintp(x)]
        for x in range(wide):
            total = np.int32(0)
            for k in range(side):
                total += np.int32(line[x * side + k])
            out[y, x] = np.uint8(np.int32(np.rint(np.float32(total) * share)))
    return out


_PIXELS = "Array(uint8, 1, 'C', readonly=True)"
SAMPLED = f"uint8[:, ::1]({_PIXELS}, intp, {'float64, ' * 6}intp)"
"""numba's signature of `sampled`."""

AVERAGED = f"uint8[:, ::1]({_PIXELS}, intp, intp, intp, intp)"
"""numba's signature of `averaged`."""
