"""Whether something changed since the networks last looked: two cheap checks that decide whether they run again.

A face mesh costs more than all else that a frame goes through, and most frames show what the one before showed. `FaceGlance`
keeps how eyes and mouth looked when the mesh last saw a face: as long as they look so, frames are left to the registration by
texture; a blink or a word calls the mesh at once. `SceneGlance` keeps how the picture looked around the faces when the
detectors last went over it: where nothing changed nobody came.

    looks now - looks then, about its mean and less the best small shift, over the contrast then    (face: mean over a part)
    looks now - looks then, less the common change of light               (scene: the largest over the cells, grey levels)
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from engine.types import F32, U8, Frame

_MOUTH = (61, 291, 37, 267, 84, 314, 0, 17)
_PARTS = ((33, 133, 160, 144, 158, 153), (263, 362, 387, 373, 385, 380), _MOUTH)
"""Mesh points around each eye and the mouth."""
_CELLS = (12, 8)  # columns and rows that a part is averaged to: grain goes, lids stay
_WIDER, _HIGHER = 1.3, 0.8  # of a part's box, in widths of the part: a lid moves inside, the head's sway leaves it there
_STIFF = 50.0  # grey levels squared: where a part has no more slope than grain has, it is not shifted
_FAINT = 4.0  # grey levels of contrast under which a part shows nothing but grain

_SCENE_WIDE = 40  # cells along the picture


class FaceGlance:
    """How eyes and mouth of a face looked in one frame; points [478, >= 2] are its mesh there, in frame pixels."""

    def __init__(self, grey: U8, points: F32) -> None:
        self._shape = grey.shape
        boxes = [_box(points[list(part), :2], grey.shape) for part in _PARTS]
        self._boxes = [box for box in boxes if box is not None]
        self._eyes = np.array([part != _MOUTH for part, box in zip(_PARTS, boxes, strict=True) if box is not None], bool)
        self._then = self._cells(grey)
        self._contrast = np.maximum(self._then.std(axis=(1, 2)), _FAINT)
        slopes = np.stack([np.gradient(self._then, axis=axis) for axis in (2, 1)], axis=1)
        self._slopes = slopes.reshape(len(self._boxes), 2, _CELLS[0] * _CELLS[1])
        square = self._slopes @ self._slopes.transpose(0, 2, 1)
        self._shift = np.linalg.solve(square + _STIFF * np.eye(2, dtype=np.float32), self._slopes)

    def change(self, grey: U8) -> tuple[float, float]:
        """How differently the eyes (the one that changed more) and the mouth look in another frame (grey [H, W]), each in
        shares of its own contrast, after the best small shift of each part: a head that sways has not changed its face.

        Some 0.03 to 0.1 for grain within a few hundredths of a second, 0.3 and more for lids that close. 0 where a part does
        not lie in the picture, infinite where the picture has another size.
        """
        if grey.shape != self._shape:
            return float("inf"), float("inf")
        apart = (self._cells(grey) - self._then).reshape(len(self._boxes), _CELLS[0] * _CELLS[1], 1)
        apart -= self._slopes.transpose(0, 2, 1) @ (self._shift @ apart)
        changes = np.abs(apart).mean(axis=(1, 2)) / self._contrast
        return float(changes[self._eyes].max(initial=0.0)), float(changes[~self._eyes].max(initial=0.0))

    def _cells(self, grey: U8) -> F32:
        """[parts, rows, columns] of each part's cells, about its mean."""
        cells = np.empty((len(self._boxes), *_CELLS[::-1]), np.float32)
        for part, box in zip(cells, self._boxes, strict=True):
            part[:] = cv2.resize(grey[box], _CELLS, interpolation=cv2.INTER_AREA)
        cells -= cells.mean(axis=(1, 2), keepdims=True)
        return cells


class SceneGlance:
    """How a frame looked outside some squares (left, top, side), in frame pixels."""

    def __init__(self, frame: Frame) -> None:
        self._size = frame.width, frame.height
        self._then = _coarse(frame.grey)

    def change(self, frame: Frame, without: Iterable[tuple[int, int, int]]) -> float:
        """The largest change of any cell outside the squares, in grey levels, after light that changed everywhere alike."""
        if (frame.width, frame.height) != self._size:
            return float("inf")
        apart = _coarse(frame.grey) - self._then
        shown = np.ones(apart.shape, bool)
        cell = frame.width / apart.shape[1], frame.height / apart.shape[0]
        for left, top, side in without:
            columns, rows = (slice(max(0, round(at / size)), max(0, round((at + side) / size))) for at, size in
                             zip((left, top), cell, strict=True))  # fmt: skip
            shown[rows, columns] = False
        seen = apart[shown]
        return float(np.abs(seen - np.median(seen)).max()) if seen.size else 0.0


def _box(part: F32, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Rows and columns of the picture that hold a part of the face, None where they lie outside."""
    low, high = part.min(axis=0), part.max(axis=0)
    (x, y), wide = (low + high) / 2, float(high[0] - low[0])
    columns = _within(float(x), _WIDER * wide, shape[1])
    rows = _within(float(y), max(_HIGHER * wide, float(high[1] - low[1])), shape[0])
    return (rows, columns) if rows.stop > rows.start and columns.stop > columns.start else None


def _within(middle: float, length: float, limit: int) -> slice:
    first, last = round(middle - length / 2), round(middle + length / 2) + 1
    return slice(min(max(first, 0), limit), min(max(last, 0), limit))


def _coarse(grey: U8) -> F32:
    high, wide = grey.shape
    columns = min(_SCENE_WIDE, wide)
    rows = max(1, min(high, round(high * columns / wide)))
    return np.asarray(cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA), np.float32)
