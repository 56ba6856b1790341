"""Boxes around faces: which two are one face, which may be mistaken for each other, which is a part of the other."""

from __future__ import annotations

import math

from engine.mesh import Region
from engine.types import F32

FROM_BOX = 1.5  # side of the region of a face in widths of its box
ALIKE = 0.4  # least ratio of the widths of two boxes of one face
_CLOSE = 0.8  # faces whose centres are so many widths apart may be mistaken for each other
_PART, _HEAD = 0.5, 0.8  # a box of less than this share of a face's width is a part of it within so many widths of its centre

Box = tuple[float, float, float]
"""Centre x, centre y and width of a face, in frame pixels."""


def face_box(points: F32) -> Box:
    """Box around mesh points [478, 3]: centre of their bounds, and the larger of width and height."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    centre = (low + high) / 2
    return float(centre[0]), float(centre[1]), float((high - low).max())


def region_box(region: Region) -> Box:
    """Box of the face in a region that a detector found."""
    return region.x, region.y, region.side / FROM_BOX


def same_face(a: Box, b: Box) -> bool:
    """Whether two boxes are so near and so alike that they are one face."""
    size = max(a[2], b[2])
    return _distance(a, b) < 0.5 * size and min(a[2], b[2]) > ALIKE * size


def near(a: Box, b: Box) -> bool:
    """Whether one of two faces may be mistaken for the other."""
    return _distance(a, b) < _CLOSE * max(a[2], b[2])


def inside(a: Box, b: Box) -> bool:
    """Whether box a lies within box b or, much smaller, on the head around it: an eye is no face of its own, nor is a curl.

    (So a face right in front of a much larger one, as before a screen, is not followed.)
    """
    reach = _HEAD if a[2] < _PART * b[2] else 0.5
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) < reach * b[2]


def _distance(a: Box, b: Box) -> float:
    return math.hypot(a[0] - b[0], a[1] - b[1])
