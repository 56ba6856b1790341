"""MediaPipe's face landmarker through its own Tasks API: the reference for `engine.mesh.litert`, and its fallback.

It detects the face in the region each time (running mode IMAGE) and carries nothing from one frame to the next. That costs
nearly twice the time and a hundred megabytes more; the numbers agree (see tests).

This is the only module that imports mediapipe.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from engine.errors import BackendError, first_line
from engine.mesh import MESH_POINTS, FaceMesh, Region, named, region_around
from engine.mesh.view import rgb_window
from engine.types import F32, U8, Frame

_WINDOW_PX = 480  # a window twice as long is shrunk
_MAX_FACES = 32


class TasksModels:
    """`MeshModels` on MediaPipe's Tasks API, from the content of the face model.

    Raises BackendError where mediapipe is missing or refuses the model.
    """

    backend = "mediapipe"

    def __init__(self, model: bytes) -> None:
        self._one, self._all = _landmarker(model, "IMAGE", 1), _landmarker(model, "IMAGE", _MAX_FACES)

    def detect(self, picture: U8) -> list[Region]:
        """Regions of the faces in a picture [H, W, 3] RGB, in its pixels."""
        found = self._all.detect(_image(picture)).face_landmarks
        return [region_around(_points(one, *picture.shape[1::-1])) for one in found]

    def mesh(self, frame: Frame, region: Region) -> FaceMesh | None:
        """The face in a region of the frame, None where there is none."""
        shrink = max(1, int(region.side / _WINDOW_PX))
        step = 2 * shrink
        side = max(step, round(region.side / step) * step)
        left, top = (round((at - side / 2) / step) * step for at in (region.x, region.y))
        seen = self._one.detect(_image(rgb_window(frame, left, top, side, shrink)))
        if not seen.face_landmarks:
            return None
        points = _points(seen.face_landmarks[0], side, side)
        points[:, :2] += (left, top)
        shapes = np.array([one.score for one in seen.face_blendshapes[0]], np.float32)
        return FaceMesh(points, named(shapes), math.inf)

    def close(self) -> None:
        """Frees the models."""
        self._one.close()
        self._all.close()


class VideoMesh:
    """MediaPipe's face landmarker as one would use it on a video without this project: on whole pictures, every one of them,
    with its own tracker and its own smoothing over time. What speed is measured beside. Raises as `TasksModels`."""

    def __init__(self, model: bytes) -> None:
        self._landmarker = _landmarker(model, "VIDEO", 1)
        self._stamp = -1  # milliseconds; MediaPipe refuses one that does not grow

    def find(self, picture: U8, t: float) -> F32 | None:
        """[478, 3] points in pixels of a picture [H, W, 3] RGB at t seconds, or None where no face is seen."""
        self._stamp = max(self._stamp + 1, round(1000 * t))
        found = self._landmarker.detect_for_video(_image(picture), self._stamp).face_landmarks
        return _points(found[0], *picture.shape[1::-1]) if found else None

    def close(self) -> None:
        """Frees the models."""
        self._landmarker.close()


def _landmarker(model: bytes, mode: str, faces: int) -> Any:
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=model),
            running_mode=vision.RunningMode[mode],
            num_faces=faces,
            output_face_blendshapes=True,
        )
        return vision.FaceLandmarker.create_from_options(options)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise BackendError(f"mediapipe cannot run the face model: {first_line(error)}") from error


def _image(picture: U8) -> Any:
    """mediapipe's image; a strided array would silently show no face."""
    import mediapipe

    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))


def _points(landmarks: Any, width: int, height: int) -> F32:
    """[478, 3] in pixels of a picture of this size; MediaPipe reads pictures with pixel centres at whole numbers on a CPU."""
    points = np.array([(one.x, one.y, one.z) for one in landmarks], np.float32).reshape(MESH_POINTS, 3)
    return points * np.array([width, height, width], np.float32)
