"""From a decoded picture to the pixels of a frame: the cheapest layout that holds them, upright.

Planes are taken as they were decoded where that is possible: a conversion to RGB costs ten times the decoding.
"""

from __future__ import annotations

from typing import Any, cast

import av
import cv2
import numpy as np

from engine.types import U8, Layout

_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


def upright_pixels(picture: av.VideoFrame) -> tuple[Layout, U8]:
    """The layout and pixels of a decoded picture, its rotation applied."""
    name, even = picture.format.name, picture.width % 2 == 0 and picture.height % 2 == 0
    turn = _TURNS.get(round(picture.rotation) % 360)
    if name.startswith(("gray", "ya", "mono")):
        grey = picture if name == "gray" else picture.reformat(format="gray")
        return "grey", _turned(_plane(grey, 0), turn)
    if not even or picture.format.is_rgb or name == "pal8":
        return "rgb", _turned(np.asarray(picture.to_ndarray(format="rgb24"), np.uint8), turn)
    planar = picture if name in ("yuv420p", "yuvj420p") else picture.reformat(format="yuv420p")
    planes = [_turned(_plane(planar, i), turn) for i in range(3)]
    return "i420", np.concatenate([plane.reshape(-1) for plane in planes]).reshape(-1, planes[0].shape[1])


def _plane(picture: av.VideoFrame, index: int) -> U8:
    """[h, w] one 8-bit plane, the padding at the end of each line left off; a view into the picture."""
    plane = picture.planes[index]
    lines: U8 = np.frombuffer(memoryview(cast(Any, plane)), np.uint8).reshape(-1, plane.line_size)
    return lines[: plane.height, : plane.width]


def _turned(plane: U8, turn: int | None) -> U8:
    return np.ascontiguousarray(plane) if turn is None else np.asarray(cv2.rotate(plane, turn), np.uint8)
