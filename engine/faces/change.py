"""Whether something changed since the networks ran last: two cheap checks that decide whether they run again.

A face mesh costs more than all else that a frame goes through, and most frames show what the one before showed. `FaceSnapshot`
holds eyes and mouth as the mesh saw them last: as long as they stay so, frames are left to the registration by texture; a blink
or a word refreshes the mesh at once. `SceneSnapshot` holds the picture around the faces as the detectors searched it last:
where nothing changed no face came.

    now - then, about its mean and less the head's motion and the best small shift of the part, over the contrast
                                                                                              (face: mean over a part)
    now - then, less the common change of light               (scene: the largest over the cells, grey levels)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np

from engine.mesh.view import cut_window
from engine.types import F32, U8, Frame

_MOUTH = (61, 291, 37, 267, 84, 314, 0, 17)
_PARTS = ((33, 133, 160, 144, 158, 153), (263, 362, 387, 373, 385, 380), _MOUTH)
"""Mesh points around each eye and the mouth."""
_CELLS = (12, 8)  # columns and rows that a part is averaged to: grain goes, lids stay
_WIDER, _HIGHER = 1.3, 0.8  # of a part's box, in widths of the part: a lid moves inside, the head's sway leaves it there
_STIFF = 50.0  # grey levels squared: where a part has no more slope than grain has, it is not shifted
_FAINT = 4.0  # grey levels of contrast under which a part shows nothing but grain

_PLAIN = 0.12  # a change below this is grain: the head's motion need not be computed
_HEAD_CELLS = 32  # along a side of the square around the face in which the head's motion is sought,
_HEAD_MARGIN = 6  # and cells around it, as far as it may move
_HEAD_STEPS = 2  # times the motion is computed again
_HEAD_SIDE = _HEAD_CELLS + 2 * _HEAD_MARGIN
_HEAD_STIFF = np.diag([200, 200, 17_000, 17_000]).astype(np.float32)  # what a motion costs: none is seen where texture is none
_HEAD_START = complex(1, 1) * (_HEAD_CELLS - 1) / 2
_HEAD_MIDDLE = _HEAD_START + complex(1, 1) * _HEAD_MARGIN
_INNER = slice(_HEAD_MARGIN, -_HEAD_MARGIN)
_LEFT, _RIGHT = slice(_HEAD_MARGIN - 1, -_HEAD_MARGIN - 1), slice(_HEAD_MARGIN + 1, 1 - _HEAD_MARGIN)
_X = np.arange(_HEAD_CELLS, dtype=np.float32) - np.float32(_HEAD_START.real)
_Y = _X[:, None]

_SCENE_WIDE = 40  # cells along the picture
_READ = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

Box = tuple[slice, slice]
"""Rows and columns of a part of a frame."""


class FaceSnapshot:
    """Eyes and mouth of a face in one frame; points [478, >= 2] are its mesh there, in frame pixels."""

    def __init__(self, grey: U8, points: F32) -> None:
        self._shape = grey.shape
        boxes = [_box(points[list(part), :2], grey.shape) for part in _PARTS]
        self._boxes = [box for box in boxes if box is not None]
        self._eyes = np.array([part != _MOUTH for part, box in zip(_PARTS, boxes, strict=True) if box is not None], bool)
        self._head = _HeadSnapshot(grey, points)
        self._then = self._cells(grey, self._boxes)
        self._contrast = np.maximum(self._then.std(axis=(1, 2)), _FAINT)
        slopes = np.stack([np.gradient(self._then, axis=axis) for axis in (2, 1)], axis=1)
        self._slopes = slopes.reshape(len(self._boxes), 2, _CELLS[0] * _CELLS[1])
        square = self._slopes @ self._slopes.transpose(0, 2, 1)
        self._shift = np.linalg.inv(square + _STIFF * np.eye(2, dtype=np.float32)) @ self._slopes

    def change(self, grey: U8) -> tuple[float, float]:
        """How much the eyes (the one that changed more) and the mouth differ in another frame (grey [H, W]), each in shares
        of its own contrast, after the head's motion and the best small shift of each part: a head that moves has not
        changed its face.

        Some 0.03 to 0.1 for grain within a few hundredths of a second, 0.3 and more for lids that close. 0 where a part does
        not lie in the picture, infinite where the picture has another size.
        """
        if grey.shape != self._shape:
            return float("inf"), float("inf")
        changes = self._changes(grey, self._boxes)
        if changes.max(initial=0.0) > _PLAIN:
            changes = np.minimum(changes, self._changes(grey, self._head.followed(grey, self._boxes)))
        return float(changes[self._eyes].max(initial=0.0)), float(changes[~self._eyes].max(initial=0.0))

    def _changes(self, grey: U8, boxes: list[Box]) -> F32:
        """[parts] of the changes against what the boxes show now."""
        apart = (self._cells(grey, boxes) - self._then).reshape(len(boxes), _CELLS[0] * _CELLS[1], 1)
        apart -= self._slopes.transpose(0, 2, 1) @ (self._shift @ apart)
        return np.asarray(np.abs(apart).mean(axis=(1, 2)) / self._contrast, np.float32)

    @staticmethod
    def _cells(grey: U8, boxes: list[Box]) -> F32:
        """[parts, rows, columns] of each part's cells, about its mean."""
        cells = np.empty((len(boxes), *_CELLS[::-1]), np.float32)
        for part, box in zip(cells, boxes, strict=True):
            part[:] = cv2.resize(grey[box], _CELLS, interpolation=cv2.INTER_AREA)
        cells -= cells.mean(axis=(1, 2), keepdims=True)
        return cells


class _HeadSnapshot:
    """A face as a whole in one frame, coarsely: enough to say by which similarity its head has moved since
    (Lucas and Kanade 1981, inverse compositional: Baker and Matthews 2004).

    The similarity takes places z = x + iy about the middle of the face, in cells, to turn * z + move.
    """

    def __init__(self, grey: U8, points: F32) -> None:
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        self._middle = complex(*((low + high) / 2).tolist())
        self._cell = max(float((high - low).max()) / _HEAD_CELLS, 1e-3)
        self._turn, self._move = 1 + 0j, 0j  # as last computed: the next frame's is near
        around = self._coarse(grey)
        across = 0.5 * (around[_INNER, _RIGHT] - around[_INNER, _LEFT])
        down = 0.5 * (around[_RIGHT, _INNER] - around[_LEFT, _INNER])
        slopes = np.stack([across, down, across * _X + down * _Y, down * _X - across * _Y]).reshape(4, -1)
        slopes -= slopes.mean(axis=1, keepdims=True)
        self._then = around[_INNER, _INNER].ravel()
        self._solve = np.linalg.inv(slopes @ slopes.T + _HEAD_STIFF) @ slopes

    def followed(self, grey: U8, boxes: list[Box]) -> list[Box]:
        """Where boxes of the frame lie in another frame, of the same size; a box that would leave the picture stays."""
        now = self._coarse(grey)
        turn, move = self._turn, self._move
        for _ in range(_HEAD_STEPS):
            start = move + _HEAD_MIDDLE - turn * _HEAD_START
            to_now = np.array([[turn.real, -turn.imag, start.real], [turn.imag, turn.real, start.imag]])
            seen = cv2.warpAffine(now, to_now, (_HEAD_CELLS, _HEAD_CELLS), flags=_READ, borderMode=cv2.BORDER_REPLICATE)
            dx, dy, grown, turned = (self._solve @ (seen.ravel() - self._then)).tolist()
            turn /= complex(1 + grown, turned)
            move -= turn * complex(dx, dy)
        if abs(move) > _HEAD_MARGIN or not 0.5 < abs(turn) < 2:  # lost
            turn, move = 1 + 0j, 0j
        self._turn, self._move = turn, move
        return [self._moved(box, grey.shape) for box in boxes]

    def _moved(self, box: Box, shape: tuple[int, ...]) -> Box:
        rows, columns = box
        middle = complex(columns.start + columns.stop - 1, rows.start + rows.stop - 1) / 2 - self._middle
        by = self._turn * middle + self._move * self._cell - middle
        right, down = round(by.real), round(by.imag)
        moved = slice(rows.start + down, rows.stop + down), slice(columns.start + right, columns.stop + right)
        inside = all(part.start >= 0 and part.stop <= limit for part, limit in zip(moved, shape, strict=True))
        return moved if inside else box

    def _coarse(self, grey: U8) -> F32:
        """[_HEAD_SIDE, _HEAD_SIDE] cells of the picture around where the face was, about their mean; its border is repeated."""
        reach = _HEAD_SIDE / 2 * self._cell
        left, top = math.floor(self._middle.real - reach), math.floor(self._middle.imag - reach)
        window = cut_window(grey, left, top, max(1, round(2 * reach)))
        cells = cv2.resize(window, (_HEAD_SIDE, _HEAD_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        cells -= cells[_INNER, _INNER].mean()
        return cells


class SceneSnapshot:
    """A whole frame, coarsely."""

    def __init__(self, frame: Frame) -> None:
        self._size = frame.width, frame.height
        self._then = _coarse(frame.grey)

    def change(self, frame: Frame, without: Iterable[tuple[int, int, int]]) -> float:
        """The largest change of any cell outside some squares (left, top, side; frame pixels), in grey levels, after light that
        changed everywhere alike."""
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


def _box(part: F32, shape: tuple[int, ...]) -> Box | None:
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
