"""Detectors that find faces in a frame: MediaPipe's over the whole picture and over tiles of it, so that small faces are found
too, and dlib's HOG where that finds nothing.

This is the only module that imports dlib.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from engine.faces.boxes import FROM_BOX, region_box
from engine.mesh import MeshModels, Region
from engine.mesh.view import rgb_window
from engine.types import U8, Frame

_FRAME_PX = 640  # long side at which the detectors search the whole frame
_TILE, _SMALLEST_TILE = 0.375, 0.2  # side of a tile in long sides of the frame: at most, and in large frames
_TILE_FRAME_PX = 480  # side of a tile, frame pixels, between these two: a face of 60 is an eighth of it
_TILE_PX = 240  # side to which a larger tile is shrunk; the detector sees it at 128
_LEAST_TILE_PX = 120  # a smaller tile shows no more than the whole frame
_AROUND = 1.35  # side of the window in which a lost face is searched for, in sides of its region
_WIDER_THAN_HOG = 1.1  # a face's box in widths of the one that dlib draws


class FaceDetector:
    """Finds regions that may hold a face; dlib's detector is loaded by the first frame that needs it."""

    def __init__(self, models: MeshModels, min_face_px: float) -> None:
        self._models = models
        self._min_face_px = min_face_px
        self._hog: Any = None

    def detect(self, frame: Frame) -> list[Region]:
        """Regions of the frame that may hold a face, several of them the same one, the largest first."""
        scale = min(1.0, _FRAME_PX / max(frame.height, frame.width))
        small = _resized(frame.rgb, scale)
        found = _in_frame(self._models.detect(small), 0, 0, scale)
        for left, top, side in tiles(frame.width, frame.height):
            shrunk = min(1.0, _TILE_PX / side)
            tile = _resized(frame.rgb[top : top + side, left : left + side], shrunk)
            found += _in_frame(self._models.detect(tile), left, top, shrunk)
        if not found:
            found = _in_frame(self._hog_regions(small), 0, 0, scale)
        return sorted((one for one in found if region_box(one)[2] >= self._min_face_px), key=lambda one: -one.side)

    def detect_near(self, frame: Frame, region: Region) -> list[Region]:
        """Regions of the frame that may hold a face, in the window around a region where one was."""
        side = max(48, round(_AROUND * region.side))
        shrink = -(-side // _TILE_PX)
        step = 2 * shrink
        side = -(-side // step) * step
        left, top = (round((at - side / 2) / step) * step for at in (region.x, region.y))
        window = rgb_window(frame, left, top, side, shrink)
        return _in_frame(self._models.detect(window) or self._hog_regions(window), left, top, 1 / shrink)

    def _hog_regions(self, picture: U8) -> list[Region]:
        """Regions of the faces that dlib sees in a picture [H, W, 3] RGB, in its pixels."""
        if self._hog is None:
            import dlib

            self._hog = dlib.get_frontal_face_detector()
        found = self._hog(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8), 0)
        side = FROM_BOX * _WIDER_THAN_HOG
        return [Region((r.left() + r.right()) / 2, (r.top() + r.bottom()) / 2, side * float(r.width())) for r in found]


def tiles(width: int, height: int) -> list[tuple[int, int, int]]:
    """Left, top and side of overlapping squares of a frame, for faces too small to be seen in the frame as a whole."""
    longest = max(width, height)
    side = min(width, height, round(min(_TILE * longest, max(_TILE_FRAME_PX, _SMALLEST_TILE * longest))))
    if side < _LEAST_TILE_PX:
        return []
    return [(x, y, side) for y in _starts(height, side) for x in _starts(width, side)]


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin along a frame so that neighbours share at least four ninths of their sides."""
    count = 1 + math.ceil(1.8 * (length - side) / side)
    return [round(at) for at in np.linspace(0, length - side, count)]


def _resized(picture: U8, scale: float) -> U8:
    """The picture, shrunk by a scale below 1, in one piece of memory."""
    if scale < 1:
        return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(picture)


def _in_frame(regions: list[Region], left: int, top: int, scale: float) -> list[Region]:
    """Regions of a part of the frame that began at (left, top) and was shrunk by scale, in frame pixels."""
    return [Region(one.x / scale + left, one.y / scale + top, one.side / scale, one.angle) for one in regions]
