"""From flow to the network's input; live analysis and training call the same functions.

A whole map is the published form of a micro-expression: (u, v, strain) of the face between onset and apex on 28 x 28 cells,
each channel scaled to 0..1. Every network's input is read out of it, bilinearly, at the positions that `input_grid` gives, and
each network's card says which of `INPUTS` it takes:

five-regions         around both eyes (brows inside), the nose and both lip corners, set side by side, row 0 above:

    +-----------------+-----------------+
    |  left eye       |  right eye      |   14 rows, 14 columns each
    +----------+------+------+----------+
    | left lip |    nose     | right lip|   14 rows; 10, 8 and 10 columns
    +----------+-------------+----------+

four-regions         HTNet's tiles (arXiv 2307.14637), 14 x 14 each: left eye, right eye; below them left lip, right lip
whole                the map as it is
aligned              the map resampled so that its keypoints lie, by least squares, where the published maps have them
whole-224            the map enlarged to 224 x 224, for HFA-Net
aligned-and-regions  aligned above, five-regions below

Left and right are the picture's. Each is its own mirror image: the input of a mirrored face is the mirrored input with
u -> 1 - u. The paper of AHMSA-Net (arXiv 2501.02539) names the five regions but not how they are joined: the tiling is this
project's own choice, close to the four crops of HTNet with the nose between the lips.

Points are (x, y), the centre of the top left cell (or pixel) at (0, 0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from engine.errors import ArrayError, ConfigError
from engine.ops.strain import strain
from engine.types import F32

SIDE = 28
"""Cells of a map along each side."""

INPUTS: dict[str, tuple[int, int, int]] = {
    "five-regions": (3, SIDE, SIDE),
    "four-regions": (3, SIDE, SIDE),
    "whole": (3, SIDE, SIDE),
    "aligned": (3, SIDE, SIDE),
    "whole-224": (3, 224, 224),
    "aligned-and-regions": (3, 2 * SIDE, SIDE),
}
"""What a network can be fed with, each with its shape (3, H, W); see above."""

CROP_SIDE = 128
"""Pixels of the registered crop along each side."""

CANONICAL_KEYPOINTS: F32 = np.array([[6.45, 8.20], [20.55, 8.20], [13.50, 15.27], [8.04, 19.97], [18.96, 19.97]], np.float32)
"""[5, 2] where the published maps have left eye, right eye, nose tip, left and right lip corner, in map cells: the mean over
the 442 maps of the composite database, made symmetric about the middle column. A crop registered to `keypoints_to_crop` of
these is framed as the published maps are."""


class Region(NamedTuple):
    """One piece of a composite: which keypoint it is cut around, how far above it, and where it goes (cells)."""

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

TILES = (
    Region(keypoint=0, lift=0.0, top=0, left=0, rows=14, columns=14),
    Region(keypoint=1, lift=0.0, top=0, left=14, rows=14, columns=14),
    Region(keypoint=3, lift=0.0, top=14, left=0, rows=14, columns=14),
    Region(keypoint=4, lift=0.0, top=14, left=14, rows=14, columns=14),
)
"""HTNet's four pieces. They are kept inside the map, so a keypoint near its edge is not in the middle of its tile."""


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


def input_grid(kind: str, keypoints: F32) -> F32:
    """Where each cell of an input of `INPUTS` is read: keypoints [..., 5, 2] in map cells -> positions [..., H, W, 2], (x, y).

    Raises ConfigError for a kind that does not exist, ArrayError for keypoints of another shape or not finite.
    """
    if kind not in _GRIDS:
        raise ConfigError(f"no network input is called {kind!r}; there are {', '.join(INPUTS)}")
    if keypoints.shape[-2:] != (5, 2) or not np.isfinite(keypoints).all():
        raise ArrayError(f"five finite points (x, y) are expected, [5, 2], not an array of shape {keypoints.shape}")
    return np.asarray(_GRIDS[kind](np.asarray(keypoints, np.float32)), np.float32)


def network_input(kind: str, whole: F32, keypoints: F32 = CANONICAL_KEYPOINTS) -> F32:
    """An input of `INPUTS`, [3, H, W], read out of a whole map [3, 28, 28] with keypoints [5, 2] (left eye, right eye, nose,
    left lip, right lip; map cells).

    Read bilinearly between cells; beyond the map's edge its outermost cells go on. Raises as `input_grid` does, and ArrayError
    for a map of another shape.
    """
    if whole.shape != (3, SIDE, SIDE):
        raise ArrayError(f"a whole map is [3, {SIDE}, {SIDE}]; an array of shape {whole.shape} came")
    grid = input_grid(kind, np.asarray(keypoints, np.float32))
    return np.array(whole, np.float32) if kind == "whole" else sample(np.asarray(whole, np.float32), grid)


def region_grid(keypoints: F32) -> F32:
    """`input_grid` of the five regions: keypoints [..., 5, 2] -> positions [..., 28, 28, 2]."""
    return input_grid("five-regions", keypoints)


def five_regions(whole: F32, keypoints: F32 = CANONICAL_KEYPOINTS) -> F32:
    """`network_input` of the five regions: the composite [3, 28, 28]."""
    return network_input("five-regions", whole, keypoints)


def _pieces(keypoints: F32, regions: tuple[Region, ...]) -> F32:
    grid = np.empty((*keypoints.shape[:-2], SIDE, SIDE, 2), np.float32)
    for r in regions:
        piece = grid[..., r.top : r.top + r.rows, r.left : r.left + r.columns, :]
        centre = keypoints[..., r.keypoint, None, None, :]
        piece[..., 0] = centre[..., 0] + np.arange(r.columns, dtype=np.float32) - (r.columns - 1) / 2
        piece[..., 1] = centre[..., 1] + np.arange(r.rows, dtype=np.float32)[:, None] - (r.rows - 1) / 2 - r.lift
    return grid


def _tiles(keypoints: F32) -> F32:
    reach = (TILES[0].rows - 1) / 2
    return _pieces(np.clip(keypoints, reach, SIDE - 1 - reach), TILES)


def _whole(keypoints: F32, side: int = SIDE) -> F32:
    along = (np.arange(side, dtype=np.float32) + 0.5) * (SIDE / side) - 0.5
    grid = np.stack(np.broadcast_arrays(along, along[:, None]), -1)
    return np.asarray(np.broadcast_to(grid, (*keypoints.shape[:-2], side, side, 2)))


def _aligned(keypoints: F32) -> F32:
    """Cells of the published frame through the similarity that takes CANONICAL_KEYPOINTS to keypoints with least squares:
    z -> a z + b for points as complex numbers, a = sum conj(z) w / sum |z|^2 about both means."""
    canonical, points = (_complex(p.astype(np.float64)) for p in (CANONICAL_KEYPOINTS, keypoints))
    middle, centre = canonical.mean(), points.mean(-1, keepdims=True)
    spread = canonical - middle
    turn = ((points - centre) * spread.conj()).sum(-1, keepdims=True) / (np.abs(spread) ** 2).sum()
    cells = _complex(_whole(CANONICAL_KEYPOINTS).astype(np.float64)) - middle
    read = turn[..., None] * cells + centre[..., None]
    return np.asarray(np.stack((read.real, read.imag), -1), np.float32)


def _complex(points: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    return np.asarray(points[..., 0] + 1j * points[..., 1])


_GRIDS: dict[str, Callable[[F32], F32]] = {
    "five-regions": lambda keypoints: _pieces(keypoints, REGIONS),
    "four-regions": _tiles,
    "whole": _whole,
    "aligned": _aligned,
    "whole-224": lambda keypoints: _whole(keypoints, 224),
    "aligned-and-regions": lambda keypoints: np.concatenate((_aligned(keypoints), _pieces(keypoints, REGIONS)), -3),
}


def sample(maps: F32, grid: F32) -> F32:
    """Read maps [C, H, W] bilinearly at positions [h, w, 2] of (x, y) in cells -> [C, h, w]; edges replicate."""
    height, width = maps.shape[1:]
    x, y = np.clip(grid[..., 0], 0, width - 1), np.clip(grid[..., 1], 0, height - 1)
    left, top = np.minimum(x.astype(np.intp), width - 2), np.minimum(y.astype(np.intp), height - 2)
    fx, fy = x - left, y - top
    above = maps[:, top, left] * (1 - fx) + maps[:, top, left + 1] * fx
    below = maps[:, top + 1, left] * (1 - fx) + maps[:, top + 1, left + 1] * fx
    return np.asarray(above * (1 - fy) + below * fy, np.float32)


def mirrored(maps: F32) -> F32:
    """The map, or an input of `INPUTS`, [3, H, W] of the mirrored face: columns reversed, u -> 1 - u."""
    out = maps[..., ::-1].copy()
    out[0] = 1 - out[0]
    return out
