"""What is left of the head's motion in the flow between two registered crops, and the flow without it.

The same robust fit as between frames (`engine.registration.align`), on the flow read at the mesh's points; then the head's
motion at every pixel, whose depth is the mesh's, smoothly between its points (normalized convolution, Knutsson 1993).
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from engine.geometry import CROP_SIDE
from engine.recognition.tables import FAR, FAR_SHARE, NEAR, READ_AROUND, blurring
from engine.registration.head import CANVAS, MARGIN, fit_head, head_design
from engine.registration.regions import HEAD, TRACKED, VOTES
from engine.types import F32

_RANK = 12
"""So few numbers hold a line blurred by FAR: what the others add is under 2e-5 of it."""

_FROM_MIDDLE = np.asarray(np.arange(CROP_SIDE) + (MARGIN - (CANVAS - 1) / 2), np.float32)


def take_out_head(flow: F32, landmarks: F32) -> F32:
    """A dense flow [2, 128, 128] between two registered crops less what is left in it of the head's motion.

    landmarks [478, 3] are the mesh in crop pixels.
    """
    points = landmarks[TRACKED].astype(np.float64)
    level = points[HEAD, 2].mean()
    x, y = (np.ascontiguousarray(points[:, k], np.float32)[None] for k in (0, 1))
    read = [cv2.remap(cv2.blur(channel, (READ_AROUND, READ_AROUND)), x, y, cv2.INTER_LINEAR)[0] for channel in flow]
    moved = np.stack(read, axis=1).astype(np.float64)
    inside = ((points[:, :2] >= 0) & (points[:, :2] <= CROP_SIDE - 1)).all(axis=1)
    design = head_design(points[:, :2] + MARGIN, points[:, 2] - level)
    a, b, tx, ty, yaw, pitch = fit_head(design, moved, VOTES * inside, HEAD).terms.astype(np.float32)
    depth = relief(landmarks) - np.float32(level)
    rest = np.empty_like(flow)
    np.subtract(flow[0], (a * _FROM_MIDDLE + tx) - (b * _FROM_MIDDLE)[:, None], out=rest[0])
    np.subtract(flow[1], (b * _FROM_MIDDLE + ty) + (a * _FROM_MIDDLE)[:, None], out=rest[1])
    rest[0] -= yaw * depth
    rest[1] -= pitch * depth
    return rest


def relief(landmarks: F32) -> F32:
    """Depth at every crop pixel [128, 128], smoothly between the mesh's points [478, 3]."""
    column, row = np.clip(np.rint(landmarks[:, :2]).astype(np.intp), 0, CROP_SIDE - 1).T
    place, size = row * CROP_SIDE + column, CROP_SIDE * CROP_SIDE
    left, right = _far()
    blurred = []
    for values in (None, landmarks[:, 2]):  # how many points, and their depths
        there = np.bincount(place, values, minlength=size).astype(np.float32).reshape(CROP_SIDE, CROP_SIDE)
        near = cv2.GaussianBlur(there, (0, 0), NEAR)
        blurred.append(near + left @ ((right @ there) @ right.T) @ left.T)
    weight, depth = blurred
    return np.asarray(depth / np.maximum(weight, 1e-12), np.float32)


@lru_cache(maxsize=1)
def _far() -> tuple[F32, F32]:
    """The blur by FAR along a line, its weight included, as a product [128, _RANK] times [_RANK, 128]."""
    left, values, right = np.linalg.svd(blurring(FAR).astype(np.float64))
    share = np.sqrt(FAR_SHARE)
    return np.asarray(share * left[:, :_RANK] * values[:_RANK], np.float32), np.asarray(right[:_RANK], np.float32)
