"""Frame -> faces: MediaPipe's face mesh, one tracker a face, with ids that survive short losses.

Three models share the work. A detector (MediaPipe's full-range one, and dlib's HOG where that finds nothing) looks over the
whole frame now and then for faces not followed yet. Each followed face has a mesh tracker of its own that sees only a window
around it, so small faces are found at their own size and one face's loss never disturbs another. Where a tracker loses its
face, dlib looks once more inside the window. A face that none of them sees is not reported: there are no made-up points.

Looks are dear, so they are taken when they tell something (`engine.glance`): the mesh now and then, and at once when eyes or
mouth change; the detectors when something changes around the faces that are followed.

This is the only module that imports mediapipe or dlib.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from engine.config import LandmarkSettings
from engine.glance import FaceGlance, SceneGlance
from engine.types import F32, U8, Face, Frame
from engine.view import cut_window, rgb_window

MESH_POINTS = 478
_WINDOW = 1.7  # side of a tracker's window in face widths: wide enough for the face to move, too tight for a neighbour
_DRIFT = 0.12  # the window moves once the face's centre is this share of its side away from the middle
_SEEN = 240  # a window of at least twice this side is shrunk for its tracker: the mesh sees a face at 192 px
_LOOK_PX = 640  # long side at which the detectors look over the whole frame
_SMALLEST_FRAME = 24
_EARLY_S = 1e-3  # times of frames are rounded
_CHANGED = 0.12  # a face whose eyes or mouth differ by more is looked at again at once: see FaceGlance.change
_SCENE_CHANGED = 4.0  # grey levels by which a part of the picture differs when somebody came
_SECOND_OPINION = 4.0  # pauses between the looks that dlib takes too, where the first detector sees a face
_PATIENCE = 2.0  # in pauses between the detectors' looks: so long `locate` leaves them to whoever has time for it
_STALE_S = 5.0  # the detectors look again after so long, whatever they saw; where nothing changed, not before

Box = tuple[float, float, float]
"""Centre x, centre y and width of a face, in frame pixels."""


_NOT_NEEDED = ("matplotlib", "matplotlib.pyplot", "sounddevice")


def mediapipe_solutions(also_not: Sequence[str] = ()) -> Any:
    """MediaPipe's classic solutions with its start-up chatter turned down.

    It imports matplotlib for drawings and sounddevice for microphones, which nothing here asks of it: empty modules stand in
    for them meanwhile, unless they are there already. That saves a quarter of a second and 30 MB. also_not names more modules,
    parents before children.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _stood_in_for(() if "mediapipe" in sys.modules else (*_NOT_NEEDED, *also_not)):
        import mediapipe

    return mediapipe.solutions


@contextmanager
def _stood_in_for(names: Sequence[str]) -> Iterator[None]:
    """Empty modules of these names, where there are none yet; gone afterwards."""
    empty = {name: ModuleType(name) for name in names if name not in sys.modules}
    for name, module in empty.items():
        parent, _, child = name.rpartition(".")
        if parent in empty:
            setattr(empty[parent], child, module)
    sys.modules.update(empty)
    try:
        yield
    finally:
        for name, module in empty.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def face_box(points: F32) -> Box:
    """Box around mesh points [478, 3]: centre of their bounds, and the larger of width and height."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    centre = (low + high) / 2
    return float(centre[0]), float(centre[1]), float((high - low).max())


def same_face(a: Box, b: Box) -> bool:
    """Whether two boxes are so near and so alike that they are one face."""
    size = max(a[2], b[2])
    return float(np.hypot(a[0] - b[0], a[1] - b[1])) < 0.5 * size and min(a[2], b[2]) > 0.4 * size


_RECORD = np.dtype(
    [("head", "V2"), ("x_tag", "u1"), ("x", "<f4"), ("y_tag", "u1"), ("y", "<f4"), ("z_tag", "u1"), ("z", "<f4")]
)
_RECORD_TAGS = np.array([0x0A, 15, 0x0D, 0x15, 0x1D], np.uint8)


def landmark_points(landmarks: Any) -> F32:
    """[N, 3] of a list of landmarks, a protocol buffer message.

    Read out of its encoded form, where each point is a record of 17 bytes: ten times as fast as through its objects, which are
    asked only where a record has other fields than x, y and z.
    """
    raw = np.frombuffer(landmarks.SerializeToString(), np.uint8)
    if raw.size % _RECORD.itemsize == 0:
        rows = raw.reshape(-1, _RECORD.itemsize)
        if (rows[:, [0, 1, 2, 7, 12]] == _RECORD_TAGS).all():
            records = raw.view(_RECORD)
            return np.asarray(np.stack([records[axis] for axis in ("x", "y", "z")], axis=1), np.float32)
    return np.array([(p.x, p.y, p.z) for p in landmarks.landmark], np.float32).reshape(-1, 3)


@dataclass
class _Track:
    """One followed face: its mesh tracker and the window of the frame the tracker sees."""

    id: int
    box: Box
    seen_t: float
    mesh: Any
    window: tuple[int, int, int] = (0, 0, 0)  # left, top, side
    shrink: int = 1  # frame pixels along each side of a pixel that the tracker sees
    points: F32 | None = None
    glance: FaceGlance | None = None


class FaceLocator:
    """Finds and follows faces over the frames of one source; call `locate` with frames in order, `close` at the end."""

    def __init__(self, settings: LandmarkSettings | None = None) -> None:
        self._settings = settings or LandmarkSettings()
        solutions = mediapipe_solutions()
        self._mesh_factory = solutions.face_mesh.FaceMesh
        self._detector = solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.5)
        self._hog: Any = None
        self._tracks: list[_Track] = []
        self._spare: list[Any] = []
        self._next_id = 0
        self._mesh_t = -np.inf
        self._discover_t = -np.inf
        self._hog_t = -np.inf
        self._scene: SceneGlance | None = None
        self._scene_t = -np.inf
        self._helped = False  # whether somebody looks around between frames
        self._faces: list[Face] = []

    def locate(self, frame: Frame) -> list[Face]:
        """Faces in the frame, by id. Between two looks of the mesh (`mesh_hz`, or `alert_hz` when a face changes) the last
        faces are returned again: their `t` tells when they were seen."""
        if frame.t < self._mesh_t:
            self._restart()
        if not frame.gap and not self._is_due(frame):
            return self._faces
        self._mesh_t = frame.t
        if min(frame.height, frame.width) < _SMALLEST_FRAME:
            self._faces = []
            return []
        for track in self._tracks:
            self._follow(track, frame)
        self._forget(frame.t)
        self._discover(frame, _PATIENCE if self._helped else 1.0)
        self._faces = [Face(k.id, k.points, frame.t) for k in self._tracks if k.points is not None]
        self._faces.sort(key=lambda face: face.id)
        return self._faces

    def look_around(self, frame: Frame) -> None:
        """Looks for new faces in the frame that was located last, if it is time to; the next look of the mesh has them.

        For a driver with time to spare between frames: while it calls this, `locate` need not take the fiftieth of a second.
        """
        if min(frame.height, frame.width) >= _SMALLEST_FRAME:
            self._helped = True
            self._discover(frame)

    def _is_due(self, frame: Frame) -> bool:
        """Whether the meshes look at this frame: it is time, or a face changed since they did."""
        since, settings = frame.t - self._mesh_t, self._settings
        if since >= 1 / settings.mesh_hz - _EARLY_S:
            return True
        if since < 1 / settings.alert_hz - _EARLY_S:
            return False
        return any(k.glance is not None and k.glance.change(frame.grey) > _CHANGED for k in self._tracks)

    def prepare(self) -> None:
        """Loads every model now rather than with the first frame; it takes half a second."""
        blank: U8 = np.zeros((64, 64, 3), np.uint8)
        self._detector.process(blank)
        mesh = self._new_mesh()
        mesh.process(blank)
        self._spare.append(mesh)
        self._hog_boxes(blank[:, :, 0])

    def close(self) -> None:
        """Frees the models."""
        for mesh in [k.mesh for k in self._tracks] + self._spare + [self._detector]:
            mesh.close()
        self._tracks, self._spare, self._faces = [], [], []

    def _restart(self) -> None:
        self._mesh_t = self._discover_t = self._hog_t = self._scene_t = -np.inf
        self._helped = False
        self._spare += [k.mesh for k in self._tracks]
        self._tracks, self._faces = [], []

    def _follow(self, track: _Track, frame: Frame) -> None:
        points = self._mesh(track, frame)
        if points is None and track.points is not None:  # lost just now: one more look, from a fresh start
            box = self._rescue(track, frame)
            if box is not None:
                self._aim(track, box, frame)
                points = self._mesh(track, frame)
        self._seen(track, points, frame)
        if points is None:
            return
        left, top, side = track.window
        x, y, width = track.box
        off = max(abs(x - left - side / 2), abs(y - top - side / 2)) / side
        if off > _DRIFT or not 0.7 < _WINDOW * width / side < 1.45:
            self._aim(track, track.box, frame)

    def _seen(self, track: _Track, points: F32 | None, frame: Frame) -> None:
        """Keeps what the mesh just saw of a face."""
        track.points = points
        if points is None:
            track.glance = None
            return
        track.box, track.seen_t = face_box(points), frame.t
        if self._settings.alert_hz > self._settings.mesh_hz:
            track.glance = FaceGlance(frame.grey, points)

    def _mesh(self, track: _Track, frame: Frame) -> F32 | None:
        """Mesh points in frame pixels from the track's window, or None where the tracker sees no face."""
        left, top, side = track.window
        result = track.mesh.process(rgb_window(frame, left, top, side, track.shrink)).multi_face_landmarks
        if not result:
            return None
        points = landmark_points(result[0]) * np.float32(side)
        points[:, 0] += left - 0.5
        points[:, 1] += top - 0.5
        x, y, width = face_box(points)
        inside = 0 <= x < frame.width and 0 <= y < frame.height
        return points if inside and np.isfinite(points).all() and width >= self._settings.min_face_px else None

    def _aim(self, track: _Track, box: Box, frame: Frame) -> None:
        """Moves the track's window onto the box; its tracker starts afresh there."""
        x, y, width = box
        side = max(48, round(_WINDOW * width))
        track.shrink = max(1, side // _SEEN)
        step = 2 * track.shrink if track.shrink > 1 else 1
        side = -(-side // step) * step
        track.window = (round((x - side / 2) / step) * step, round((y - side / 2) / step) * step, side)
        track.mesh.reset()

    def _rescue(self, track: _Track, frame: Frame) -> Box | None:
        left, top, side = track.window
        view = cut_window(frame.grey, left, top, side)
        scale = min(1.0, 240 / side)
        small = cv2.resize(view, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else view
        boxes = self._hog_boxes(np.asarray(small, np.uint8))
        found = [(x / scale + left, y / scale + top, w / scale) for x, y, w in boxes]
        near = [b for b in found if same_face(b, track.box)]
        return max(near, key=lambda b: b[2], default=None)

    def _forget(self, now: float) -> None:
        kept: list[_Track] = []
        for track in sorted(self._tracks, key=lambda k: k.id):
            gone = track.points is None and now - track.seen_t > self._settings.keep_s
            twin = track.points is not None and any(same_face(track.box, k.box) for k in kept if k.points is not None)
            if gone or twin:
                self._spare.append(track.mesh)
            else:
                kept.append(track)
        self._tracks = kept

    def _discover(self, frame: Frame, patience: float = 1.0) -> None:
        """Looks over the whole frame: soon again while a face is missing, rarely while all is well, and later with patience."""
        waiting = not self._tracks or any(k.points is None for k in self._tracks)
        pause = min(0.2, self._settings.discover_s) if waiting else self._settings.discover_s
        if frame.t - self._discover_t < patience * pause - _EARLY_S:
            return
        self._discover_t = frame.t
        if not waiting and self._is_same_scene(frame):
            return
        self._scene, self._scene_t = SceneGlance(frame), frame.t
        for box in self._look(frame):
            known = [k for k in self._tracks if same_face(k.box, box)]
            if any(k.points is not None for k in known):
                continue
            if known:
                track = known[0]
            elif len(self._tracks) < self._settings.max_faces:
                track = _Track(self._next_id, box, frame.t, self._new_mesh())
            else:
                continue
            self._aim(track, box, frame)
            self._seen(track, self._mesh(track, frame), frame)
            if track.points is None:
                if not known:
                    self._spare.append(track.mesh)
                continue
            if not known:
                self._next_id += 1
                self._tracks.append(track)

    def _is_same_scene(self, frame: Frame) -> bool:
        """Whether, around the faces, the picture still is what the detectors looked over not long ago."""
        if self._scene is None or frame.t - self._scene_t >= _STALE_S - _EARLY_S:
            return False
        return self._scene.change(frame, (k.window for k in self._tracks)) < _SCENE_CHANGED

    def _new_mesh(self) -> Any:
        if self._spare:
            return self._spare.pop()
        return self._mesh_factory(static_image_mode=False, max_num_faces=1, refine_landmarks=True)

    def _look(self, frame: Frame) -> list[Box]:
        scale = min(1.0, _LOOK_PX / max(frame.height, frame.width))
        small = cv2.resize(frame.rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame.rgb
        high, wide = small.shape[:2]
        boxes: list[Box] = []
        for found in self._detector.process(np.ascontiguousarray(small)).detections or []:
            rel = found.location_data.relative_bounding_box
            x, y = (rel.xmin + rel.width / 2) * wide, (rel.ymin + rel.height / 2) * high
            boxes.append((x / scale, y / scale, max(rel.width * wide, rel.height * high) * 1.25 / scale))
        crowd = frame.t - self._hog_t >= _SECOND_OPINION * self._settings.discover_s - _EARLY_S
        if not boxes or crowd:
            self._hog_t = frame.t
            grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
            extra = [(x / scale, y / scale, w * 1.1 / scale) for x, y, w in self._hog_boxes(grey)]
            boxes += [b for b in extra if not any(same_face(a, b) for a in boxes)]
        return [b for b in boxes if b[2] >= self._settings.min_face_px]

    def _hog_boxes(self, grey: U8) -> list[Box]:
        if self._hog is None:
            import dlib

            self._hog = dlib.get_frontal_face_detector()
        found = self._hog(np.ascontiguousarray(grey), 0)
        return [((r.left() + r.right()) / 2, (r.top() + r.bottom()) / 2, float(r.width())) for r in found]
