"""TV-L1 optical flow as the papers give it, in plain numpy, to be read beside them. Twin: cpu.solve.

The flow w = (u, v) minimizes the total variation of u and v plus lambda times the brightness that it leaves unexplained,

    sum |grad u| + |grad v| + lambda |moving(x + w) - fixed(x)|.

Brightness is made linear around a known flow w0, rho(w) = moving(x + w0) + g . (w - w0) - fixed(x) with g the gradient of the
warped picture, and an auxiliary flow a, tied to w by |w - a|^2 / (2 theta), splits the energy into two steps solved in turn:

    a = w + threshold(rho)                      pointwise, equation (3) below
    w = a + theta div p,   p = (p + tau/theta grad w) / (1 + tau/theta |grad w|)

Sources: Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007; Sanchez,
Meinhardt-Llopis and Facciolo, "TV-L1 Optical Flow Estimation", Image Processing On Line 3, 2013 (its equations 10 to 19).
"""

from __future__ import annotations

import numpy as np

from engine.ops.tvl1.method import METHOD, Method, sizes
from engine.types import F32


def solve(fixed: F32, moving: F32, method: Method = METHOD) -> F32:
    """[H, W] float32 in 0..255, twice -> [2, H, W] float32 (u, v) in pixels."""
    levels = sizes(fixed.shape[0], fixed.shape[1], method)
    fixed, moving = smooth(fixed, method.smoothing), smooth(moving, method.smoothing)
    pairs = [(fixed, moving)]
    for size in levels[1:]:
        pairs.append((resize(pairs[-1][0], size), resize(pairs[-1][1], size)))
    flow = np.zeros((2, *levels[-1]), np.float32)
    for size, (below_fixed, below_moving) in zip(reversed(levels), reversed(pairs), strict=True):
        flow = enlarge(flow, size)
        flow = _level(below_fixed, below_moving, flow, method)
    return flow


def _level(fixed: F32, moving: F32, flow: F32, method: Method) -> F32:
    """One level of the pyramid: warp, solve, warp again from the better flow."""
    dual = np.zeros((2, 2, *fixed.shape), np.float32)  # [component of the flow, direction of the derivative (x, y), H, W]
    for _ in range(method.warps):
        flow = np.stack([median(part, method.median) for part in flow])
        start = np.round(flow * 32) / 32  # any point will do for the expansion; this one is exact in the fast path's sampling
        warped, slope = warp(moving, start)
        for _ in range(method.iterations):
            left_over = warped - fixed + (slope * (flow - start)).sum(0)
            auxiliary = flow + threshold(left_over, slope, method.lam * method.theta)
            flow = auxiliary + method.theta * divergence(dual)
            ascent = gradient(flow)
            length = np.sqrt((ascent**2).sum(1, keepdims=True))
            dual = (dual + method.tau / method.theta * ascent) / (1 + method.tau / method.theta * length)
    return flow.astype(np.float32)


def threshold(left_over: F32, slope: F32, bound: float) -> F32:
    """The step along the picture's gradient that explains its brightness best, at most bound * |g| long (IPOL, equation 12)."""
    steepness = (slope**2).sum(0)
    exact = -left_over / np.maximum(steepness, 1e-9)
    return np.asarray(np.clip(exact, -bound, bound) * slope, np.float32)


def warp(moving: F32, flow: F32) -> tuple[F32, F32]:
    """moving(x + u, y + v) [H, W] and its gradient [2, H, W]; where the flow leaves the picture the gradient is 0."""
    height, width = moving.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + flow[0], y + flow[1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    across, down = central(moving)
    return sample(moving, x, y), np.stack([sample(across, x, y), sample(down, x, y)]) * inside


def central(picture: F32) -> F32:
    """[H, W] -> [2, H, W], central differences along x and y with the border repeated."""
    padded = np.pad(picture, 1, mode="edge")
    return np.stack([padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]]) / 2


def gradient(flow: F32) -> F32:
    """[2, H, W] -> [2, 2, H, W], forward differences along x and y, 0 at the far border (IPOL, equation 18)."""
    across = np.diff(flow, axis=2, append=flow[:, :, -1:])
    down = np.diff(flow, axis=1, append=flow[:, -1:, :])
    return np.stack([across, down], axis=1)


def divergence(dual: F32) -> F32:
    """[2, 2, H, W] -> [2, H, W], the negative adjoint of `gradient` (IPOL, equation 17); the far border holds 0."""
    return np.asarray(np.diff(dual[:, 0], axis=2, prepend=0) + np.diff(dual[:, 1], axis=1, prepend=0), np.float32)


def sample(picture: F32, x: F32, y: F32) -> F32:
    """Bilinear interpolation of [H, W] at places (x, y), with the border repeated outside."""
    height, width = picture.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = x - left, y - top
    upper = picture[top, left] * (1 - across) + picture[top, right] * across
    lower = picture[bottom, left] * (1 - across) + picture[bottom, right] * across
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


def resize(picture: F32, size: tuple[int, int]) -> F32:
    """Bilinear resampling of [H, W] to another size; both pictures cover the same rectangle."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return sample(picture, (x + 0.5) * (picture.shape[1] / width) - 0.5, (y + 0.5) * (picture.shape[0] / height) - 0.5)


def enlarge(flow: F32, size: tuple[int, int]) -> F32:
    """A flow [2, h, w] for a picture of another size: resampled, and its lengths in the pixels of that size."""
    _, height, width = flow.shape
    return np.stack([resize(flow[0], size) * (size[1] / width), resize(flow[1], size) * (size[0] / height)])


def smooth(picture: F32, sigma: float) -> F32:
    """Gaussian of [H, W], cut off at 3 sigma, with the border repeated."""
    reach = int(np.ceil(3 * sigma))
    if reach == 0:
        return picture
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padded = np.pad(picture, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        picture = sum(k * np.take(padded, range(i, i + picture.shape[axis]), axis) for i, k in enumerate(kernel))
    return picture.astype(np.float32)


def median(picture: F32, side: int) -> F32:
    """Median of [H, W] over squares of side x side pixels, with the border repeated."""
    if side <= 1:
        return picture
    padded = np.pad(picture, side // 2, mode="edge")
    squares = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    return np.asarray(np.median(squares, axis=(2, 3)), np.float32)
