"""The registered crop, the map of it, the five keypoints that frame both, and the inputs of networks.

Points are (x, y), the centre of the top left cell (or pixel) at (0, 0). The registered crop is CROP_SIDE pixels wide and
high, the whole map MAP_SIDE cells. Every network's input is read out of a whole map, bilinearly, at the positions that
`input_grid` gives, and each network's card says which of `INPUTS` it takes:

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
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import ArrayError, ConfigError
from engine.types import F32, F64

MAP_SIDE = 28
"""Cells of a map along each side."""

INPUTS: dict[str, tuple[int, int, int]] = {
    "five-regions": (3, MAP_SIDE, MAP_SIDE),
    "four-regions": (3, MAP_SIDE, MAP_SIDE),
    "whole": (3, MAP_SIDE, MAP_SIDE),
    "aligned": (3, MAP_SIDE, MAP_SIDE),
    "whole-224": (3, 224, 224),
    "aligned-and-regions": (3, 2 * MAP_SIDE, MAP_SIDE),
}
"""What a network can be fed with, each with its shape (3, H, W); see above."""

CROP_SIDE = 128
"""Pixels of the registered crop along each side."""

CANONICAL_KEYPOINTS: F32 = np.array([[6.45, 8.20], [20.55, 8.20], [13.50, 15.27], [8.04, 19.97], [18.96, 19.97]], np.float32)
"""[5, 2] where the published maps have left eye, right eye, nose tip, left and right lip corner, in map cells: the mean over
the 442 maps of the composite database, made symmetric about the middle column. A crop registered to `keypoints_to_crop` of
these is framed as the published maps are."""


class MapRegion(NamedTuple):
    """One piece of a composite: which keypoint it is cut around, how far above it, and where it goes (cells)."""

    keypoint: int
    lift: float
    top: int
    left: int
    rows: int
    columns: int


EYE_LIFT = 1.5
"""Cells by which the eye pieces are centred above the eye, so that the brow lies inside."""

FIVE_REGIONS = (
    MapRegion(keypoint=0, lift=EYE_LIFT, top=0, left=0, rows=14, columns=14),
    MapRegion(keypoint=1, lift=EYE_LIFT, top=0, left=14, rows=14, columns=14),
    MapRegion(keypoint=3, lift=0.0, top=14, left=0, rows=14, columns=10),
    MapRegion(keypoint=2, lift=0.0, top=14, left=10, rows=14, columns=8),
    MapRegion(keypoint=4, lift=0.0, top=14, left=18, rows=14, columns=10),
)

FOUR_REGIONS = (
    MapRegion(keypoint=0, lift=0.0, top=0, left=0, rows=14, columns=14),
    MapRegion(keypoint=1, lift=0.0, top=0, left=14, rows=14, columns=14),
    MapRegion(keypoint=3, lift=0.0, top=14, left=0, rows=14, columns=14),
    MapRegion(keypoint=4, lift=0.0, top=14, left=14, rows=14, columns=14),
)
"""HTNet's four pieces. They are kept inside the map, so a keypoint near its edge is not in the middle of its tile."""


TILE_RANGE = ((FOUR_REGIONS[0].rows - 1) / 2, MAP_SIDE - 1 - (FOUR_REGIONS[0].rows - 1) / 2)
"""Where the middle of a "four-regions" tile lies, each way, in map cells; a keypoint outside is moved to the nearer end."""

EYE_CORNERS = ((33, 133), (362, 263))
NOSE_TIP, LIP_CORNERS = 1, (61, 291)
"""Mesh points of the keypoints."""


def keypoints_to_crop(cells: F32) -> F32:
    """Points [..., 2] in map cells -> the same points in pixels of the 128 px crop."""
    return np.asarray((cells + 0.5) * (CROP_SIDE / MAP_SIDE) - 0.5, np.float32)


def keypoints_to_map(pixels: F32) -> F32:
    """Points [..., 2] in pixels of the 128 px crop -> the same points in map cells."""
    return np.asarray((pixels + 0.5) * (MAP_SIDE / CROP_SIDE) - 0.5, np.float32)


def keypoints(points: F32) -> F32:
    """The five points of the map (eyes, nose tip, lip corners; [5, 2]) from mesh points [478, >= 2]."""
    xy = points[:, :2]
    eyes = [xy[list(corners)].mean(axis=0) for corners in EYE_CORNERS]
    return np.asarray([*eyes, xy[NOSE_TIP], *xy[list(LIP_CORNERS)]], np.float32)


def similarity(source: F64, target: F64) -> F64:
    """The [2, 3] similarity that takes points [N, 2] to points [N, 2] with least squares (Umeyama 1991, no reflection)."""
    mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
    s, t = source - mean_s, target - mean_t
    square = max(float((s * s).sum()), 1e-9)
    a = float((s * t).sum()) / square
    b = float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / square
    rotation = np.array([[a, -b], [b, a]])
    return np.column_stack([rotation, mean_t - rotation @ mean_s])


def apply(transform: F64, points: F64) -> F64:
    """Points [N, 2] through a [2, 3] transform."""
    return np.asarray(points @ transform[:, :2].T + transform[:, 2])


def compose(outer: F64, inner: F64) -> F64:
    """The [2, 3] transform that does inner, then outer."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def input_grid(kind: str, keypoints: F32) -> F32:
    """Where each cell of an input of `INPUTS` is read: keypoints [..., 5, 2] in map cells -> positions [..., H, W, 2], (x, y).

    Raises ConfigError for a kind that does not exist, ArrayError for keypoints of another shape or not finite.
    """
    if kind not in _GRIDS:
        raise ConfigError(f"no network input is called {kind!r}; there are {', '.join(INPUTS)}")
    if keypoints.shape[-2:] != (5, 2) or not np.isfinite(keypoints).all():
        raise ArrayError(f"five finite points (x, y) are expected, [5, 2], not an array of shape {keypoints.shape}")
    return np.asarray(_GRIDS[kind](np.asarray(keypoints, np.float32)), np.float32)


def linear_grid(kind: str) -> tuple[F64, F64, tuple[float, float]]:
    """`input_grid` as the linear function of the keypoints that it is, for devices: positions [H * W * 2] with all keypoints in
    the map's middle, what each cell by which one of their ten coordinates moves adds [10, H * W * 2], and the range that
    coordinates are moved into before.

    Raises ConfigError as `input_grid` does.
    """
    points, step = np.full((11, 5, 2), (MAP_SIDE - 1) / 2, np.float32), 6.0  # within TILE_RANGE
    points[1:] += step * np.eye(10, dtype=np.float32).reshape(10, 5, 2)
    middle, *moved = input_grid(kind, points).astype(np.float64).reshape(11, -1)
    return middle, (np.stack(moved) - middle) / step, TILE_RANGE if kind == "four-regions" else (-np.inf, np.inf)


def _pieces(keypoints: F32, regions: tuple[MapRegion, ...]) -> F32:
    grid = np.empty((*keypoints.shape[:-2], MAP_SIDE, MAP_SIDE, 2), np.float32)
    for r in regions:
        piece = grid[..., r.top : r.top + r.rows, r.left : r.left + r.columns, :]
        centre = keypoints[..., r.keypoint, None, None, :]
        piece[..., 0] = centre[..., 0] + np.arange(r.columns, dtype=np.float32) - (r.columns - 1) / 2
        piece[..., 1] = centre[..., 1] + np.arange(r.rows, dtype=np.float32)[:, None] - (r.rows - 1) / 2 - r.lift
    return grid


def _tiles(keypoints: F32) -> F32:
    return _pieces(np.clip(keypoints, *TILE_RANGE), FOUR_REGIONS)


def _whole(keypoints: F32, side: int = MAP_SIDE) -> F32:
    along = (np.arange(side, dtype=np.float32) + 0.5) * (MAP_SIDE / side) - 0.5
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
    "five-regions": lambda keypoints: _pieces(keypoints, FIVE_REGIONS),
    "four-regions": _tiles,
    "whole": _whole,
    "aligned": _aligned,
    "whole-224": lambda keypoints: _whole(keypoints, 224),
    "aligned-and-regions": lambda keypoints: np.concatenate((_aligned(keypoints), _pieces(keypoints, FIVE_REGIONS)), -3),
}
