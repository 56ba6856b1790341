"""What never changes between crops and a network's input: sizes, thresholds, and the tables that CPU and GPU both use."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from engine.geometry import CROP_SIDE, MAP_SIDE
from engine.types import F32, F64

SMOOTH_PATCH = 9.0
"""Product of standard deviations under which a patch is too smooth to compare, grey levels squared."""

PATCH_SIDE, PATCH_STEP = 24, 16
"""Pixels of the patches that are compared, and from one to the next."""

LEAST_GAIN, MOST_GAIN = 0.5, 2.0
"""Limits of the change of contrast where brightness is matched."""

NEAR, FAR = 4.0, 24.0
"""Standard deviations, pixels, of how far a mesh point counts for the depth around it."""

FAR_SHARE = 1e-3
"""What the far ones count beside the near ones: they decide where no point is near."""

READ_AROUND = 9
"""Side, in pixels, of the square whose mean is the flow at a mesh point."""


@lru_cache(maxsize=4)
def face_window(rows: int, columns: int) -> F32:
    """How much each pixel [rows, columns] of a crop counts where brightness is compared: a bell over the middle of the face."""
    across, down = gaussian(columns, columns / 4), gaussian(rows, rows / 4)
    return np.asarray(down[:, None] * across, np.float32)


def gaussian(length: int, sigma: float) -> F64:
    """A bell of `length` weights about its middle, whose sum is 1."""
    away = np.arange(length) - (length - 1) / 2
    weights = np.exp(-(away**2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


def blurring(sigma: float) -> F32:
    """[128, 128]: the Gaussian along a line of the crop, mirrored at its ends, as OpenCV cuts it off for float32."""
    side = round(sigma * 8 + 1) | 1
    read = np.abs(np.arange(CROP_SIDE)[:, None] + np.arange(side) - side // 2) % (2 * CROP_SIDE - 2)
    out = np.zeros((CROP_SIDE, CROP_SIDE))
    rows = np.broadcast_to(np.arange(CROP_SIDE)[:, None], read.shape)
    np.add.at(out, (rows, np.minimum(read, 2 * CROP_SIDE - 2 - read)), np.broadcast_to(gaussian(side, sigma), read.shape))
    return np.asarray(out, np.float32)


@lru_cache(maxsize=4)
def averaging(length: int) -> F32:
    """[28, length]: the means over the cells of a line of pixels."""
    edges = np.arange(MAP_SIDE + 1) * (length / MAP_SIDE)
    covered = np.minimum(edges[1:, None], np.arange(length) + 1) - np.maximum(edges[:-1, None], np.arange(length))
    return np.asarray(np.maximum(covered, 0) * (MAP_SIDE / length), np.float32)
