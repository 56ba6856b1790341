"""Head motion: similarities between sets of points, and the robust fit of a model of a head that sways, nods and turns.

Points are (x, y) on the canvas, the registered crop with a margin around it, in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.geometry import CROP_SIDE
from engine.kernels import Compiled, machine_code
from engine.quantiles import median
from engine.types import F32, F64

_LEFT_EDGE, _RIGHT_EDGE, _TOP, _UNDER_NOSE = 234, 454, 10, 2  # mesh points that expressions leave alone
_FRONTAL_PITCH = -0.151  # radians: the slope from _TOP to _UNDER_NOSE of a face that looks straight ahead
MARGIN = 16  # of the canvas around the crop, on each side
CANVAS = CROP_SIDE + 2 * MARGIN


@dataclass(frozen=True, eq=False)
class Head:
    """Pose of the head against the reference: the fit's terms (a, b, tx, ty, yaw, pitch), the median residual of the head's
    patches in pixels, and the share of them that agree within a pixel."""

    terms: F64
    residual: float
    agree: float

    @property
    def transform(self) -> F64:
        """The similarity part [2, 3], reference canvas to this frame's canvas."""
        a, b, tx, ty = self.terms[:4]
        middle = np.full(2, (CANVAS - 1) / 2)
        linear = np.array([[1 + a, -b], [b, 1 + a]])
        return np.column_stack([linear, np.array([tx, ty]) + middle - linear @ middle])


def yaw_and_pitch(landmarks: F32) -> tuple[float, float]:
    """How the head is turned, radians, by the mesh's landmarks [478, 3] in crop pixels: yaw is positive where the face looks to
    the right of the picture, pitch where it looks down; about 0 straight ahead."""
    across = (landmarks[_RIGHT_EDGE] - landmarks[_LEFT_EDGE]).tolist()
    along = (landmarks[_UNDER_NOSE] - landmarks[_TOP]).tolist()
    return math.atan2(across[2], across[0]), math.atan2(along[2], along[1]) - _FRONTAL_PITCH


def roll_of(transform: F64) -> float:
    """How the head leans, radians, by the transform [2, 3] from frame to crop pixels: positive clockwise as it is seen."""
    return -math.atan2(transform[1, 0], transform[0, 0])


def head_design(points: F64, depth: F64) -> F64:
    """The linear model of head motion at points [N, 2] (canvas pixels) of depth [N] (pixels): [N, 2, 6] for the terms of
    `Head`."""
    x, y = (points - (CANVAS - 1) / 2).T
    zero, one = np.zeros_like(x), np.ones_like(x)
    across = np.stack([x, -y, one, zero, depth, zero], axis=1)
    down = np.stack([y, x, zero, one, zero, depth], axis=1)
    return np.stack([across, down], axis=1)


RIDGE = np.diag([1e-6, 1e-6, 1e-8, 1e-8, 5e-3, 5e-3])
"""[6, 6]: ridge penalty on the terms of `Head`; turns are kept small, the rest is almost free."""

ROUNDS = 7
"""Reweightings of the robust fit."""


def fit_head(design: F64, moved: F64, trust: F64, heads: slice, finest: float = 0.1) -> Head:
    """The robust fit of displacements moved [N, 2], pixels, with weights trust [N] by the model design [N, 2, T] of T terms
    (T is 6, see `head_design`); `heads` are the rows of the head's own patches, finest the least scale of the
    residuals, in pixels."""
    code = machine_code()
    if code is None:
        return fit_by_numpy(design, moved, trust, heads, finest)
    return fit_by_machine_code(design, moved, trust, heads, finest, fit=code.fit)


def fit_by_numpy(design: F64, moved: F64, trust: F64, heads: slice, finest: float) -> Head:
    """`fit_head` in numpy."""
    flat, target = design.reshape(-1, design.shape[2]), moved.ravel()
    terms: F64 = np.zeros(design.shape[2])
    residual: F64 = np.zeros(len(moved))
    weight = trust
    voters = trust[heads] > 0
    for k in range(ROUNDS):
        weighted = (flat * np.repeat(weight, 2)[:, None]).T
        terms = np.asarray(np.linalg.solve(weighted @ flat + RIDGE, weighted @ target), np.float64)
        residuals = (target - flat @ terms).reshape(-1, 2)
        residual = np.hypot(residuals[:, 0], residuals[:, 1])
        spread = 1.5 * float(median(residual[heads][voters])) if voters.any() else 1.0
        scale = max(spread, finest, 0.5**k)
        weight = trust / (1 + (residual / (2 * scale)) ** 2) ** 2
    total = max(float(trust[heads].sum()), 1e-9)
    agree = float((trust[heads] * (residual[heads] < 1.0)).sum()) / total
    return Head(terms, float(median(residual[heads])), agree)


def fit_by_machine_code(design: F64, moved: F64, trust: F64, heads: slice, finest: float, *, fit: Compiled) -> Head:
    """`fit_head` by the machine code of `engine.kernels.heads`."""
    arrays = (np.ascontiguousarray(one, np.float64) for one in (design, moved, trust))
    first, stop, _ = heads.indices(len(moved))
    return Head(*fit(*arrays, first, stop, finest, RIDGE, ROUNDS))
