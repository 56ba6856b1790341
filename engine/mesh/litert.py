"""MediaPipe's face models run directly by LiteRT.

The same three networks, fed and read as MediaPipe's face landmarker does it (google-ai-edge/mediapipe,
tasks/cc/vision/face_landmarker; its equivalent here is `engine.mesh.tasks`), without its graph around them: no tracker to be
restarted when a face is searched for elsewhere, no smoothing over time, one set of models for all faces.

The detector (BlazeFace, Bazarevsky et al. 2019, arXiv 1907.05047) answers for 896 anchors on two grids of a 128 px view; the
mesh network sees a face upright at 256 px; the blendshape network reads 146 of the mesh's points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from engine.errors import BackendError, first_line
from engine.mesh import MESH_POINTS, FaceMesh, Region, named, region_of_box
from engine.mesh.view import rgb_window
from engine.types import F32, F64, U8, Frame

_DETECTOR_PX, _MESH_PX = 128, 256
_GRIDS = ((16, 2), (8, 6))  # cells along a side, anchors a cell
_SURE = 0.5  # of a detection
_SAME = 0.5  # detections that overlap by more of their union are one
_LOGIT_LIMIT = 100.0
_READ = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

_BLENDSHAPE_POINTS = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80, 81, 82,
    84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153, 154, 155, 157,
    158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270,
    276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334,
    336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398,
    400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
])  # fmt: skip
"""Mesh points [146] that the blendshape network reads."""


class LiteRTModels:
    """`MeshModels` on LiteRT. Raises BackendError where LiteRT is missing or refuses a model."""

    backend = "litert"

    def __init__(self, models: Mapping[str, bytes]) -> None:
        self._detector = _Network(models["face_detector"], "regressors", "classificators")
        self._mesh = _Network(models["face_landmarks_detector"], "Identity", "Identity_1")
        self._blendshapes = _Network(models["face_blendshapes"], "StatefulPartitionedCall:0")
        self._view: F32 = np.empty((1, _MESH_PX, _MESH_PX, 3), np.float32)  # reused: a new one for each mesh is slow

    def detect(self, picture: U8) -> list[Region]:
        """Regions of the faces in a picture [H, W, 3] RGB, the surest first, in its pixels."""
        high, wide = picture.shape[:2]
        side = max(high, wide)
        zoom, left, top = side / _DETECTOR_PX, (wide - side) / 2, (high - side) / 2
        to_picture = np.array([[zoom, 0, left], [0, zoom, top]])
        view = cv2.warpAffine(picture, to_picture, (_DETECTOR_PX, _DETECTOR_PX), flags=_READ)
        boxes, logits = self._detector((view * np.float32(2 / 255) - 1)[None])
        found = side * _faces(boxes.reshape(-1, 16), logits.ravel())
        found[:, [0, 4, 6]] += left
        found[:, [1, 5, 7]] += top
        return [
            region_of_box(x - w / 2, y - h / 2, w, h, np.asarray(eyes, np.float32).reshape(2, 2))
            for x, y, w, h, *eyes in found[:, :8].tolist()
        ]

    def mesh(self, frame: Frame, region: Region) -> FaceMesh | None:
        """The face in a region of the frame, None where there is none."""
        view, to_frame = _upright(frame, region)
        np.multiply(view, np.float32(1 / 255), out=self._view[0])
        flat, logit = self._mesh(self._view)
        points = flat.reshape(MESH_POINTS, 3)
        presence = float(logit.ravel()[0])
        if not presence >= 0 or not np.isfinite(points).all():
            return None
        placed = np.empty((MESH_POINTS, 3), np.float32)
        placed[:, :2] = points[:, :2] @ to_frame[:, :2].T + to_frame[:, 2]
        placed[:, 2] = points[:, 2] * (region.side / _MESH_PX)
        shapes = self._blendshapes(placed[None, _BLENDSHAPE_POINTS, :2])[0]
        return FaceMesh(placed, named(shapes.ravel()), presence)

    def close(self) -> None:
        """Frees the models."""
        for network in (self._detector, self._mesh, self._blendshapes):
            network.close()


class _Network:
    """One network on one thread: an array in, the outputs of these names out."""

    def __init__(self, model: bytes, *outputs: str) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter: Any = Interpreter(model_content=model, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise BackendError(f"LiteRT cannot run the face model: {first_line(error)}") from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        places = {one["name"]: one["index"] for one in self._interpreter.get_output_details()}
        self._outputs = [places[name] for name in outputs]

    def __call__(self, values: F32) -> list[F32]:
        self._interpreter.set_tensor(self._input, values)
        self._interpreter.invoke()
        return [np.asarray(self._interpreter.get_tensor(index), np.float32) for index in self._outputs]

    def close(self) -> None:
        """Frees the network."""
        self._interpreter = None


def _upright(frame: Frame, region: Region) -> tuple[U8, F64]:
    """The region as the mesh network sees it, [256, 256, 3] RGB, and the [2, 3] that takes its pixels to the frame's.

    Only that part of the frame is coloured; a large one is shrunk by whole pixels first, so that nothing is skipped over.
    """
    cos, sin = math.cos(region.angle), math.sin(region.angle)
    side = max(region.side, 2.0)
    shrink = max(1, int(side / _MESH_PX))
    reach = side / 2 * (abs(cos) + abs(sin)) + 2
    step = 2 * shrink
    left, top = (math.floor((at - reach) / step) * step for at in (region.x, region.y))
    window = rgb_window(frame, left, top, math.ceil(2 * reach / step + 1) * step, shrink)
    zoom = side / _MESH_PX
    to_frame = np.array([[cos * zoom, -sin * zoom, 0.0], [sin * zoom, cos * zoom, 0.0]])
    to_frame[:, 2] = np.array([region.x, region.y]) - to_frame[:, :2] @ np.full(2, _MESH_PX / 2)
    to_window = to_frame / shrink
    to_window[:, 2] += (0.5 - np.array([left, top])) / shrink - 0.5  # a pixel of the window is the mean of shrink x shrink
    view = cv2.warpAffine(window, to_window, (_MESH_PX, _MESH_PX), flags=_READ, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(view, np.uint8), to_frame


def _sigmoid(logits: F32) -> F32:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -_LOGIT_LIMIT, _LOGIT_LIMIT))), np.float32)


def _anchors() -> F32:
    """[896, 2] centres of the anchors, in shares of the view."""
    places = []
    for cells, each in _GRIDS:
        y, x = np.mgrid[0:cells, 0:cells].reshape(2, -1)
        places.append(np.repeat((np.stack([x, y], axis=1) + 0.5) / cells, each, axis=0))
    return np.concatenate(places).astype(np.float32)


_ANCHORS = _anchors()


def _faces(boxes: F32, logits: F32) -> F32:
    """[N, 16] of centre, size and six points of each face, in shares of the view, the surest first.

    boxes [896, 16] are in pixels about the anchors. Detections that overlap are averaged by their scores, as BlazeFace's
    paper does against jitter.
    """
    sure = np.flatnonzero(logits > 0)
    scores = _sigmoid(logits[sure])
    placed = boxes[sure] / np.float32(_DETECTOR_PX)
    placed[:, 0:2] += _ANCHORS[sure]
    placed[:, 4:] += np.tile(_ANCHORS[sure], 6)
    order = np.argsort(-scores)
    faces = []
    while len(order):
        same = _overlap(placed[order[0], :4], placed[order, :4]) > _SAME
        same[0] = True
        group = order[same]
        faces.append(np.average(placed[group], axis=0, weights=scores[group]))
        order = order[~same]
    return np.asarray(faces, np.float32).reshape(-1, 16)


def _overlap(one: F32, others: F32) -> F32:
    """Intersection over union of a box (centre, size) with others [N, 4]."""
    low = np.maximum(one[:2] - one[2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = np.minimum(one[:2] + one[2:] / 2, others[:, :2] + others[:, 2:] / 2)
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    return np.asarray(shared / np.maximum(np.prod(one[2:]) + np.prod(others[:, 2:], axis=1) - shared, 1e-9), np.float32)
