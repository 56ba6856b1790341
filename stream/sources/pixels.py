"""From a decoded picture to the pixels of a frame: the cheapest layout that holds them, upright, with square pixels.

Planes are taken as they were decoded where that is possible: a conversion to RGB costs ten times the decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import av
import cv2
import numpy as np

from engine.types import U8, Layout

MAX_STRETCH = 4.0
"""Pixels declared to be longer than this in one direction are taken to be square: no camera has such."""
SQUARE = 0.01
"""Pixels whose sides differ by less than this share count as square: encoders round."""

_FLIPS = {(True, False): 1, (False, True): 0, (True, True): -1}
"""(columns, rows) to flip -> OpenCV's code."""


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is shown: rows and columns exchanged, then columns, then rows in reverse order."""

    transposed: bool = False
    columns: bool = False
    rows: bool = False

    @classmethod
    def of(cls, picture: av.VideoFrame) -> Orientation:
        """The multiple of a quarter turn, mirrored or not, that is nearest to the picture's display matrix."""
        data = picture.side_data.get("DISPLAYMATRIX")
        if data is None:
            return cls()
        a, b, _, c, d = np.frombuffer(cast(Any, data), np.int32)[:5].tolist()
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(columns=a < 0, rows=d < 0)
        return cls(transposed=True, columns=c < 0, rows=b < 0)

    @property
    def mirrored(self) -> bool:
        """Whether the picture is shown as in a mirror."""
        return (self.transposed + self.columns + self.rows) % 2 == 1

    @property
    def rotation(self) -> int:
        """By how many degrees the picture is turned counterclockwise, after it was mirrored left to right if it is."""
        if not self.transposed:
            return 180 if self.rows else 0
        return 90 if self.rows != self.mirrored else -90

    def applied(self, plane: U8) -> U8:
        """A plane [h, w] or [h, w, 3] as it is shown, in one piece of memory."""
        turned = cv2.transpose(plane) if self.transposed else plane
        flip = _FLIPS.get((self.columns, self.rows))
        return np.ascontiguousarray(turned if flip is None else cv2.flip(turned, flip), np.uint8)


def square_size(width: int, height: int, aspect: float | None) -> tuple[int, int]:
    """The size in which a picture has square pixels, none of them lost; aspect is a stored pixel's width over its height.

    Even where the stored size is.
    """
    if aspect is None or not 1 / MAX_STRETCH <= aspect <= MAX_STRETCH or abs(aspect - 1) <= SQUARE:
        return width, height
    if aspect > 1:
        return _stretched(width, aspect), height
    return width, _stretched(height, 1 / aspect)


def upright_pixels(picture: av.VideoFrame, orientation: Orientation, aspect: float | None) -> tuple[Layout, U8]:
    """The layout and pixels of a decoded picture as it is shown; aspect is a stored pixel's width over its height, None: 1."""
    name, even = picture.format.name, picture.width % 2 == 0 and picture.height % 2 == 0
    width, height = square_size(picture.width, picture.height, aspect)
    if name.startswith(("gray", "ya", "mono")):
        grey = picture if name == "gray" else picture.reformat(format="gray")
        return "grey", orientation.applied(resized(plane_of(grey, 0), width, height))
    if not even or picture.format.is_rgb or name == "pal8":
        rgb = np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
        return "rgb", orientation.applied(resized(rgb, width, height))
    planar = picture if name in ("yuv420p", "yuvj420p") else picture.reformat(format="yuv420p")
    sizes = ((width, height), (width // 2, height // 2), (width // 2, height // 2))
    planes = [orientation.applied(resized(plane_of(planar, i), *size)) for i, size in enumerate(sizes)]
    return "i420", np.concatenate([plane.reshape(-1) for plane in planes]).reshape(-1, planes[0].shape[1])


def _stretched(length: int, by: float) -> int:
    return 2 * round(length * by / 2) if length % 2 == 0 else round(length * by)


def plane_of(picture: av.VideoFrame, index: int) -> U8:
    """[h, w] one 8-bit plane, the padding at the end of each line left off; a view into the picture."""
    plane = picture.planes[index]
    lines: U8 = np.frombuffer(memoryview(cast(Any, plane)), np.uint8).reshape(-1, plane.line_size)
    return lines[: plane.height, : plane.width]


def resized(picture: U8, width: int, height: int) -> U8:
    """A picture [h, w] or [h, w, 3] in another size, averaged where it is made smaller; itself where it has that size."""
    if picture.shape[:2] == (height, width):
        return picture
    interpolation = cv2.INTER_AREA if picture.shape[1] > width else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation), np.uint8)
