"""TV-L1 on the CPU: the steps of reference.solve on buffers that are reused, with OpenCV for what reads around a pixel.

A plain version spends its time on fresh arrays and on rows too short for numpy to hurry, so here every step of the
inner loop works in place on flat arrays. A difference between neighbours is then one subtraction of the array from itself
shifted by one place (x) or by a row (y): the dual fields hold 0 in their last column and row, so that what a shift carries
over from the row above or from the other component is 0, as the border asks.

Nothing here depends on the number of threads, and no buffer outlives a call.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.ops.tvl1.method import METHOD, Method, sizes
from engine.types import F32


def solve(fixed: F32, moving: F32, method: Method = METHOD) -> F32:
    """[H, W] float32 in 0..255, twice -> [2, H, W] float32 (u, v) in pixels. Twin: reference.solve."""
    levels = sizes(fixed.shape[0], fixed.shape[1], method)
    pairs = [(_smooth(fixed, method.smoothing), _smooth(moving, method.smoothing))]
    for size in levels[1:]:
        pairs.append((_resize(pairs[-1][0], size), _resize(pairs[-1][1], size)))
    flow = np.zeros((2, *levels[-1]), np.float32)
    for size, pair in zip(reversed(levels), reversed(pairs), strict=True):
        flow = _enlarge(flow, size)
        level = _Level(*pair, method)
        for _ in range(method.warps):
            flow = level.improve(flow)
    return flow


class _Level:
    """One level of the pyramid with the buffers its iterations reuse."""

    def __init__(self, fixed: F32, moving: F32, method: Method) -> None:
        self.fixed, self.moving, self.method = fixed, moving, method
        self.height, self.width = fixed.shape
        self.slope_fixed, self.slope_moving = _derivatives(fixed), _derivatives(moving)
        self.y, self.x = np.mgrid[: self.height, : self.width].astype(np.float32)
        cells = fixed.size
        # theta / tau times the papers' dual field, with the zeros that the first differences need in front.
        self.dual_x = np.zeros(2 * cells + 1, np.float32)
        self.dual_y = np.zeros(2 * cells + self.width, np.float32)
        self.slope_x, self.slope_y, self.spare, self.spare2 = np.zeros((4, 2 * cells), np.float32)
        self.residual = np.empty(cells, np.float32)

    def improve(self, flow: F32) -> F32:
        """Warp by the flow [2, H, W] that is known, then iterate; returns the better flow."""
        method = self.method
        start = np.round(flow * np.float32(32)) * np.float32(1 / 32)
        constant, slope, factor = self._expand(start)
        flat = flow.reshape(-1).copy()
        for _ in range(method.iterations):
            self._explain(flat, constant, slope, factor)
            self._regularize(flat)
        return np.stack([_median(part, method.median) for part in flat.reshape(flow.shape)])

    def _expand(self, start: F32) -> tuple[F32, F32, F32]:
        """The linear brightness around `start`: its constant part [H * W], gradient [2 * H * W] and -1 / |gradient|^2 [H * W].

        OpenCV samples at multiples of 1/32 px; `start` is one, so the expansion is exact there.
        """
        x, y = self.x + start[0], self.y + start[1]
        inside = (x >= 0) & (x <= self.width - 1) & (y >= 0) & (y <= self.height - 1)
        warped, across, down = (
            cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            for picture in (self.moving, *self.slope_moving)
        )
        slope = (self.slope_fixed + np.stack([across, down])) * (inside * np.float32(0.5))
        constant = warped - self.fixed - (slope * start).sum(0)
        factor = np.float32(-1) / np.maximum((slope**2).sum(0), np.float32(1e-9))
        return constant.reshape(-1), slope.reshape(-1), factor.reshape(-1)

    def _explain(self, flow: F32, constant: F32, slope: F32, factor: F32) -> None:
        """flow += threshold(rho) of the reference."""
        cells, residual, spare = len(constant), self.residual, self.spare
        bound = np.float32(self.method.lam * self.method.theta)
        np.multiply(slope, flow, out=spare)
        np.add(spare[:cells], spare[cells:], out=residual)
        residual += constant
        residual *= factor
        np.maximum(residual, -bound, out=residual)
        np.minimum(residual, bound, out=residual)
        np.multiply(slope.reshape(2, -1), residual, out=spare.reshape(2, -1))
        flow += spare

    def _regularize(self, flow: F32) -> None:
        """flow += theta div p, then the ascent of p along the flow's gradient."""
        width, spare, slope_x, slope_y = self.width, self.spare, self.slope_x, self.slope_y
        dual_x, dual_y, tau = self.dual_x, self.dual_y, np.float32(self.method.tau)
        np.subtract(dual_x[1:], dual_x[:-1], out=spare)
        spare += dual_y[width:]
        spare -= dual_y[:-width]
        spare *= tau
        flow += spare
        np.subtract(flow[1:], flow[:-1], out=slope_x[:-1])
        np.subtract(flow[width:], flow[:-width], out=slope_y[:-width])
        slope_x.reshape(-1, width)[:, -1] = 0
        slope_y.reshape(2, -1)[:, -width:] = 0
        np.multiply(slope_x, slope_x, out=spare)
        np.multiply(slope_y, slope_y, out=self.spare2)
        spare += self.spare2
        np.sqrt(spare, out=spare)
        spare *= np.float32(self.method.tau / self.method.theta)
        spare += np.float32(1)
        ascended_x, ascended_y = dual_x[1:], dual_y[width:]
        ascended_x += slope_x
        ascended_x /= spare
        ascended_y += slope_y
        ascended_y /= spare


def _smooth(picture: F32, sigma: float) -> F32:
    reach = int(np.ceil(3 * sigma))
    if reach == 0:
        return picture
    side = 2 * reach + 1
    return np.asarray(cv2.GaussianBlur(picture, (side, side), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def _derivatives(picture: F32) -> F32:
    padded = cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    across, down = padded[2:-2], padded[:, 2:-2]
    return np.stack(
        [
            (8 * (across[:, 3:-1] - across[:, 1:-3]) - (across[:, 4:] - across[:, :-4])) / 12,
            (8 * (down[3:-1] - down[1:-3]) - (down[4:] - down[:-4])) / 12,
        ]
    )


def _resize(picture: F32, size: tuple[int, int]) -> F32:
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _enlarge(flow: F32, size: tuple[int, int]) -> F32:
    _, height, width = flow.shape
    if size == (height, width):
        return flow
    u, v = _resize(flow[0], size), _resize(flow[1], size)
    return np.stack([u * np.float32(size[1] / width), v * np.float32(size[0] / height)])


def _median(picture: F32, side: int) -> F32:
    return picture if side <= 1 else np.asarray(cv2.medianBlur(picture, side), np.float32)
