"""Frame -> faces: MediaPipe's face models, each face followed by its own mesh, with ids that survive short losses.

Three models share the work. A detector (MediaPipe's, over the whole picture and over tiles of it, so that small faces are
found too; dlib's HOG where that finds nothing) searches the frame now and then for faces not followed yet. Each followed face
is seen by the mesh network in a region around where it was, upright and at its own size. Where the mesh loses its face, the
detectors search once more around it. A face that none of them sees is not reported: there are no made-up points.

The networks are expensive, so they run only when something changed (`engine.faces.glance`): the mesh at a low rate, and at
once when eyes or mouth change; the detectors when something changes around the faces that are followed.

This is the only module that imports dlib; MediaPipe's models are behind `engine.mesh`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from engine import mesh
from engine.config import LandmarkSettings
from engine.faces.appearance import OTHER, SAME, Looks, look_of
from engine.faces.continuity import Continuity, Leaps, SceneContinuity, Step
from engine.faces.glance import FaceGlance, SceneGlance
from engine.faces.view import rgb_window
from engine.mesh import FaceMesh, MeshModels, Region, region_around
from engine.types import F32, U8, Face, Frame

_SEARCH_PX = 640  # long side at which the detectors search the whole frame
_TILE, _SMALLEST_TILE = 0.375, 0.2  # side of the detector's tiles in long sides of the frame: at most, and in large frames
_TILE_FRAME_PX = 480  # side of a tile, frame pixels, between these two: a face of 60 is an eighth of it
_TILE_PX = 240  # side to which a larger tile is shrunk; the detector sees it at 128
_LEAST_TILE_PX = 120  # a smaller tile shows no more than the whole frame
_AROUND_LOST = 1.35  # side of the window in which a lost face is searched for, in sides of its region
_AROUND = 1.7  # side of the square that counts as a face's own when the scene is watched, in face widths
_SMALLEST_FRAME = 24
_EARLY_S = 1e-3  # times of frames are rounded
_SURE = 0.9  # least presence of a face that a detector named: real ones have .95 and more
_CHANGED = 0.25  # a face whose eyes or mouth differ by more is looked at again at once: see FaceGlance.change
_SCENE_CHANGED = 4.0  # grey levels by which a part of the picture differs when somebody came
_PATIENCE = 2.0  # in pauses between searches: so long `locate` leaves them to whoever has time for it
_STALE_S = 5.0  # the detectors search again after so long, whatever they saw; where nothing changed, not before
_PART, _HEAD = 0.5, 0.8  # a box of less than this share of a face's width is a part of it within so many widths of its centre
_CLOSE = 0.8  # faces whose centres are so many widths apart may be taken for each other
_LOOK_S = 0.5  # pause between looks at who it is
_DOUBT_S = 0.5  # who looks like nobody known for so long is somebody new
_REMEMBERED = 16  # faces that left
_OTHER_SHAPE = 0.02  # frames whose sides differ by less in proportion are of one shape
_ALIKE = 0.4  # least ratio of the widths of two boxes of one face
_FROM_BOX = 1.5  # side of the region of a face in widths of its box
_WIDER_THAN_HOG = 1.1  # that box in widths of the one that dlib draws

Box = tuple[float, float, float]
"""Centre x, centre y and width of a face, in frame pixels."""


def face_box(points: F32) -> Box:
    """Box around mesh points [478, 3]: centre of their bounds, and the larger of width and height."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    centre = (low + high) / 2
    return float(centre[0]), float(centre[1]), float((high - low).max())


def same_face(a: Box, b: Box) -> bool:
    """Whether two boxes are so near and so alike that they are one face."""
    size = max(a[2], b[2])
    return float(np.hypot(a[0] - b[0], a[1] - b[1])) < 0.5 * size and min(a[2], b[2]) > _ALIKE * size


def _near(a: Box, b: Box) -> bool:
    """Whether one of two faces may be taken for the other."""
    return float(np.hypot(a[0] - b[0], a[1] - b[1])) < _CLOSE * max(a[2], b[2])


def inside(a: Box, b: Box) -> bool:
    """Whether box a lies within box b or, much smaller, on the head around it: an eye is no face of its own, nor is a curl.

    (So a face right in front of a much larger one, as before a screen, is not followed.)
    """
    reach = _HEAD if a[2] < _PART * b[2] else 0.5
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) < reach * b[2]


def _box_of(region: Region) -> Box:
    return region.x, region.y, region.side / _FROM_BOX


@dataclass(eq=False)
class _Track:
    """One followed face: where it is looked for next, when it was seen and looked for last, and what the mesh saw of it then,
    None where it saw no face; how the frame at hand follows the one before, whether it shows another moment (`Leaps`), and
    whether it shows what the mesh saw. looks are how the face looked; close says that another one came close since that was
    compared, doubted_since since when it looks like somebody else.
    """

    id: int
    region: Region
    box: Box
    seen_t: float
    looked_t: float
    seen: FaceMesh | None = None
    glance: FaceGlance | None = None
    continuity: Continuity | None = None
    leaps: Leaps = field(default_factory=Leaps)
    step: Step = "next"
    apart: bool = False
    as_seen: bool = False
    looks: Looks = field(default_factory=Looks)
    look_t: float = -math.inf
    close: bool = False
    doubted_since: float | None = None

    @property
    def shows(self) -> bool:
        """Whether the mesh saw a face and nothing speaks against its being this one."""
        return self.seen is not None and self.doubted_since is None


class FaceLocator:
    """Finds and follows faces over the frames of one source; call `locate` with frames in order, `close` at the end.

    Raises WeightsError where the face model is missing, BackendError where nothing here can run it.
    """

    def __init__(self, settings: LandmarkSettings | None = None) -> None:
        self._settings = settings or LandmarkSettings()
        self._models: MeshModels = mesh.load(self._settings.model, self._settings.backend)
        self._hog: Any = None
        self._tracks: list[_Track] = []
        self._next_id = 0
        self._mesh_t = -np.inf  # when a mesh looked last, or would have
        self._search_t = -np.inf
        self._whole = SceneContinuity()
        self._scene: SceneGlance | None = None
        self._scene_t = -np.inf
        self._helped = False  # whether somebody looks around between frames
        self._faces: list[Face] = []
        self._size = (0, 0)
        self._gone: dict[int, Looks] = {}  # faces that left, by id

    @property
    def backend(self) -> str:
        """What runs the face models."""
        return self._models.backend

    def locate(self, frame: Frame) -> list[Face]:
        """Faces in the frame, by id. Between two looks of the mesh (see `LandmarkSettings`) the last
        faces are returned again: their `t` tells when they were seen."""
        if frame.t < self._mesh_t:
            self._restart()
        self._resize(frame)
        cut = self._step(frame)
        due = [track for track in self._tracks if frame.gap or self._is_due(track, frame)]
        if not due and not cut and frame.t - self._mesh_t + _EARLY_S < 1 / self._settings.mesh_hz:
            return self._shown()
        self._mesh_t = frame.t
        if min(frame.height, frame.width) < _SMALLEST_FRAME:
            self._faces = []
            return []
        for track in due:
            self._follow(track, frame)
        self._forget(frame.t)
        self._search(frame, _PATIENCE if self._helped else 1.0)
        self._faces = [
            Face(k.id, k.seen.points, k.looked_t, k.seen.blendshapes) for k in self._tracks if k.seen is not None and k.shows
        ]
        self._faces.sort(key=lambda face: face.id)
        return self._shown()

    def _resize(self, frame: Frame) -> None:
        """Where the frames have another size than before, and the same shape, faces are looked for in the place that is theirs
        now."""
        before, self._size = self._size, (frame.width, frame.height)
        by = frame.width / before[0] if before[0] else 1.0
        if by == 1.0 or abs(frame.height / before[1] / by - 1) > _OTHER_SHAPE:
            return
        for track in self._tracks:
            region, box = track.region, track.box
            track.region = replace(region, x=by * region.x, y=by * region.y, side=by * region.side)
            track.box = (by * box[0], by * box[1], by * box[2])
            track.glance = track.continuity = None
        self._scene = None

    def _step(self, frame: Frame) -> bool:
        """Sees how the frame follows the one before, face by face; whether there was a cut: what is there now in a face's place
        is another face, of another id, and the detectors search for all of them at once."""
        for track in self._tracks:
            track.step = "next" if track.continuity is None else track.continuity.step(frame.grey)
            change = 0.0 if track.continuity is None else track.continuity.change
            track.apart = track.leaps.take(frame.t, track.step, change, doubtful=frame.doubtful)
            track.as_seen &= track.step == "repeat"
        kept = [track for track in self._tracks if track.step != "cut"] if self._whole.is_another(frame.grey) else self._tracks
        cut = len(kept) < len(self._tracks)
        if cut:
            self._tracks, self._scene, self._search_t = kept, None, -np.inf
        return cut

    def _shown(self) -> list[Face]:
        """The faces, those marked of which the frame repeats the picture or shows another moment."""
        marked = {track.id: track for track in self._tracks if track.step == "repeat" or track.apart}
        if not marked:
            return self._faces
        return [
            replace(face, repeated=marked[face.id].step == "repeat", apart=marked[face.id].apart) if face.id in marked else face
            for face in self._faces
        ]

    def look_around(self, frame: Frame) -> None:
        """Looks for new faces in the frame that was located last, if it is time to; the next look of the mesh has them.

        For a driver with time to spare between frames: while it calls this, `locate` need not take the time of a search.
        """
        if min(frame.height, frame.width) >= _SMALLEST_FRAME:
            self._helped = True
            self._search(frame)

    def _is_due(self, track: _Track, frame: Frame) -> bool:
        """Whether the mesh looks at a face in this frame: it is new or it is time, or eyes or mouth changed since it did. The
        very picture that it saw, repeated, tells nothing."""
        if track.as_seen or track.apart:
            return track.apart
        since, settings = frame.t - track.looked_t + _EARLY_S, self._settings
        is_new = track.shows and all(face.id != track.id for face in self._faces)
        if is_new or since >= 1 / settings.mesh_hz:
            return True
        eyes_due, mouth_due = since >= 1 / settings.alert_hz, since >= 1 / settings.mouth_hz
        if track.glance is None or not (eyes_due or mouth_due):
            return False
        eyes, mouth = track.glance.change(frame.grey)
        return (eyes_due and eyes > _CHANGED) or (mouth_due and mouth > _CHANGED)

    def prepare(self) -> None:
        """Runs MediaPipe's models once, so that the first frame does not wait for what they set up then.

        dlib's, which is larger, is loaded by the first frame in which they find nothing."""
        blank: U8 = np.zeros((64, 64, 3), np.uint8)
        self._models.detect(blank)
        self._models.mesh(Frame(0, 0.0, blank), Region(32, 32, 48))

    def close(self) -> None:
        """Frees the models."""
        self._models.close()
        self._tracks, self._faces, self._gone = [], [], {}

    def _restart(self) -> None:
        self._mesh_t = self._search_t = self._scene_t = -np.inf
        self._helped = False
        self._whole = SceneContinuity()
        for track in self._tracks:
            self._remember(track)
        self._tracks, self._faces = [], []

    def _follow(self, track: _Track, frame: Frame) -> None:
        seen = self._look(frame, track.region)
        if seen is None and track.seen is not None:  # lost just now
            again = self._search_near(track, frame)
            seen = None if again is None else self._look_twice(frame, again)
        self._take(track, seen, frame)

    def _take(self, track: _Track, seen: FaceMesh | None, frame: Frame) -> None:
        """Keeps what the mesh just saw of a face."""
        track.seen, track.looked_t, track.as_seen = seen, frame.t, seen is not None
        if seen is None:
            track.glance = track.continuity = None
            return
        track.region, track.box, track.seen_t = region_around(seen.points), face_box(seen.points), frame.t
        track.continuity = Continuity(frame.grey, track.box)
        self._see_who(track, seen, frame)
        if max(self._settings.alert_hz, self._settings.mouth_hz) > self._settings.mesh_hz:
            track.glance = FaceGlance(frame.grey, seen.points)

    def _see_who(self, track: _Track, seen: FaceMesh, frame: Frame) -> None:
        """Compares how a face looks with how it looked, where another one is so close that it may be that one."""
        rivals = [k for k in self._tracks if k is not track and _near(k.box, track.box)]
        track.close |= bool(rivals)
        if not track.close and frame.t - track.look_t < _LOOK_S - _EARLY_S:
            return
        track.look_t, look = frame.t, look_of(frame.grey, seen.points)
        like = track.looks.likeness(look)
        if not track.close or (like >= SAME and all(k.looks.likeness(look) < OTHER for k in rivals)):
            track.looks.add(look)
        if not track.close:
            return
        if like >= SAME:
            track.apart |= track.doubted_since is not None
            track.doubted_since, track.close = None, bool(rivals)
            return
        track.doubted_since = frame.t if track.doubted_since is None else track.doubted_since
        if not rivals:
            self._rename(track, look, like, frame.t)

    def _rename(self, track: _Track, look: F32, like: float, now: float) -> None:
        """Gives a face that looks like somebody else the id of who that is, or after a while a new one."""
        missing = {k.id: k for k in self._tracks if k is not track and k.looks and not k.shows}
        known = {id_: k.looks for id_, k in missing.items()} | self._gone
        best = max(known, key=lambda id_: known[id_].likeness(look), default=None)
        if best is not None and known[best].likeness(look) >= max(SAME, like):
            other = missing.get(best)
            if other is not None:
                track.id, track.looks, other.id, other.looks = other.id, other.looks, track.id, track.looks
            else:
                self._remember(track)
                track.id, track.looks = best, self._gone.pop(best)
        elif track.doubted_since is None or now - track.doubted_since < _DOUBT_S:
            return
        else:
            self._remember(track)
            track.id, track.looks = self._new_id(), Looks()
        track.looks.add(look)
        track.doubted_since, track.close, track.apart = None, False, True

    def _returned(self, frame: Frame, seen: FaceMesh) -> tuple[int, Looks]:
        """The id and looks of a face just found: of one that left, if it looks like that one, else new ones."""
        look = look_of(frame.grey, seen.points)
        best = max(self._gone, key=lambda id_: self._gone[id_].likeness(look), default=None)
        if best is None or self._gone[best].likeness(look) < SAME:
            return self._new_id(), Looks()
        return best, self._gone.pop(best)

    def _remember(self, track: _Track) -> None:
        """Keeps how a face looked that left, if that is known."""
        if track.looks:
            self._gone[track.id] = track.looks
        while len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _look(self, frame: Frame, region: Region) -> FaceMesh | None:
        """What the mesh sees in a region; None where that is no face, or none inside the frame and of the size asked for."""
        seen = self._models.mesh(frame, region)
        if seen is None:
            return None
        x, y, width = face_box(seen.points)
        in_frame = 0 <= x < frame.width and 0 <= y < frame.height
        return seen if in_frame and width >= self._settings.min_face_px else None

    def _look_twice(self, frame: Frame, region: Region) -> FaceMesh | None:
        """What the mesh sees in a region that a detector names, once it also sees it from where it puts the face itself: what
        only looks like a face, it does not see twice."""
        first = self._look(frame, region)
        second = None if first is None else self._look(frame, region_around(first.points))
        return None if second is None or second.presence < _SURE else second

    def _search_near(self, track: _Track, frame: Frame) -> Region | None:
        """The region of a face that was just lost, by the detectors on the part of the frame around it."""
        side = max(48, round(_AROUND_LOST * track.region.side))
        shrink = -(-side // _TILE_PX)
        step = 2 * shrink
        side = -(-side // step) * step
        left, top = (round((at - side / 2) / step) * step for at in (track.region.x, track.region.y))
        window = rgb_window(frame, left, top, side, shrink)
        found = _in_frame(self._models.detect(window) or self._hog_regions(window), left, top, 1 / shrink)
        near = [one for one in found if same_face(_box_of(one), track.box)]
        return max(near, key=lambda one: one.side, default=None)

    def _forget(self, now: float) -> None:
        """Drops faces lost for longer than `keep_s`, the newer of two that are one face, and parts of a face."""
        kept: list[_Track] = []
        for track in sorted((k for k in self._tracks if k.seen is not None), key=lambda k: not k.shows):
            rivals = [k for k in kept if inside(track.box, k.box) or inside(k.box, track.box)]
            if not any(k.box[2] > _ALIKE * track.box[2] for k in rivals):
                kept = [k for k in kept if k not in rivals] + [track]
        kept += [k for k in self._tracks if k.seen is None and now - k.seen_t <= self._settings.keep_s]
        for track in self._tracks:
            if track not in kept:
                self._remember(track)
        self._tracks = sorted(kept, key=lambda k: k.id)

    def _search(self, frame: Frame, patience: float = 1.0) -> None:
        """Searches the whole frame: soon again while a face is missing, rarely while all is well, and later with patience."""
        waiting = not self._tracks or any(k.seen is None for k in self._tracks)
        pause = min(0.2, self._settings.discover_s) if waiting else self._settings.discover_s
        if frame.t - self._search_t < patience * pause - _EARLY_S:
            return
        self._search_t = frame.t
        if not waiting and self._is_same_scene(frame):
            return
        self._scene, self._scene_t = SceneGlance(frame), frame.t
        for region in self._detect(frame):
            box = _box_of(region)
            known = [k for k in self._tracks if same_face(k.box, box)]
            if any(k.seen is not None and (k in known or inside(box, k.box)) for k in self._tracks):
                continue
            if not known and len(self._tracks) >= self._settings.max_faces:
                continue
            seen = self._look_twice(frame, region)
            if known:
                self._take(known[0], seen, frame)
            elif seen is not None:
                id_, looks = self._returned(frame, seen)
                track = _Track(id_, region, box, frame.t, frame.t, looks=looks)
                self._take(track, seen, frame)
                self._tracks.append(track)

    def _is_same_scene(self, frame: Frame) -> bool:
        """Whether, around the faces, the picture still is what the detectors searched not long ago."""
        if self._scene is None or frame.t - self._scene_t >= _STALE_S - _EARLY_S:
            return False
        return self._scene.change(frame, (_own_square(k.box) for k in self._tracks)) < _SCENE_CHANGED

    def _detect(self, frame: Frame) -> list[Region]:
        """Regions that may hold a face, several of them the same one, the largest first."""
        scale = min(1.0, _SEARCH_PX / max(frame.height, frame.width))
        small = _resized(frame.rgb, scale)
        found = _in_frame(self._models.detect(small), 0, 0, scale)
        for left, top, side in _tiles(frame.width, frame.height):
            shrunk = min(1.0, _TILE_PX / side)
            tile = _resized(frame.rgb[top : top + side, left : left + side], shrunk)
            found += _in_frame(self._models.detect(tile), left, top, shrunk)
        if not found:
            found = _in_frame(self._hog_regions(small), 0, 0, scale)
        return sorted((k for k in found if _box_of(k)[2] >= self._settings.min_face_px), key=lambda k: -k.side)

    def _hog_regions(self, picture: U8) -> list[Region]:
        """Regions of the faces that dlib sees in a picture [H, W, 3] RGB, in its pixels."""
        if self._hog is None:
            import dlib

            self._hog = dlib.get_frontal_face_detector()
        found = self._hog(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8), 0)
        side = _FROM_BOX * _WIDER_THAN_HOG
        return [Region((r.left() + r.right()) / 2, (r.top() + r.bottom()) / 2, side * float(r.width())) for r in found]


def _own_square(box: Box) -> tuple[int, int, int]:
    """Left, top and side of the part of the frame in which a face may move without anybody having come."""
    side = _AROUND * box[2]
    return round(box[0] - side / 2), round(box[1] - side / 2), round(side)


def _resized(picture: U8, scale: float) -> U8:
    """The picture, shrunk by a scale below 1, in one piece of memory."""
    if scale < 1:
        return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(picture)


def _in_frame(regions: list[Region], left: int, top: int, scale: float) -> list[Region]:
    """Regions of a part of the frame that began at (left, top) and was shrunk by scale, in frame pixels."""
    return [Region(one.x / scale + left, one.y / scale + top, one.side / scale, one.angle) for one in regions]


def _tiles(width: int, height: int) -> list[tuple[int, int, int]]:
    """Left, top and side of overlapping squares of a frame, for faces too small to be seen in the frame as a whole."""
    longest = max(width, height)
    side = min(width, height, round(min(_TILE * longest, max(_TILE_FRAME_PX, _SMALLEST_TILE * longest))))
    if side < _LEAST_TILE_PX:
        return []
    return [(x, y, side) for y in _starts(height, side) for x in _starts(width, side)]


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin along a frame so that neighbours share at least four ninths of their sides."""
    count = 1 + math.ceil(1.8 * (length - side) / side)
    return [round(at) for at in np.linspace(0, length - side, count)]
