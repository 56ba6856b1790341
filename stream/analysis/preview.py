"""Previews of a stream: the newest frame as a small JPEG, with the landmarks and regions to draw over it, in its pixels.

Nothing is computed while nobody watches, and nothing more often or larger than asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from engine.geometry import CANONICAL_KEYPOINTS, CROP_SIDE, FIVE_REGIONS, MAP_SIDE, keypoints, keypoints_to_crop, similarity
from engine.types import F32, F64, U8, Face, Frame
from stream.messages import Arrival, Preview, Sink, WantedPreview
from stream.sources.pixels import resized

QUALITY = 80
"""JPEG quality, 1 to 100: 640 x 480 pixels take some 40 kB."""

MIN_WIDTH = 64
"""Smallest width of a preview, pixels, unless the frame is smaller."""

CONTOURS: tuple[tuple[int, ...], ...] = (
    (
        *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
        *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
    ),
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
    (46, 53, 52, 65, 55, 107, 66, 105, 63, 70),
    (276, 283, 282, 295, 285, 336, 296, 334, 293, 300),
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
)
"""Closed lines of mesh points: face, left and right eye and brow of the picture, outer and inner lips."""

_POINTS = np.array([index for line in CONTOURS for index in line])
_CANONICAL = keypoints_to_crop(CANONICAL_KEYPOINTS).astype(np.float64)
_CELL = CROP_SIDE / MAP_SIDE


class PreviewMaker:
    """Makes the previews of one stream, at the rate asked for."""

    def __init__(self, stream: str, sink: Sink) -> None:
        self._stream, self._sink, self._due = stream, sink, 0.0

    def offer(self, arrival: Arrival, faces: Sequence[Face]) -> None:
        """Send a preview of this frame if one is asked for and due."""
        wanted = self._sink.wanted_preview(self._stream)
        if wanted is None or wanted.fps <= 0:
            return
        step = 1 / wanted.fps
        if arrival.arrived < self._due - step / 4:  # frames arrive with jitter
            return
        self._due = max(self._due, arrival.arrived - step / 4) + step
        self._sink.preview(draw(self._stream, arrival.frame, faces, wanted))


def draw(stream: str, frame: Frame, faces: Sequence[Face], wanted: WantedPreview) -> Preview:
    """The preview of a frame and its faces, no wider than asked for and never enlarged."""
    width, height = _size(frame, wanted.width)
    _, data = cv2.imencode(".jpg", _small(frame, width, height), (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    header = {
        "type": "preview",
        "v": 1,
        "stream": stream,
        "t": round(frame.t, 6),
        "index": frame.index,
        "width": width,
        "height": height,
        "contours": [len(line) for line in CONTOURS],
        "faces": [_overlay(face, np.array([width / frame.width, height / frame.height])) for face in faces],
    }
    return Preview(stream, header, data.tobytes())


def region_boxes(points: F32) -> F64:
    """[5, 4] boxes (x, y, width, height) of the five regions, in pixels of the frame that the mesh [478, 3] belongs to.

    They are the parts of the face that the network gets (`engine.geometry.FIVE_REGIONS`), drawn upright.
    """
    here = keypoints(points).astype(np.float64)
    placed = similarity(_CANONICAL, here)
    turn = placed[:, :2] * _CELL
    scale = float(np.hypot(turn[0, 0], turn[1, 0]))
    boxes = []
    for region in FIVE_REGIONS:
        x, y = here[region.keypoint] - turn[:, 1] * region.lift
        wide, high = region.columns * scale, region.rows * scale
        boxes.append((x - wide / 2, y - high / 2, wide, high))
    return np.array(boxes)


def _size(frame: Frame, asked: int) -> tuple[int, int]:
    """Width and height of the preview, pixels; even for i420."""
    width = min(max(asked, MIN_WIDTH), frame.width)
    height = max(2, round(frame.height * width / frame.width))
    return (width - width % 2, height - height % 2) if frame.layout == "i420" else (width, height)


def _overlay(face: Face, scale: F64) -> dict[str, Any]:
    points = (face.points[_POINTS, :2] + 0.5) * scale - 0.5
    boxes = region_boxes(face.points) * np.tile(scale, 2)
    return {"face": face.id, "landmarks": np.round(points, 1).tolist(), "regions": np.round(boxes, 1).tolist()}


def _small(frame: Frame, width: int, height: int) -> U8:
    """The frame resized: [height, width] grey or [height, width, 3] BGR; i420 planes are resized before they are converted."""
    if frame.layout == "i420":
        high, wide = frame.height, frame.width
        chroma = frame.pixels[high:].reshape(2, high // 2, wide // 2)
        planes = [resized(frame.pixels[:high], width, height)]
        planes += [resized(plane, width // 2, height // 2) for plane in chroma]
        small = np.concatenate([plane.reshape(-1) for plane in planes]).reshape(-1, width)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_YUV2BGR_I420), np.uint8)
    small = resized(frame.pixels, width, height)
    return small if frame.layout == "grey" else np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2BGR), np.uint8)
