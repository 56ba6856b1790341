"""Frame -> faces: MediaPipe's face models, each face followed by its own mesh, with ids that survive short losses.

Detectors (`engine.faces.detection`) search the frame now and then for faces not followed yet. Each followed face is seen by
the mesh network in a region around where it was, upright and at its own size (`engine.faces.tracking`). Where the mesh loses
its face, the detectors search once more around it. A face that none of them sees is not reported: there are no made-up points.

The networks are expensive, so they run only when something changed (`engine.faces.change`): the mesh at a low rate, and at
once when eyes or mouth change; the detectors when something changes around the faces that are followed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from engine import mesh
from engine.config import LandmarkSettings
from engine.faces.boxes import ALIKE, Box, face_box, inside, region_box, same_face
from engine.faces.change import SceneSnapshot
from engine.faces.continuity import SceneContinuity
from engine.faces.detection import FaceDetector
from engine.faces.identity import Identities
from engine.faces.tracking import EARLY_S, Track
from engine.mesh import FaceMesh, MeshModels, Region, region_around
from engine.types import U8, Face, Frame

_AROUND = 1.7  # side of the square that counts as a face's own when the scene is watched, in face widths
_SMALLEST_FRAME = 24
_SURE = math.log(9)  # least presence of a face that a detector named, nine to one: real ones have nineteen to one and more
_SCENE_CHANGED = 4.0  # grey levels by which a part of the picture differs when a face came
_PATIENCE = 2.0  # in pauses between searches: so long `locate` leaves them to a driver that calls `search_ahead`
_STALE_S = 5.0  # the detectors search again after so long, whatever they saw; where nothing changed, not before
_OTHER_SHAPE = 0.02  # frames whose sides differ by less in proportion are of one shape


class FaceLocator:
    """Finds and follows faces over the frames of one source; call `locate` with frames in order, `close` at the end.
    `backend` runs the face models.

    models are loaded ones, which stay loaded. Raises WeightsError where the face model is missing, BackendError where nothing
    here can run it.
    """

    def __init__(self, settings: LandmarkSettings | None = None, models: MeshModels | None = None) -> None:
        self._settings = settings or LandmarkSettings()
        self._models = models or mesh.load(self._settings.model, self._settings.backend)
        self._owns_models = models is None
        self.backend = self._models.backend
        self._detector = FaceDetector(self._models, self._settings.min_face_px)
        self._identities = Identities()
        self._tracks: list[Track] = []
        self._mesh_t = -math.inf  # when a mesh was taken last, or would have been
        self._search_t = -math.inf
        self._whole = SceneContinuity()
        self._scene: SceneSnapshot | None = None
        self._scene_t = -math.inf
        self._helped = False  # whether a driver searches between frames
        self._faces: list[Face] = []
        self._size = (0, 0)

    def locate(self, frame: Frame) -> list[Face]:
        """Faces in the frame, by id. Between two refreshes of the mesh (see `LandmarkSettings`) the last faces are returned
        again; their `t` says when they were seen."""
        if frame.t < self._mesh_t:
            self._restart()
        self._resize(frame)
        cut = self._compare(frame)
        known = {face.id for face in self._faces}
        new = [track.shown and track.id not in known for track in self._tracks]
        tracks = zip(self._tracks, new, strict=True)
        due = [track for track, is_new in tracks if frame.gap or track.is_due(frame, self._settings, is_new=is_new)]
        if not due and not cut and frame.t - self._mesh_t + EARLY_S < 1 / self._settings.mesh_hz:
            return self._marked()
        self._mesh_t = frame.t
        if min(frame.height, frame.width) < _SMALLEST_FRAME:
            self._faces = []
            return []
        for track in due:
            self._follow(track, frame)
        self._forget(frame.t)
        self._search(frame, _PATIENCE if self._helped else 1.0)
        shown = [(k, k.mesh) for k in self._tracks if k.mesh is not None and k.shown]
        self._faces = [
            Face(track.id, seen.points, track.meshed_t, seen.blendshapes, presence=seen.presence) for track, seen in shown
        ]
        self._faces.sort(key=lambda face: face.id)
        marked = self._marked()
        for track, _ in shown:
            track.returned = False
        return marked

    def search_ahead(self, frame: Frame) -> None:
        """Searches for new faces in the frame that was located last, if it is time to; the next refresh of the mesh has them.

        For a driver with time to spare between frames: while it calls this, `locate` need not take the time of a search.
        """
        if min(frame.height, frame.width) >= _SMALLEST_FRAME:
            self._helped = True
            self._search(frame)

    def prepare(self) -> None:
        """Runs MediaPipe's models once, so that the first frame does not wait for what they set up then.

        dlib's, which is larger, is loaded by the first frame in which they find nothing."""
        blank: U8 = np.zeros((64, 64, 3), np.uint8)
        self._models.detect(blank)
        self._models.mesh(Frame(0, 0.0, blank), Region(32, 32, 48))

    def close(self) -> None:
        """Frees the models, unless they came loaded."""
        if self._owns_models:
            self._models.close()
        self._tracks, self._faces = [], []
        self._identities.clear()

    def _restart(self) -> None:
        self._mesh_t = self._search_t = self._scene_t = -math.inf
        self._helped = False
        self._whole = SceneContinuity()
        for track in self._tracks:
            self._identities.remember(track)
        self._tracks, self._faces = [], []

    def _resize(self, frame: Frame) -> None:
        """Where the frames have another size than before, and the same shape, faces are searched for in the place that is
        theirs now."""
        before, self._size = self._size, (frame.width, frame.height)
        by = frame.width / before[0] if before[0] else 1.0
        if by == 1.0 or abs(frame.height / before[1] / by - 1) > _OTHER_SHAPE:
            return
        for track in self._tracks:
            track.rescale(by)
        self._scene = None

    def _compare(self, frame: Frame) -> bool:
        """Sees how the frame follows the one before, face by face; whether there was a cut: what is there now in a face's place
        may be another face, and the detectors search for all of them at once."""
        for track in self._tracks:
            track.compare(frame)
        another = self._whole.is_another(frame.grey)
        gone = [track for track in self._tracks if another and (track.step == "cut" or track.mesh is None)]
        for track in gone:
            self._identities.remember(track)
        if gone:
            self._tracks = [track for track in self._tracks if track not in gone]
            self._scene, self._search_t = None, -math.inf
        return bool(gone)

    def _marked(self) -> list[Face]:
        """The faces, those marked of which the frame repeats the picture or shows another moment."""
        marked = {track.id: track for track in self._tracks if track.step == "repeat" or track.apart}
        faces = ((face, marked.get(face.id)) for face in self._faces)
        return [replace(face, repeated=k.step == "repeat", apart=k.apart) if k else face for face, k in faces]

    def _follow(self, track: Track, frame: Frame) -> None:
        seen = self._mesh_in(frame, track.region)
        if seen is None and track.mesh is not None:  # lost just now
            found = self._detector.detect_near(frame, track.region)
            same = [region for region in found if same_face(region_box(region), track.box)]
            nearest = max(same, key=lambda region: region.side, default=None)
            seen = None if nearest is None else self._confirmed_mesh(frame, nearest)
        self._update(track, seen, frame)

    def _update(self, track: Track, seen: FaceMesh | None, frame: Frame) -> None:
        track.update(seen, frame, self._settings)
        if seen is not None:
            self._identities.identify(track, seen, frame, self._tracks)

    def _mesh_in(self, frame: Frame, region: Region) -> FaceMesh | None:
        """The mesh in a region; None where that is no face, or none inside the frame and of the size asked for."""
        seen = self._models.mesh(frame, region)
        if seen is None:
            return None
        x, y, width = face_box(seen.points)
        in_frame = 0 <= x < frame.width and 0 <= y < frame.height
        return seen if in_frame and width >= self._settings.min_face_px else None

    def _confirmed_mesh(self, frame: Frame, region: Region) -> FaceMesh | None:
        """The mesh in a region that a detector names, once it also sees a face from where it puts the face itself: what only
        looks like a face, it does not see twice."""
        first = self._mesh_in(frame, region)
        second = None if first is None else self._mesh_in(frame, region_around(first.points))
        return None if second is None or second.presence < _SURE else second

    def _forget(self, now: float) -> None:
        """Drops faces lost for longer than `keep_s`, the newer of two that are one face, and parts of a face."""
        kept: list[Track] = []
        for track in sorted((k for k in self._tracks if k.mesh is not None), key=lambda k: not k.shown):
            rivals = [k for k in kept if inside(track.box, k.box) or inside(k.box, track.box)]
            if not any(k.box[2] > ALIKE * track.box[2] for k in rivals):
                kept = [k for k in kept if k not in rivals] + [track]
        kept += [k for k in self._tracks if k.mesh is None and now - k.seen_t <= self._settings.keep_s]
        for track in self._tracks:
            if track not in kept:
                self._identities.remember(track)
        self._tracks = sorted(kept, key=lambda k: k.id)

    def _search(self, frame: Frame, patience: float = 1.0) -> None:
        """Searches the whole frame: soon again while a face is missing, rarely while all is well, and later with patience."""
        waiting = not self._tracks or any(k.mesh is None for k in self._tracks)
        pause = min(0.2, self._settings.discover_s) if waiting else self._settings.discover_s
        if frame.t - self._search_t < patience * pause - EARLY_S:
            return
        self._search_t = frame.t
        if not waiting and self._is_same_scene(frame):
            return
        self._scene, self._scene_t = SceneSnapshot(frame), frame.t
        for region in self._detector.detect(frame):
            self._admit(region, frame)

    def _admit(self, region: Region, frame: Frame) -> None:
        """Follows the face in a region that a detector named, unless it is followed already or there are enough."""
        box = region_box(region)
        known = [k for k in self._tracks if same_face(k.box, box)]
        if any(k.mesh is not None and (k in known or inside(box, k.box)) for k in self._tracks):
            return
        if not known and len(self._tracks) >= self._settings.max_faces:
            return
        seen = self._confirmed_mesh(frame, region)
        if known:
            self._update(known[0], seen, frame)
        elif seen is not None:
            id_, gallery = self._identities.assign(frame, seen)
            track = Track(id_, region, box, frame.t, frame.t, apart=bool(gallery), returned=bool(gallery), gallery=gallery)
            self._update(track, seen, frame)
            self._tracks.append(track)

    def _is_same_scene(self, frame: Frame) -> bool:
        """Whether, around the faces, the picture still is what the detectors searched not long ago."""
        if self._scene is None or frame.t - self._scene_t >= _STALE_S - EARLY_S:
            return False
        return self._scene.change(frame, (_own_square(k.box) for k in self._tracks)) < _SCENE_CHANGED


def _own_square(box: Box) -> tuple[int, int, int]:
    """Left, top and side of the part of the frame in which a face may move without another having come."""
    side = _AROUND * box[2]
    return round(box[0] - side / 2), round(box[1] - side / 2), round(side)
