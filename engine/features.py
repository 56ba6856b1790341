"""From flow to the network's input; live analysis and training call the same functions.

A whole map is the published form of a micro-expression: (u, v, strain) of the face between onset and apex on 28 x 28 cells,
each channel scaled to 0..1. Five regions are cut out of it, around both eyes (brows inside), the nose and both lip corners, and
set side by side into one [3, 28, 28] composite, row 0 above:

    +-----------------+-----------------+
    |  left eye       |  right eye      |   14 rows, 14 columns each
    +----------+------+------+----------+
    | left lip |    nose     | right lip|   14 rows; 10, 8 and 10 columns
    +----------+-------------+----------+

Left and right are the picture's. The layout is its own mirror image, so the composite of a mirrored face is the mirrored
composite with u -> 1 - u. The paper (arXiv 2501.02539) names the five regions but not how they are joined: the tiling is this
project's own choice, close to the four 14 x 14 crops of HTNet with the nose between the lips.

Points are (x, y), the centre of the top left cell (or pixel) at (0, 0).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from engine.errors import ArrayError
from engine.ops.strain import strain
from engine.types import F32

SIDE = 28
"""Cells of a map along each side."""

CROP_SIDE = 128
"""Pixels of the registered crop along each side."""

CANONICAL_KEYPOINTS: F32 = np.array([[6.45, 8.20], [20.55, 8.20], [13.50, 15.27], [8.04, 19.97], [18.96, 19.97]], np.float32)
"""[5, 2] where the published maps have left eye, right eye, nose tip, left and right lip corner, in map cells: the mean over
the 442 maps of the composite database, made symmetric about the middle column. A crop registered to `keypoints_to_crop` of
these is framed as the published maps are."""


class Region(NamedTuple):
    """One piece of the composite: which keypoint it is cut around, how far from it, and where it goes (cells)."""

    keypoint: int
    lift: float
    top: int
    left: int
    rows: int
    columns: int


EYE_LIFT = 1.5
"""Cells by which the eye pieces are centred above the eye, so that the brow lies inside."""

REGIONS = (
    Region(keypoint=0, lift=EYE_LIFT, top=0, left=0, rows=14, columns=14),
    Region(keypoint=1, lift=EYE_LIFT, top=0, left=14, rows=14, columns=14),
    Region(keypoint=3, lift=0.0, top=14, left=0, rows=14, columns=10),
    Region(keypoint=2, lift=0.0, top=14, left=10, rows=14, columns=8),
    Region(keypoint=4, lift=0.0, top=14, left=18, rows=14, columns=10),
)


def keypoints_to_crop(cells: F32) -> F32:
    """Points [..., 2] in map cells -> the same points in pixels of the 128 px crop."""
    return np.asarray((cells + 0.5) * (CROP_SIDE / SIDE) - 0.5, np.float32)


def keypoints_to_map(pixels: F32) -> F32:
    """Points [..., 2] in pixels of the 128 px crop -> the same points in map cells."""
    return np.asarray((pixels + 0.5) * (SIDE / CROP_SIDE) - 0.5, np.float32)


def whole_map(flow: F32) -> F32:
    """Flow [2, H, W] of (u, v) in pixels, onset to apex -> [3, 28, 28] of (u, v, strain), each channel scaled to 0..1.

    Strain is taken at full size, the three are averaged over the area of each cell, then scaled by their own least and
    greatest value as the published maps are. A channel that is the same everywhere holds no motion pattern and becomes 0.
    Raises ArrayError for another shape, a side under 28 or values that are not finite.
    """
    if flow.ndim != 3 or flow.shape[0] != 2 or min(flow.shape[1:]) < SIDE:
        raise ArrayError(f"a flow of shape {flow.shape} cannot be mapped; [2, H, W] with sides of at least {SIDE} is expected")
    if not np.isfinite(flow).all():
        raise ArrayError("a flow with values that are not finite cannot be mapped")
    channels = (flow[0], flow[1], strain(flow))
    cells = [cv2.resize(c, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for c in channels]
    return np.stack([_scaled(np.asarray(c, np.float32)) for c in cells])


def _scaled(channel: F32) -> F32:
    low, high = float(channel.min()), float(channel.max())
    if high - low <= 1e-6 * max(1.0, abs(low), abs(high)):  # no more than float32's rounding
        return np.zeros(channel.shape, np.float32)
    return np.asarray((channel - low) / (high - low), np.float32)


def region_grid(keypoints: F32) -> F32:
    """Where each cell of the composite is read: keypoints [..., 5, 2] in map cells -> positions [..., 28, 28, 2], (x, y)."""
    if keypoints.shape[-2:] != (5, 2) or not np.isfinite(keypoints).all():
        raise ArrayError(f"five finite points (x, y) are expected, [5, 2], not an array of shape {keypoints.shape}")
    grid = np.empty((*keypoints.shape[:-2], SIDE, SIDE, 2), np.float32)
    for r in REGIONS:
        piece = grid[..., r.top : r.top + r.rows, r.left : r.left + r.columns, :]
        centre = keypoints[..., r.keypoint, None, None, :]
        piece[..., 0] = centre[..., 0] + np.arange(r.columns, dtype=np.float32) - (r.columns - 1) / 2
        piece[..., 1] = centre[..., 1] + np.arange(r.rows, dtype=np.float32)[:, None] - (r.rows - 1) / 2 - r.lift
    return grid


def five_regions(whole: F32, keypoints: F32 = CANONICAL_KEYPOINTS) -> F32:
    """Cut a whole map [3, 28, 28] around keypoints [5, 2] (left eye, right eye, nose, left lip, right lip; map cells) into the
    composite [3, 28, 28].

    Read bilinearly between cells; beyond the map's edge its outermost cells go on. Raises ArrayError for other shapes or
    keypoints that are not finite.
    """
    if whole.shape != (3, SIDE, SIDE):
        raise ArrayError(f"a whole map is [3, {SIDE}, {SIDE}]; an array of shape {whole.shape} came")
    grid = region_grid(np.asarray(keypoints, np.float32))
    return sample(np.asarray(whole, np.float32), grid)


def sample(maps: F32, grid: F32) -> F32:
    """Read maps [C, H, W] bilinearly at positions [h, w, 2] of (x, y) in cells -> [C, h, w]; edges replicate."""
    height, width = maps.shape[1:]
    x, y = np.clip(grid[..., 0], 0, width - 1), np.clip(grid[..., 1], 0, height - 1)
    left, top = np.minimum(x.astype(np.intp), width - 2), np.minimum(y.astype(np.intp), height - 2)
    fx, fy = x - left, y - top
    above = maps[:, top, left] * (1 - fx) + maps[:, top, left + 1] * fx
    below = maps[:, top + 1, left] * (1 - fx) + maps[:, top + 1, left + 1] * fx
    return np.asarray(above * (1 - fy) + below * fy, np.float32)


def mirrored(composite: F32) -> F32:
    """The map or composite [3, 28, 28] of the mirrored face: columns reversed, u -> 1 - u."""
    out = composite[..., ::-1].copy()
    out[0] = 1 - out[0]
    return out
