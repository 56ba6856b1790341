"""Features of a face for the judge of expressions: thirty rows a second, whatever the frame rate.

A row holds for each of ten regions its velocity, its displacement from its means over the last quarter of a second, second and
four seconds, and its noise; and, where there is a mesh, how head, lids, gaze and jaw change. Long videos that are published as
the flow of facial regions have the first part too, so they, recorded video and a camera are judged in the same form.
"""

from __future__ import annotations

import numpy as np

from engine.registration.regions import REGION_NAMES
from engine.types import F32, F64, Crop

HZ = 30.0
"""Rows a second."""

REGIONS = (
    *("brow_outer_left", "brow_inner_left", "brow_inner_right", "brow_outer_right", "bridge"),
    *("nose", "lip_corner_left", "upper_lip", "lip_corner_right", "lower_lip"),
)
"""The regions [10] that are judged, the picture's left first."""

MIRRORED_REGIONS = (3, 2, 1, 0, 4, 5, 8, 7, 6, 9)
"""Index of each region's counterpart in the mirrored face."""

MESH_FEATURES = ("yaw", "pitch", "eye_opening", "blink", "look_down", "look_aside", "jaw")
"""Features of the mesh [7], scaled to about one."""

MEANS_S = (0.25, 1.0, 4.0)
NOISE_S = 3.0
MAX_STEP_PX = 3.0  # longer steps between two rows are clipped: a cut is no motion
FLOW_WIDTH = 2 * len(REGIONS) * (1 + len(MEANS_S)) + len(REGIONS)
WIDTH = FLOW_WIDTH + 2 * len(MESH_FEATURES) + 1
"""Numbers in a row: velocity and displacements [4, 10, 2], noise [10], rates and deviations of the mesh features [2, 7], 1 with
a mesh."""

_RATE = -np.expm1(-1 / (HZ * np.array(MEANS_S)))[:, None]
_NOISE_RATE = -np.expm1(-1 / (HZ * NOISE_S))
_MESH_RATE = -np.expm1(-1 / HZ)
_MOTION_INDEX = tuple(REGION_NAMES.index(name) for name in REGIONS if name in REGION_NAMES)
_NOSE = [REGION_NAMES.index("nose_left"), REGION_NAMES.index("nose_right")]
_PLACE = [REGIONS.index(name) for name in REGIONS if name in REGION_NAMES]


def region_displacement(crop: Crop) -> F64:
    """Displacement [20] of the ten regions (u, v by turns) in a crop, pixels of the crop."""
    out = np.empty((len(REGIONS), 2))
    out[_PLACE] = crop.motion[list(_MOTION_INDEX)]
    out[4], out[5] = crop.turn[2:4], crop.motion[_NOSE].mean(axis=0)
    return out.ravel()


def mesh_features(crop: Crop) -> F64:
    """The mesh features [7] of a crop by `MESH_FEATURES`."""
    get = crop.blendshapes.get
    aside = get("eyeLookInLeft", 0.0) + get("eyeLookOutRight", 0.0) - get("eyeLookOutLeft", 0.0) - get("eyeLookInRight", 0.0)
    blink = get("eyeBlinkLeft", 0.0) + get("eyeBlinkRight", 0.0)
    down = get("eyeLookDownLeft", 0.0) + get("eyeLookDownRight", 0.0)
    parts = (crop.turn[0], crop.turn[1], 10 * crop.eye_opening, 1.5 * blink, 1.5 * down, 1.5 * aside, 6 * get("jawOpen", 0.0))
    return np.array(parts, np.float64)


class FeatureSeries:
    """The rows of one face: `append` takes its displacements in order; `last_t` is the time of the last row, seconds."""

    def __init__(self) -> None:
        self.size = 0
        self.last_t = -np.inf
        self._rows = np.zeros((512, WIDTH), np.float32)
        self._last: tuple[float, F64, F64 | None] | None = None
        self._place = np.zeros(2 * len(REGIONS))  # displacement without jumps
        self._mean = np.zeros((len(MEANS_S), 2 * len(REGIONS)))
        self._velocity = np.zeros(2 * len(REGIONS))
        self._noise = np.zeros(len(REGIONS))
        self._before: tuple[F64, F64] | None = None  # displacement and mesh features one row ago
        self._usual = np.zeros(len(MESH_FEATURES))

    @property
    def rows(self) -> F32:
        """[n, WIDTH] of the rows kept."""
        return self._rows[: self.size]

    def append(self, t: float, displacement: F64, mesh: F64 | None) -> int:
        """Takes displacement [20], pixels, and mesh features [7] or None at t, seconds; returns how many rows that made."""
        if self._last is None:
            self._last = (t, displacement, mesh)
            self._row(t, displacement, mesh)
            return 1
        (t0, before, mesh0), made = self._last, 0
        while (at := self.last_t + 1 / HZ) <= t + 1e-9:
            share = min((at - t0) / max(t - t0, 1e-9), 1.0)
            between = None if mesh is None or mesh0 is None else mesh0 + share * (mesh - mesh0)
            self._row(at, before + share * (displacement - before), between)
            made += 1
        self._last = (t, displacement, mesh)
        return made

    def drop(self, keep: int) -> int:
        """Drops all rows but the last `keep`, once there are many; returns how many were dropped."""
        dropped = self.size - keep
        if dropped < 256:
            return 0
        self._rows[:keep] = self._rows[dropped : self.size].copy()
        self.size = keep
        return dropped

    def _row(self, t: float, displacement: F64, mesh: F64 | None) -> None:
        if self.size == len(self._rows):
            self._rows = np.resize(self._rows, (2 * self.size, WIDTH))
        row = self._rows[self.size]
        self._flow(row, displacement)
        self._mesh(row, mesh)
        self._before = displacement, self._usual if mesh is None else mesh
        self.last_t = t
        self.size += 1

    def _flow(self, row: F32, displacement: F64) -> None:
        first = self._before is None
        step = displacement * 0 if self._before is None else displacement - self._before[0]
        velocity = np.minimum(np.maximum(step, -MAX_STEP_PX), MAX_STEP_PX)
        self._place = displacement.copy() if first else self._place + velocity
        if first:
            self._mean[:] = self._place
        self._mean += _RATE * (self._place - self._mean)
        jump = velocity - self._velocity
        size = np.minimum(np.hypot(jump[::2], jump[1::2]), 1.0)
        self._noise += _NOISE_RATE * (size - self._noise)
        self._velocity = velocity
        wide = np.concatenate([2 * velocity[None], self._place - self._mean]).ravel()
        row[: len(wide)] = np.copysign(np.log1p(2 * np.abs(wide)), wide) / 1.5
        row[len(wide) : FLOW_WIDTH] = np.log(self._noise + 0.01) / 2 + 1

    def _mesh(self, row: F32, mesh: F64 | None) -> None:
        if mesh is None:
            row[FLOW_WIDTH:] = 0.0
            return
        if self._before is None:
            self._usual, step = mesh.copy(), np.zeros(len(MESH_FEATURES))
        else:
            step = np.minimum(np.maximum(mesh - self._before[1], -2.0), 2.0)
            self._usual = self._usual + _MESH_RATE * (mesh - self._usual)
        row[FLOW_WIDTH:-1] = np.tanh(np.concatenate([2 * step, mesh - self._usual]))
        row[-1] = 1.0
