"""Pictures -> face regions, mesh points and blendshapes: MediaPipe's three face models, one interface for every backend.

`litert.py` runs them directly and is what is used; `tasks.py` uses MediaPipe itself, as reference and as fallback. Both read
the file that `bundle.py` finds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from engine.errors import BackendError
from engine.mesh import bundle
from engine.types import F32, U8, Frame

MESH_POINTS = 478

BLENDSHAPE_NAMES = (
    *("_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft"),
    *("eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft"),
    *("eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft"),
    *("jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft"),
    *("mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft"),
    *("mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower"),
    *("mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
)
"""The 52 blendshapes in the model's order, by ARKit's names; left and right are the person's own."""

_EYE_CORNERS = (33, 263)  # outer corners, left and right of the picture
_MARGIN = 1.5  # side of a region over the larger side of the box around what it is for


@dataclass(frozen=True)
class Region:
    """A square of a frame, turned by `angle` radians (clockwise as seen), around (x, y), `side` long; all in frame pixels."""

    x: float
    y: float
    side: float
    angle: float = 0.0


@dataclass(frozen=True, eq=False)
class FaceMesh:
    """What the models saw of one face: points [478, 3], (x, y) in frame pixels and z in the same unit (smaller is nearer);
    blendshapes by name, each 0 to 1; presence is how sure the model is that this is a face, in log odds, 0 or more
    (inf where the backend does not say)."""

    points: F32
    blendshapes: Mapping[str, float]
    presence: float


class MeshModels(Protocol):
    """The loaded face models. Stateless: one serves any number of faces. One belongs to one thread at a time."""

    backend: str
    """Which backend runs them: "litert" or "mediapipe"."""

    def detect(self, picture: U8) -> list[Region]:
        """Regions of the faces in a picture [H, W, 3] RGB, in its pixels."""

    def mesh(self, frame: Frame, region: Region) -> FaceMesh | None:
        """The face in a region of the frame, None where there is none."""

    def close(self) -> None:
        """Frees the models."""


def region_around(points: F32) -> Region:
    """The region in which to search for a face whose mesh was at points [478, >= 2] a moment ago: upright with the face, half
    as large again as the box around it (as MediaPipe's face landmarker follows a face)."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    x, y = (low + high) / 2
    return Region(float(x), float(y), _MARGIN * float((high - low).max()), _tilt(*points[list(_EYE_CORNERS), :2]))


def region_of_box(left: float, top: float, width: float, height: float, eyes: F32) -> Region:
    """The region in which to search for a face that a detector framed, with its eyes [2, 2], left and right of the picture."""
    return Region(left + width / 2, top + height / 2, _MARGIN * max(width, height), _tilt(eyes[0], eyes[1]))


def _tilt(left: F32, right: F32) -> float:
    """How far the line of the eyes is turned from level, radians."""
    return math.atan2(float(right[1] - left[1]), float(right[0] - left[0]))


def named(values: F32) -> dict[str, float]:
    """Blendshapes [52] by name."""
    return dict(zip(BLENDSHAPE_NAMES, np.asarray(values, np.float64).tolist(), strict=True))


def load(model: Path | None = None, backend: Literal["auto", "litert", "mediapipe"] = "auto") -> MeshModels:
    """The face models, ready to run; "auto" is LiteRT, or MediaPipe where LiteRT is missing.

    Raises WeightsError where the model is missing or another file, BackendError where nothing here can run it.
    """
    content = bundle.read(model)
    if backend == "mediapipe":
        return _by_mediapipe(content)
    try:
        from engine.mesh.litert import LiteRTModels

        return LiteRTModels(bundle.networks(content))
    except BackendError as error:
        if backend == "litert":
            raise
        try:
            return _by_mediapipe(content)
        except BackendError as also:
            raise BackendError(f"{error}; {also}") from error


def _by_mediapipe(content: bytes) -> MeshModels:
    from engine.mesh.tasks import TasksModels

    return TasksModels(content)
