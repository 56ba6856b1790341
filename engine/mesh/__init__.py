"""Pictures -> face regions, mesh points and blendshapes: MediaPipe's three face models behind one contract.

`litert.py` runs them directly and is what is used; `tasks.py` uses MediaPipe itself, as reference and as fallback. Both read
the file that `bundle.py` finds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engine.errors import BackendError
from engine.mesh import bundle
from engine.mesh.contract import BLENDSHAPE_NAMES, MESH_POINTS, FaceMesh, MeshModels, Region, region_around

MeshBackend = Literal["auto", "litert", "mediapipe"]

__all__ = ["BLENDSHAPE_NAMES", "MESH_POINTS", "FaceMesh", "MeshBackend", "MeshModels", "Region", "load", "region_around"]


def load(model: Path | None = None, backend: MeshBackend = "auto") -> MeshModels:
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
