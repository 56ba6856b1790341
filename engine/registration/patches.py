"""Patches of a reference picture of the face, tracked in other pictures of it by their texture (Lucas-Kanade).

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
"""A patch's sides; wide, because video compression moves texture by whole macroblocks."""

_LEVELS = 0  # the search starts within a pixel or two; at coarser levels the eyes would reach into every patch
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.005)
_MAX_ERROR = 14.0  # mean difference of a found patch, grey levels
_EYE_RADII = (19.0, 11.0)  # of the ellipses over the eyes: lids and gaze are no head motion
_NEGLIGIBLE = 1e-4  # a change of grey by this share is lost in rounding


class Patches:
    """Patches around places [P, 2] of a reference canvas [160, 160], grey levels, with mesh points landmarks [478, 2].

    Places and landmarks are (x, y) in pixels of the canvas. trust [P] is how well each can be located, 0 to 1.
    """

    def __init__(self, canvas: U8, landmarks: F64, places: F64) -> None:
        self.places = places
        self.trust = _texture(canvas, places)
        self._mean, self._deviation = _mean_and_deviation(canvas)
        self._eyes = _eyes(landmarks)
        self._covered = _without_eyes(canvas, self._eyes, self._mean)

    def find(self, canvas: U8, starts: F64) -> tuple[F64, F64]:
        """Displacement [P, 2] of each patch in a canvas [160, 160] of another moment, and 1 where it was found, else 0: [P].

        starts [P, 2] are the initial displacements, (x, y) in pixels of the canvas, a pixel or two from the result. Brightness
        and contrast of the canvas do not matter.
        """
        code = machine_code()
        return self.find_by_opencv(canvas, starts) if code is None else self.find_by_machine_code(canvas, starts, code)

    def find_by_opencv(self, canvas: U8, starts: F64) -> tuple[F64, F64]:
        """`find` by OpenCV."""
        mean, deviation = _mean_and_deviation(canvas)
        gain = self._deviation / max(deviation, 1.0)
        level = np.asarray(cv2.convertScaleAbs(canvas, alpha=gain, beta=self._mean - gain * mean), np.uint8)
        covered = _without_eyes(level, self._eyes, self._mean)
        initial = (self.places + starts).astype(np.float32).reshape(-1, 1, 2)
        at, status, error = cv2.calcOpticalFlowPyrLK(
            self._covered, covered, self.places.astype(np.float32).reshape(-1, 1, 2), initial,
            winSize=WINDOW, maxLevel=_LEVELS, criteria=_CRITERIA, flags=cv2.OPTFLOW_USE_INITIAL_FLOW, minEigThreshold=1e-4,
        )  # fmt: skip
        found = (status[:, 0] == 1) & (error[:, 0] < _MAX_ERROR)
        return np.asarray(at[:, 0] - self.places, np.float64), found.astype(np.float64)

    def find_by_machine_code(self, canvas: U8, starts: F64, code: MachineCode) -> tuple[F64, F64]:
        """`find` by the machine code of `engine.kernels.patches`, within a thousandth of a pixel of OpenCV's."""
        eyes = self._eyes
        corner = eyes.rows.start, eyes.columns.start
        level = code.level(np.ascontiguousarray(canvas), MARGIN, self._mean, self._deviation, eyes.stays, *corner)
        motion, found = code.follow(level, CANVAS, *self._cut, np.ascontiguousarray(starts, np.float64), _MAX_ERROR)
        return motion, found

    @cached_property
    def _cut(self) -> tuple[F64, F32, F64]:
        from engine.kernels.patches import cut

        places = np.ascontiguousarray(self.places, np.float64)
        return places, *cut(self._covered, places)


def _mean_and_deviation(canvas: U8) -> tuple[float, float]:
    """Of the grey levels inside of the margin."""
    mean, deviation = cv2.meanStdDev(canvas[MARGIN:-MARGIN, MARGIN:-MARGIN])
    return float(mean[0, 0]), float(deviation[0, 0])


def _texture(canvas: U8, points: F64) -> F64:
    """How well each patch can be located, 0 to 1: its smaller gradient eigenvalue, saturating above the level of noise."""
    eigen = cv2.cornerMinEigenVal(canvas, blockSize=WINDOW[0], ksize=3)
    found = cv2.remap(eigen, points[:, 0].astype(np.float32)[None], points[:, 1].astype(np.float32)[None], cv2.INTER_LINEAR)[0]
    return np.asarray(found / (found + 2e-4), np.float64)


@dataclass(frozen=True, eq=False)
class _Eyes:
    """Mask over the eyes: the part of the canvas with them, and in it the share [h, w] of the picture that stays."""

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
    changed: npt.NDArray[np.bool_] = np.less(stays, 1 - _NEGLIGIBLE)
    rows, columns = _extent(np.asarray(changed.any(axis=1))), _extent(np.asarray(changed.any(axis=0)))
    return _Eyes(rows, columns, np.ascontiguousarray(stays[rows, columns]))


def _extent(present: npt.NDArray[np.bool_]) -> slice:
    """From the first to the last True; empty where there is none."""
    found = np.flatnonzero(present)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _without_eyes(canvas: U8, eyes: _Eyes, mean: float) -> U8:
    """The canvas with both eyes painted over in a mean grey."""
    covered, part = canvas.copy(), (eyes.rows, eyes.columns)
    covered[part] = np.rint((canvas[part] - np.float32(mean)) * eyes.stays + np.float32(mean))
    return covered
