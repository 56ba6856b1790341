"""TV-L1 optical flow as the papers give it, in plain numpy, to be read beside them. Equivalent: cpu.solve.

The flow w = (u, v) minimizes the total variation of u and v plus lambda times the brightness that it leaves unexplained,

    sum |grad u| + |grad v| + lambda |moving(x + w) - fixed(x)|.

Brightness is made linear around a known flow w0, rho(w) = moving(x + w0) + g . (w - w0) - fixed(x) with g the gradient of the
warped picture, and an auxiliary flow a, tied to w by |w - a|^2 / (2 theta), splits the energy into two steps solved in turn:

    a = w + threshold(rho)                      pointwise, `threshold` below
    w = a + theta div p,   p = (p + tau/theta grad w) / (1 + tau/theta |grad w|)

Sources: Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007, for the method;
Sanchez, Meinhardt-Llopis and Facciolo, "TV-L1 Optical Flow Estimation", Image Processing On Line 3, 2013, for its discrete
form; Wedel, Pock, Zach, Bischof and Cremers, "An Improved Algorithm for TV-L1 Optical Flow", 2009, for the five-point
derivative, the mean of both pictures' gradients and the median filter; Keys, "Cubic Convolution Interpolation for Digital
Image Processing", IEEE TASSP 29, 1981.
"""

from __future__ import annotations

import numpy as np

from engine.ops.tvl1.method import CUBIC, METHOD, Method, beginning, gaussian, sizes
from engine.types import F32


def solve(fixed: F32, moving: F32, method: Method = METHOD, start: F32 | None = None) -> F32:
    """[H, W] float32 in 0..255, twice -> [2, H, W] float32 (u, v) in pixels; start is a flow near the sought one, if known."""
    levels, flow = beginning(sizes(fixed.shape[0], fixed.shape[1], method), start, method)
    fixed, moving = smooth(fixed, method.smoothing), smooth(moving, method.smoothing)
    pairs = [(fixed, moving)]
    for size in levels[1:]:
        pairs.append((resize(pairs[-1][0], size), resize(pairs[-1][1], size)))
    for size, (below_fixed, below_moving) in zip(reversed(levels), reversed(pairs), strict=True):
        flow = enlarge(flow, size)
        flow = _level(below_fixed, below_moving, flow, method)
    return flow


def _level(fixed: F32, moving: F32, flow: F32, method: Method) -> F32:
    """One level of the pyramid: warp, solve, warp again from the better flow."""
    dual = np.zeros((2, 2, *fixed.shape), np.float32)  # [component of the flow, direction of the derivative (x, y), H, W]
    for _ in range(method.warps):
        start = flow
        warped, slope = expand(fixed, moving, start)
        for _ in range(method.iterations):
            before = flow
            left_over = warped - fixed + (slope * (flow - start)).sum(0)
            auxiliary = flow + threshold(left_over, slope, method.lam * method.theta)
            flow = auxiliary + method.theta * divergence(dual)
            ascent = gradient(flow)
            length = np.sqrt((ascent**2).sum(1, keepdims=True))
            dual = (dual + method.tau / method.theta * ascent) / (1 + method.tau / method.theta * length)
            if ((flow - before) ** 2).sum(0).mean() < method.settled**2:
                break
        flow = np.stack([median(part, method.median) for part in flow])
    return flow.astype(np.float32)


def threshold(left_over: F32, slope: F32, bound: float) -> F32:
    """The step along the picture's gradient that explains its brightness best, at most bound * |g| long (IPOL, equation 12)."""
    steepness = (slope**2).sum(0)
    exact = -left_over / np.maximum(steepness, 1e-9)
    return np.asarray(np.clip(exact, -bound, bound) * slope, np.float32)


def expand(fixed: F32, moving: F32, flow: F32) -> tuple[F32, F32]:
    """moving(x + u, y + v) [H, W] and the gradient [2, H, W] of the linear brightness there.

    The gradient is the mean of the fixed picture's and the warped one's: noise in one alone would shorten the flow. Where the
    flow leaves the picture it is 0, so that only the neighbours decide.
    """
    height, width = moving.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + flow[0], y + flow[1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    warped_slope = np.stack([sample(part, x, y) for part in derivatives(moving)])
    return sample(moving, x, y), (derivatives(fixed) + warped_slope) / 2 * inside


def derivatives(picture: F32) -> F32:
    """[H, W] -> [2, H, W], along x and y, exact for polynomials up to the fourth degree, with the border repeated."""
    height, width = picture.shape
    padded = np.pad(picture, 2, mode="edge")

    def pixel(right: int, down: int) -> F32:
        return padded[2 + down : 2 + down + height, 2 + right : 2 + right + width]

    across = 8 * (pixel(1, 0) - pixel(-1, 0)) - (pixel(2, 0) - pixel(-2, 0))
    below = 8 * (pixel(0, 1) - pixel(0, -1)) - (pixel(0, 2) - pixel(0, -2))
    return np.asarray(np.stack([across, below]) / 12, np.float32)


def gradient(flow: F32) -> F32:
    """[2, H, W] -> [2, 2, H, W], forward differences along x and y, 0 at the far border (IPOL, equation 18)."""
    across = np.diff(flow, axis=2, append=flow[:, :, -1:])
    down = np.diff(flow, axis=1, append=flow[:, -1:, :])
    return np.stack([across, down], axis=1)


def divergence(dual: F32) -> F32:
    """[2, 2, H, W] -> [2, H, W], the negative adjoint of `gradient` (IPOL, equation 17); the far border holds 0."""
    return np.asarray(np.diff(dual[:, 0], axis=2, prepend=0) + np.diff(dual[:, 1], axis=1, prepend=0), np.float32)


def sample(picture: F32, x: F32, y: F32) -> F32:
    """Cubic interpolation (Keys) of [H, W] at places (x, y), with the border repeated outside."""
    height, width = picture.shape
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    out = np.zeros(x.shape)
    for row in range(-1, 3):
        for column in range(-1, 3):
            near = picture[np.clip(top + row, 0, height - 1), np.clip(left + column, 0, width - 1)]
            out += near * keys(x - (left + column)) * keys(y - (top + row))
    return out.astype(np.float32)


def keys(distance: F32) -> F32:
    """Weight of a pixel at a distance in pixels (Keys, equation 15)."""
    d = np.abs(distance)
    inner = ((CUBIC + 2) * d - (CUBIC + 3)) * d**2 + 1
    outer = CUBIC * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, inner, np.where(d < 2, outer, 0))


def resize(picture: F32, size: tuple[int, int]) -> F32:
    """Cubic resampling of [H, W] to another size; both pictures cover the same rectangle."""
    y, x = np.mgrid[: size[0], : size[1]]
    x, y = (x + 0.5) * (picture.shape[1] / size[1]) - 0.5, (y + 0.5) * (picture.shape[0] / size[0]) - 0.5
    return sample(picture, x.astype(np.float32), y.astype(np.float32))


def enlarge(flow: F32, size: tuple[int, int]) -> F32:
    """A flow [2, h, w] for a picture of another size: resampled, and its lengths in the pixels of that size."""
    _, height, width = flow.shape
    return np.stack([resize(flow[0], size) * (size[1] / width), resize(flow[1], size) * (size[0] / height)])


def smooth(picture: F32, sigma: float) -> F32:
    """Gaussian of [H, W], cut off at 3 sigma, with the border repeated."""
    kernel = gaussian(sigma)
    reach = len(kernel) // 2
    for axis, length in enumerate(picture.shape):
        padded = np.pad(picture, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        picture = np.asarray(sum(k * np.take(padded, range(i, i + length), axis) for i, k in enumerate(kernel)), np.float32)
    return picture


def median(picture: F32, side: int) -> F32:
    """Median of [H, W] over squares of side x side pixels, with the border repeated."""
    if side <= 1:
        return picture
    padded = np.pad(picture, side // 2, mode="edge")
    squares = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    return np.asarray(np.median(squares, axis=(2, 3)), np.float32)
