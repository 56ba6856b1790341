"""Patches of a reference picture of the face, found again in other pictures of it by their texture.

Points and lengths are pixels of the canvas, the registered crop with a margin around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from engine.kernels import MachineCode, machine_code
from engine.registration.head import CANVAS, MARGIN
from engine.types import F32, F64, U8

WINDOW = (27, 27)
"""A patch's sides; wide, because video compression drags texture about in patches of a macroblock."""

_LEVELS = 0  # the mesh starts the search within a pixel or two; coarser levels would only let the eyes into every patch
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.005)
_MAX_ERROR = 14.0  # grey levels a patch may differ on average and still count as found
_EYE_RADII = (19.0, 11.0)  # of the ellipses painted over the eyes: lids and gaze are no head motion
_UNSEEN = 1e-4  # a change of grey by this share of it is lost in rounding


class Patches:
    """Patches around places [P, 2] of a reference canvas [160, 160], grey levels, on which the mesh lies at landmarks [478, 2].

    Places and landmarks are (x, y) in pixels of the canvas. trust [P] tells how well each can be located, 0 to 1.
    """

    def __init__(self, canvas: U8, landmarks: F64, places: F64) -> None:
        self.places = places
        self.trust = _texture(canvas, places)
        self._mean, self._deviation = _mean_and_deviation(canvas)
        self._eyes = _eyes(landmarks)
        self._blind = _without_eyes(canvas, self._eyes, self._mean)

    def find(self, canvas: U8, starts: F64) -> tuple[F64, F64]:
        """Displacement [P, 2] of each patch in a canvas [160, 160] of another moment, and 1 where it was found, else 0: [P].

        starts [P, 2] are the displacements the search begins with, (x, y) in pixels of the canvas, a pixel or two from the
        answer. How light the canvas is does not matter.
        """
        code = machine_code()
        return self.find_by_opencv(canvas, starts) if code is None else self.find_by_machine_code(canvas, starts, code)

    def find_by_opencv(self, canvas: U8, starts: F64) -> tuple[F64, F64]:
        """`find` by OpenCV."""
        mean, deviation = _mean_and_deviation(canvas)
        gain = self._deviation / max(deviation, 1.0)
        level = np.asarray(cv2.convertScaleAbs(canvas, alpha=gain, beta=self._mean - gain * mean), np.uint8)
        blind = _without_eyes(level, self._eyes, self._mean)
        begin = (self.places + starts).astype(np.float32).reshape(-1, 1, 2)
        at, status, error = cv2.calcOpticalFlowPyrLK(
            self._blind, blind, self.places.astype(np.float32).reshape(-1, 1, 2), begin,
            winSize=WINDOW, maxLevel=_LEVELS, criteria=_CRITERIA, flags=cv2.OPTFLOW_USE_INITIAL_FLOW, minEigThreshold=1e-4,
        )  # fmt: skip
        found = (status[:, 0] == 1) & (error[:, 0] < _MAX_ERROR)
        return np.asarray(at[:, 0] - self.places, np.float64), found.astype(np.float64)

    def find_by_machine_code(self, canvas: U8, starts: F64, code: MachineCode) -> tuple[F64, F64]:
        """`find` by the machine code of `engine.kernels.patches`, to less than a thousandth of a pixel what OpenCV finds."""
        eyes = self._eyes
        corner = eyes.rows.start, eyes.columns.start
        level = code.level(np.ascontiguousarray(canvas), MARGIN, self._mean, self._deviation, eyes.stays, *corner)
        motion, found = code.follow(level, CANVAS, *self._cut, np.ascontiguousarray(starts, np.float64), _MAX_ERROR)
        return motion, found

    @cached_property
    def _cut(self) -> tuple[F64, F32, F64]:
        from engine.kernels.patches import cut

        places = np.ascontiguousarray(self.places, np.float64)
        return places, *cut(self._blind, places)


def _mean_and_deviation(canvas: U8) -> tuple[float, float]:
    """Of the grey levels inside of the margin."""
    mean, deviation = cv2.meanStdDev(canvas[MARGIN:-MARGIN, MARGIN:-MARGIN])
    return float(mean[0, 0]), float(deviation[0, 0])


def _texture(canvas: U8, points: F64) -> F64:
    """How well each patch can be located, 0 to 1: its smaller gradient eigenvalue, soft against a level at which noise wins."""
    eigen = cv2.cornerMinEigenVal(canvas, blockSize=WINDOW[0], ksize=3)
    found = cv2.remap(eigen, points[:, 0].astype(np.float32)[None], points[:, 1].astype(np.float32)[None], cv2.INTER_LINEAR)[0]
    return np.asarray(found / (found + 2e-4), np.float64)


@dataclass(frozen=True, eq=False)
class _Eyes:
    """Where the eyes are painted over: the part of the canvas that holds them, and in it the share [h, w] of what stays."""

    rows: slice
    columns: slice
    stays: F32


def _eyes(landmarks: F64) -> _Eyes:
    """Both eyes, with soft edges, from mesh points on the canvas."""
    y, x = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
    inside = np.zeros((CANVAS, CANVAS), bool)
    for outer, inner in ((33, 133), (263, 362)):
        middle = (landmarks[outer] + landmarks[inner]) / 2
        inside |= ((x - middle[0]) / _EYE_RADII[0]) ** 2 + ((y - middle[1] + 1) / _EYE_RADII[1]) ** 2 < 1
    stays = np.asarray(cv2.GaussianBlur(1 - inside.astype(np.float32), (0, 0), 2.0), np.float32)
    changed: npt.NDArray[np.bool_] = np.less(stays, 1 - _UNSEEN)
    rows, columns = _extent(np.asarray(changed.any(axis=1))), _extent(np.asarray(changed.any(axis=0)))
    return _Eyes(rows, columns, np.ascontiguousarray(stays[rows, columns]))


def _extent(present: npt.NDArray[np.bool_]) -> slice:
    """From the first to the last that is present; empty where none is."""
    found = np.flatnonzero(present)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _without_eyes(canvas: U8, eyes: _Eyes, mean: float) -> U8:
    """The canvas with both eyes painted over in a mean grey."""
    blind, part = canvas.copy(), (eyes.rows, eyes.columns)
    blind[part] = np.rint((canvas[part] - np.float32(mean)) * eyes.stays + np.float32(mean))
    return blind
