"""A picture to draw on as it is encoded, YUV 4:2:0: what is not drawn on keeps its values, and nothing is converted.

Coordinates are (x, y) in pixels, the centre of the top left one at (0, 0); lines and text are antialiased.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

import cv2
import numpy as np

from engine.types import F64, U8, Frame

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a rectangle."""

_SHIFT = 4  # bits of a fraction of a pixel in coordinates that OpenCV takes


@cache
def _font() -> cv2.FontFace:
    """The font that OpenCV includes (Rubik)."""
    return cv2.FontFace("sans")


@lru_cache(maxsize=64)
def yuv(colour: str) -> tuple[int, int, int]:
    """Y, U and V (BT.601, limited range) of #RRGGBB."""
    rgb = np.array([[[int(colour[k : k + 2], 16) for k in (1, 3, 5)]]], np.uint8)
    y, u, v = cv2.cvtColor(np.repeat(np.repeat(rgb, 2, 0), 2, 1), cv2.COLOR_RGB2YUV_I420).ravel()[[0, 4, 5]].tolist()
    return y, u, v


@lru_cache(maxsize=512)
def _mask(text: str, size: int, weight: int) -> U8:
    """[H, W] how much of each pixel the text covers, 0 to 255; its baseline is `size` below the top."""
    wide = max(1, text_width(text, size, weight) + 4)
    mask = np.zeros((size + size // 2, wide), np.uint8)
    cv2.putText(mask, text, (1, size), (255,), _font(), size, weight)
    return mask


def text_width(text: str, size: int, weight: int = 400) -> int:
    """Width of a text, pixels; size is that of the font in pixels, weight 400 for regular and 700 for bold."""
    x, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _font(), size, weight)
    return int(x + width)


def fitted(text: str, width: float, size: int, weight: int = 400) -> str:
    """The text, cut short so that it is no wider than so many pixels; "" where nothing fits."""
    while text and text_width(text, size, weight) > width:
        text = text.removesuffix("…")[:-1].rstrip()
        text += "…" if text else ""
    return text


class Canvas:
    """Width and height are even. `pixels` [H * 3 / 2, W] are the planes of YUV 4:2:0, one after the other."""

    def __init__(self, width: int, height: int, colour: str = "#000000") -> None:
        self.width, self.height = width, height
        size = width * height
        flat = np.empty(size * 3 // 2, np.uint8)
        self.pixels: U8 = flat.reshape(height * 3 // 2, width)
        half = (height // 2, width // 2)
        self._planes: tuple[U8, U8, U8] = (
            flat[:size].reshape(height, width),
            flat[size : size * 5 // 4].reshape(half),
            flat[size * 5 // 4 :].reshape(half),
        )
        self.fill((0, 0, width, height), colour)

    def show(self, frame: Frame, width: int, height: int) -> tuple[int, int]:
        """Put a frame into the middle of the top left rectangle of an even size, at least as large as the frame; a last odd row
        or column is repeated, the rest is black. Returns where the frame's top left corner is."""
        planes = _planes_of(frame)
        high, wide = planes[0].shape
        x, y = (width - wide) // 4 * 2, (height - high) // 4 * 2
        if (wide, high) != (width, height):
            self.fill((0, 0, width, height), "#000000")
        for plane, source, by in zip(self._planes, planes, (1, 2, 2), strict=True):
            rows, columns = source.shape
            plane[y // by : y // by + rows, x // by : x // by + columns] = source
        return x, y

    def fill(self, box: Box, colour: str, alpha: float = 1.0) -> None:
        """Fill a rectangle, as far as it lies on the canvas; alpha 0 changes nothing, 1 covers what is there."""
        left, top, right, bottom = box
        for (plane, value), by in zip(self._coloured(colour), (1, 2, 2), strict=True):
            part = plane[_clipped(top / by, bottom / by, plane.shape[0]), _clipped(left / by, right / by, plane.shape[1])]
            if alpha >= 1:
                part[:] = value
            elif part.size:
                part[:] = cv2.addWeighted(part, 1 - alpha, np.full_like(part, value), alpha, 0)

    def lines(self, lines: list[F64], colour: str, width: float = 1.0, *, alpha: float = 1.0, closed: bool = False) -> None:
        """Draw lines through points [N, 2] each; width in pixels, rounded to whole ones."""
        self._drawn(lines, colour, width, alpha, closed=closed)

    def area(self, points: F64, colour: str, alpha: float = 1.0) -> None:
        """Fill a polygon of points [N, 2]."""
        self._drawn([points], colour, 0, alpha, closed=True)

    def text(self, place: tuple[float, float], text: str, colour: str, size: int, weight: int = 400) -> None:
        """Write a text; place is the left end of its baseline. What lies beyond the canvas is cut off."""
        x, y = place
        mask = _mask(text, size, weight)
        left, top = round(x / 2) * 2, round((y - size) / 2) * 2
        for (plane, value), by in zip(self._coloured(colour), (1, 2, 2), strict=True):
            cover = mask if by == 1 else cv2.resize(mask, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            x0, y0 = left // by, top // by
            across, down = max(0, -x0), max(0, -y0)
            part = plane[max(0, y0) : max(0, y0 + cover.shape[0]), max(0, x0) : max(0, x0 + cover.shape[1])]
            if part.size:
                share = cover[down : down + part.shape[0], across : across + part.shape[1]].astype(np.float32) / 255
                part[:] = np.rint(part + share * (value - part.astype(np.float32)))

    def _coloured(self, colour: str) -> Iterator[tuple[U8, int]]:
        return zip(self._planes, yuv(colour), strict=True)

    def _drawn(self, lines: list[F64], colour: str, width: float, alpha: float, *, closed: bool) -> None:
        """Draw lines, or fill the area within where width is 0."""
        lines = [line for line in lines if len(line)]
        if not lines:
            return
        every = np.concatenate(lines)
        low, high = every.min(axis=0) - width - 2, every.max(axis=0) + width + 2
        for (plane, value), by in zip(self._coloured(colour), (1, 2, 2), strict=True):
            rows, columns = (_clipped(low[k] / by, high[k] / by + 1, plane.shape[1 - k]) for k in (1, 0))
            part = plane[rows, columns]
            if not part.size:
                continue
            corner = np.array([columns.start, rows.start])
            placed = [np.rint(((line + 0.5) / by - 0.5 - corner) * (1 << _SHIFT)).astype(np.int32) for line in lines]
            drawn = np.ascontiguousarray(part)
            if width:
                thick = max(1, round(width / by))
                cv2.polylines(drawn, placed, closed, (value,), thick, cv2.LINE_AA, _SHIFT)
            else:
                cv2.fillPoly(drawn, placed, (value,), cv2.LINE_AA, _SHIFT)
            part[:] = drawn if alpha >= 1 else cv2.addWeighted(part, 1 - alpha, drawn, alpha, 0)


def _clipped(first: float, stop: float, length: int) -> slice:
    """The rows or columns from one coordinate to another that exist."""
    start = min(max(round(first), 0), length)
    return slice(start, min(max(round(stop), start), length))


def _planes_of(frame: Frame) -> tuple[U8, U8, U8]:
    """The planes of a frame in YUV 4:2:0, of even size."""
    wide, high = frame.width, frame.height
    even = (high + high % 2, wide + wide % 2)
    if frame.layout == "grey":
        grey = _extended(frame.pixels, even)
        neutral = np.full((even[0] // 2, even[1] // 2), 128, np.uint8)
        return grey, neutral, neutral
    pixels = frame.pixels
    if frame.layout == "rgb":
        pixels = np.asarray(cv2.cvtColor(_extended(pixels, even), cv2.COLOR_RGB2YUV_I420), np.uint8)
    flat, size, half = pixels.reshape(-1), even[0] * even[1], (even[0] // 2, even[1] // 2)
    return flat[:size].reshape(even), flat[size : size * 5 // 4].reshape(half), flat[size * 5 // 4 :].reshape(half)


def _extended(pixels: U8, size: tuple[int, int]) -> U8:
    """The pixels [H, W] or [H, W, 3], the last row and column repeated up to a size (rows, columns)."""
    more = (size[0] - pixels.shape[0], size[1] - pixels.shape[1])
    return np.pad(pixels, [(0, more[0]), (0, more[1]), (0, 0)][: pixels.ndim], mode="edge") if any(more) else pixels
