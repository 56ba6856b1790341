"""What a face's regions and eyes do, as the judge of expressions sees it: thirty rows a second, whatever the frame rate.

A row tells of each of ten regions how fast it moves, how far it stands from where it stood on average over the last quarter
of a second, second and four seconds, and how noisy it is; and, where a mesh looks at the face, how head, lids, gaze and jaw
change. Long videos that are published as the flow of facial regions have the first part too: this is the common form in
which they, recorded video and a camera are judged.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.registration.align import REGION_NAMES
from engine.types import F32, F64, Crop

HZ = 30.0
"""Rows a second."""

REGIONS = (
    *("brow_outer_left", "brow_inner_left", "brow_inner_right", "brow_outer_right", "bridge"),
    *("nose", "lip_corner_left", "upper_lip", "lip_corner_right", "lower_lip"),
)
"""The regions [10] that are judged, the picture's left first."""

MIRRORED_REGIONS = (3, 2, 1, 0, 4, 5, 8, 7, 6, 9)
"""Where each region lies in the mirror."""

MESH_FEATURES = ("yaw", "pitch", "eye_opening", "blink", "look_down", "look_aside", "jaw")
"""What a mesh adds [7], scaled to about one."""

MEANS_S = (0.25, 1.0, 4.0)
NOISE_S = 3.0
MAX_STEP_PX = 3.0  # a region that goes further between two rows is taken to have gone so far: a cut is no motion
FLOW_WIDTH = 2 * len(REGIONS) * (1 + len(MEANS_S)) + len(REGIONS)
WIDTH = FLOW_WIDTH + 2 * len(MESH_FEATURES) + 1
"""Numbers in a row: velocity and displacements [4, 10, 2], noise [10], what a mesh adds and its rate [2, 7], whether it did."""

_PACE = -np.expm1(-1 / (HZ * np.array(MEANS_S)))[:, None]
_NOISE_PACE = -np.expm1(-1 / (HZ * NOISE_S))
_MESH_PACE = -np.expm1(-1 / HZ)
_SIDES = tuple(REGION_NAMES.index(name) for name in REGIONS if name in REGION_NAMES)
_NOSE = [REGION_NAMES.index("nose_left"), REGION_NAMES.index("nose_right")]
_PLACE = [REGIONS.index(name) for name in REGIONS if name in REGION_NAMES]


def region_displacement(crop: Crop) -> F64:
    """Displacement [20] of the ten regions (u, v by turns) in a crop, pixels of the crop."""
    out = np.empty((len(REGIONS), 2))
    out[_PLACE] = crop.motion[list(_SIDES)]
    out[4], out[5] = crop.turn[2:4], crop.motion[_NOSE].mean(axis=0)
    return out.ravel()


def mesh_features(crop: Crop) -> F64:
    """What the mesh saw last in a crop, [7] by `MESH_FEATURES`."""
    shapes: Mapping[str, float] = crop.blendshapes
    get = shapes.get
    aside = get("eyeLookInLeft", 0.0) + get("eyeLookOutRight", 0.0) - get("eyeLookOutLeft", 0.0) - get("eyeLookInRight", 0.0)
    blink = get("eyeBlinkLeft", 0.0) + get("eyeBlinkRight", 0.0)
    down = get("eyeLookDownLeft", 0.0) + get("eyeLookDownRight", 0.0)
    parts = (crop.turn[0], crop.turn[1], 10 * crop.eye_opening, 1.5 * blink, 1.5 * down, 1.5 * aside, 6 * get("jawOpen", 0.0))
    return np.array(parts, np.float64)


class FeatureSeries:
    """The rows of one face: `take` its displacements in order; `rows` [n, WIDTH] float32 at `times` [n], seconds."""

    def __init__(self) -> None:
        self.size = 0
        self._t = np.zeros(512)
        self._rows = np.zeros((512, WIDTH), np.float32)
        self._last: tuple[float, F64, F64 | None] | None = None
        self._place = np.zeros(2 * len(REGIONS))  # displacement, jumps taken out
        self._mean = np.zeros((len(MEANS_S), 2 * len(REGIONS)))
        self._velocity = np.zeros(2 * len(REGIONS))
        self._noise = np.zeros(len(REGIONS))
        self._before: tuple[F64, F64] | None = None  # displacement, and what the mesh saw, one row ago
        self._usual = np.zeros(len(MESH_FEATURES))

    @property
    def times(self) -> F64:
        """[n] of the rows kept."""
        return self._t[: self.size]

    @property
    def rows(self) -> F32:
        """[n, WIDTH] of the rows kept."""
        return self._rows[: self.size]

    def take(self, t: float, displacement: F64, mesh: F64 | None) -> int:
        """The face at a moment: displacement [20], mesh [7] or None where no mesh looks. Returns how many rows that made."""
        if self._last is None:
            self._last = (t, displacement, mesh)
            self._row(t, displacement, mesh)
            return 1
        (t0, from_, mesh0), made = self._last, 0
        while self._t[self.size - 1] + 1 / HZ <= t + 1e-9:
            at = self._t[self.size - 1] + 1 / HZ
            share = min((at - t0) / max(t - t0, 1e-9), 1.0)
            between = None if mesh is None or mesh0 is None else mesh0 + share * (mesh - mesh0)
            self._row(at, from_ + share * (displacement - from_), between)
            made += 1
        self._last = (t, displacement, mesh)
        return made

    def forget(self, keep: int) -> int:
        """Lets go of all rows but the last `keep`, once they are many; returns how many went."""
        gone = self.size - keep
        if gone < 256:
            return 0
        self._t[:keep], self._rows[:keep] = self._t[gone : self.size].copy(), self._rows[gone : self.size].copy()
        self.size = keep
        return gone

    def _row(self, t: float, displacement: F64, mesh: F64 | None) -> None:
        if self.size == len(self._t):
            self._t, self._rows = np.resize(self._t, 2 * self.size), np.resize(self._rows, (2 * self.size, WIDTH))
        row = self._rows[self.size]
        self._flow(row, displacement)
        self._mesh(row, mesh)
        self._before = displacement, self._usual if mesh is None else mesh
        self._t[self.size] = t
        self.size += 1

    def _flow(self, row: F32, displacement: F64) -> None:
        first = self._before is None
        step = displacement * 0 if self._before is None else displacement - self._before[0]
        velocity = np.minimum(np.maximum(step, -MAX_STEP_PX), MAX_STEP_PX)
        self._place = displacement.copy() if first else self._place + velocity
        if first:
            self._mean[:] = self._place
        self._mean += _PACE * (self._place - self._mean)
        jump = velocity - self._velocity
        size = np.minimum(np.hypot(jump[::2], jump[1::2]), 1.0)
        self._noise += _NOISE_PACE * (size - self._noise)
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
            self._usual = self._usual + _MESH_PACE * (mesh - self._usual)
        row[FLOW_WIDTH:-1] = np.tanh(np.concatenate([2 * step, mesh - self._usual]))
        row[-1] = 1.0
