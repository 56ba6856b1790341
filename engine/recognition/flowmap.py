"""From onset and apex crops to a network's input, one moment at a time on the CPU.

GPU equivalent: `engine.recognition.flowmap_gpu`.

    crops -> mean picture of onset and of apex -> brightness matched -> TV-L1 flow -> the head's motion taken out
          -> (u, v, strain) on 28 x 28 cells, the whole map -> the cells that the network takes (`engine.geometry.INPUTS`)

A whole map is the published form of a micro-expression, each channel scaled to 0..1. Live analysis and training call the same
functions.

The flow of a change too large for one step is chained: from moment to moment, joined, and refined once from end to end. TV-L1
finds motions of a few pixels. A mouth that opens wide or brows raised as far as they go move 10 to 25 px of the crop within a
third of a second, but 2 or 3 from frame to frame. Pictures registered to different references may be joined too: what lies
between the references is a motion of the head, and is taken out with it afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import cv2
import numpy as np

from engine.errors import ArrayError
from engine.geometry import CANONICAL_KEYPOINTS, CROP_SIDE, EYE_LIFT, MAP_SIDE, input_grid, keypoints
from engine.ops.backend import Backend
from engine.ops.strain import strain
from engine.ops.tvl1 import tvl1, tvl1_batch
from engine.recognition.likeness import explained, face_explained, like, read_along
from engine.recognition.residual import take_out_head
from engine.types import F32, Crop

STEPS = 6
"""A chain has no more steps: more of them explain no more. Refining more than once explains more, but of hands before the face
too."""

_REACH = 14  # half the side, in pixels, of the square around a keypoint in which intensity is measured


def face_flow(onset: Sequence[Crop], apex: Sequence[Crop], *, backend: Backend = "auto") -> tuple[F32, F32, float]:
    """The face's own flow [2, 128, 128] from onset to apex, the five keypoints [5, 2] of the apex, both in crop pixels, and
    how well the flow explains the change (see `likeness.explained`). Training prepares databases with this very function."""
    before, after = mean_picture(onset), mean_picture(apex)
    landmarks = mean_landmarks(apex)
    after = like(after, before)
    flow = tvl1(before, after, backend=backend)
    return take_out_head(flow, landmarks), keypoints(landmarks), explained(before, after, flow)


def spread_out(moments: int) -> list[int]:
    """Which of so many moments between two ends become links of the chain: STEPS - 1 of them at most, evenly."""
    links = min(moments, STEPS - 1)
    return [round((k + 1) * (moments + 1) / (links + 1)) - 1 for k in range(links)]


def chained_flow(pictures: Sequence[F32], landmarks: F32, *, backend: Backend = "auto") -> tuple[F32, float]:
    """The flow [2, H, W] from the first to the last of pictures, each [H, W] float32, and how much of the change it explains
    (`likeness.face_explained`).

    landmarks [478, >= 2] are the mesh on the first picture. Raises as `tvl1` does.
    """
    seconds = [like(two, one) for one, two in pairwise(pictures)]
    chained = reduce(joined, tvl1_batch(np.stack(pictures[:-1]), np.stack(seconds), backend=backend))
    before, after = pictures[0], like(pictures[-1], pictures[0])
    left = tvl1(before, like(read_along(after, chained), before), backend=backend)
    flow = joined(left, chained)
    return flow, face_explained(before, after, flow, landmarks)


def joined(first: F32, second: F32) -> F32:
    """The flow [2, H, W] of going along the first, then along the second, which starts where the first ends."""
    return np.asarray(first + np.stack([read_along(channel, first) for channel in second]), np.float32)


def mean_picture(crops: Sequence[Crop]) -> F32:
    """The mean picture [128, 128] of crops, at least one."""
    total = crops[0].pixels.astype(np.float32)
    for crop in crops[1:]:
        total += crop.pixels
    total /= len(crops)
    return total


def mean_landmarks(crops: Sequence[Crop]) -> F32:
    """The mean mesh [478, 3] of crops."""
    return np.asarray(np.mean([crop.landmarks for crop in crops], axis=0), np.float32)


def whole_map(flow: F32) -> F32:
    """Flow [2, H, W] of (u, v) in pixels, onset to apex -> [3, 28, 28] of (u, v, strain), each channel scaled to 0..1.

    Strain is taken at full size, the three are averaged over the area of each cell, then scaled by their own least and
    greatest value as the published maps are. A channel that is the same everywhere holds no motion pattern and becomes 0.
    Raises ArrayError for another shape, a side under 28 or values that are not finite.
    """
    if flow.ndim != 3 or flow.shape[0] != 2 or min(flow.shape[1:]) < MAP_SIDE:
        wanted = f"[2, H, W] with sides of at least {MAP_SIDE} is expected"
        raise ArrayError(f"a flow of shape {flow.shape} cannot be mapped; {wanted}")
    if not np.isfinite(flow).all():
        raise ArrayError("a flow with values that are not finite cannot be mapped")
    channels = (flow[0], flow[1], strain(flow))
    cells = [cv2.resize(c, (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_AREA) for c in channels]
    return np.stack([_scaled(np.asarray(c, np.float32)) for c in cells])


def _scaled(channel: F32) -> F32:
    low, high = float(channel.min()), float(channel.max())
    if high - low <= 1e-6 * max(1.0, abs(low), abs(high)):  # no more than float32's rounding
        return np.zeros(channel.shape, np.float32)
    return np.asarray((channel - low) / (high - low), np.float32)


def network_input(kind: str, whole: F32, points: F32 = CANONICAL_KEYPOINTS) -> F32:
    """An input of `INPUTS`, [3, H, W], read out of a whole map [3, 28, 28] with keypoints points [5, 2] (left eye, right eye,
    nose, left lip, right lip; map cells).

    Read bilinearly between cells; beyond the map's edge its outermost cells go on. Raises as `input_grid` does, and ArrayError
    for a map of another shape.
    """
    if whole.shape != (3, MAP_SIDE, MAP_SIDE):
        raise ArrayError(f"a whole map is [3, {MAP_SIDE}, {MAP_SIDE}]; an array of shape {whole.shape} came")
    grid = input_grid(kind, np.asarray(points, np.float32))
    return np.array(whole, np.float32) if kind == "whole" else sample(np.asarray(whole, np.float32), grid)


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


def intensity(flow: F32, points: F32) -> float:
    """Mean length of the flow [2, H, W] around the keypoint [5, 2] where it is greatest, in pixels; around the eyes as far
    up as the network's regions reach, so that the brow counts."""
    size = cv2.magnitude(flow[0], flow[1])
    points = points.copy()
    points[:2, 1] -= EYE_LIFT * CROP_SIDE / MAP_SIDE
    columns, rows = np.clip(np.rint(points).astype(int), 0, np.array(size.shape[::-1]) - 1).T
    first_rows, first_columns = np.maximum(rows - _REACH, 0), np.maximum(columns - _REACH, 0)
    around = zip(first_rows, rows + _REACH + 1, first_columns, columns + _REACH + 1, strict=True)
    return float(max(size[top:bottom, left:right].mean() for top, bottom, left, right in around))
