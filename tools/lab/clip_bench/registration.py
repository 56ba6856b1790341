"""How still a still face is held: what is left of the head's motion in the crop, measured in pixels of the 128 px crop.

A rendered face without expression or blink sways, rolls, zooms and turns under noise and compression. Four ways hold it:

    keypoints    a similarity from the mesh's five keypoints, computed for every frame
    first        the similarity of the first frame, kept
    registrar    engine.registration.align.Registrar, what the pipeline does
    best         the similarity that fits the true positions best, every frame: no crop can be held stiller, since turning out
                 of the picture plane is no similarity

Each is measured by the true positions of facial points taken through its transform, and by the TV-L1 flow between crops LAG_S
apart. For the registrar there is also the motion that it reports by region, out of which the turn is taken as well: this is
what the spotter sees of a face that does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from apexstream.clips.actions import GRID_STEP, grid_over
from apexstream.clips.motion import depth
from apexstream.clips.portrait import eye_centre
from apexstream.clips.render import Scene
from apexstream.native_output import native_output_hidden
from engine.errors import InputError
from engine.faces.landmarks import FaceLocator
from engine.geometry import CANONICAL_KEYPOINTS, CROP_SIDE, keypoints, keypoints_to_crop, similarity
from engine.ops.tvl1 import tvl1
from engine.registration.align import Registrar
from engine.registration.warp import warp
from engine.types import F64, U8, Face, Frame
from lab.clip_bench.jobs import Job
from lab.clip_bench.watch import rendered
from stream.sources.file import open_video

LAG_S = 0.2
"""About the rise of a micro-expression: what the crop does in this time can be taken for one."""
WAYS = ("keypoints", "first", "registrar", "best")
_OUTLINE = ("side", "jaw", "temple", "top")


def project(scene: Scene, frame: int, points: F64) -> F64:
    """Frame pixels [N, 2] at which points of the neutral face, [N, 2] texture px, are seen in a frame (no expression)."""
    grid = grid_over(scene.face)
    at = ((points - grid.origin) / GRID_STEP).astype(np.float32)
    z = cv2.remap(depth(scene.face, grid), at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
    yaw, pitch = scene.motion.yaw[frame], scene.motion.pitch[frame]
    posed = points + z[:, None] * (np.sin(yaw) * scene.face.across + np.sin(pitch) * scene.face.down)
    placement = scene.placement(frame)
    return np.asarray(np.linalg.solve(placement[:, :2], (posed - placement[:, 2]).T).T)


def facial_points(scene: Scene) -> F64:
    """[N, 2] texture px of the points inside the face: lids, brows, nose, mouth, cheeks, chin."""
    return np.concatenate([xy for name, xy in scene.face.points.items() if not name.startswith(_OUTLINE)])


@native_output_hidden()
def measure(job: Job) -> dict[str, Any]:
    """The figures of one clip, JSON form; run in a worker process. Raises InputError where no face is found in it."""
    with rendered(job) as (path, _):
        scene = Scene(job.spec)
        locator = FaceLocator(job.settings.landmarks)
        tracks = _Tracks(scene, max(1, round(LAG_S * job.spec.fps)))
        with open_video(path, threads=1) as video:
            for frame in video:
                tracks.take(frame, locator.locate(frame))
        locator.close()
    if len(tracks.registered) <= tracks.lag:
        raise InputError(f"{job.name}: a face is expected in the clip and was followed in {len(tracks.registered)} frames only")
    return tracks.figures()


class _Tracks:
    """Takes the frames of one clip and holds its face in all ways."""

    def __init__(self, scene: Scene, lag: int) -> None:
        self.scene, self.lag = scene, lag
        self.points = facial_points(scene)
        self.held: dict[str, list[F64]] = {way: [] for way in WAYS}  # points [P, 2] in crop pixels, frame by frame
        self.crops: dict[str, list[U8]] = {way: [] for way in WAYS}  # every LAG_S
        self.registered: list[F64] = []
        self._first: F64 | None = None
        self._registrar = Registrar()
        self._anchors: set[int] = set()

    def take(self, frame: Frame, faces: list[Face]) -> None:
        """One frame; those in which the face is not followed are left out by every way."""
        crop = self._registrar.register(frame, faces[0]) if faces else None
        if crop is None:
            return
        target = keypoints_to_crop(CANONICAL_KEYPOINTS).astype(np.float64)
        now = similarity(keypoints(faces[0].points).astype(np.float64), target)
        self._first = now if self._first is None else self._first
        true = project(self.scene, frame.index, self.points)
        best = similarity(true, _canonical(self.scene, self.points))
        at_lag = len(self.registered) % self.lag == 0
        for way, transform in zip(WAYS, (now, self._first, crop.transform, best), strict=True):
            self.held[way].append(true @ transform[:, :2].T + transform[:, 2])
            if at_lag:
                self.crops[way].append(crop.pixels if way == "registrar" else warp(frame.grey, transform, CROP_SIDE))
        self.registered.append(crop.motion.astype(np.float64))
        self._anchors.add(crop.anchor)

    def figures(self) -> dict[str, Any]:
        """By way, and for the motion of the regions."""
        ways = {way: {**_unrest(np.stack(self.held[way]), self.lag), **_flows(self.crops[way])} for way in WAYS}
        spec = self.scene.spec
        return {
            "photo": spec.photo,
            "fps": spec.fps,
            "seed": spec.seed,
            "frames": len(self.scene.times),
            "followed": len(self.registered),
            "anchors": len(self._anchors),
            "ways": ways,
            "regions": _unrest(np.stack(self.registered), self.lag),
        }


def registration_summary(clips: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the clips, pooled as squares where the figures are root mean squares."""

    def pooled(parts: Sequence[dict[str, float]]) -> dict[str, float]:
        return {k: round(float(np.sqrt(np.mean([p[k] ** 2 for p in parts]))), 4) for k in parts[0]}

    return {
        "clips": len(clips),
        "frames": sum(c["frames"] for c in clips),
        "followed": sum(c["followed"] for c in clips),
        "anchors": sum(c["anchors"] for c in clips),
        "lag_s": LAG_S,
        "ways": {way: pooled([c["ways"][way] for c in clips]) for way in WAYS},
        "regions": pooled([c["regions"] for c in clips]),
        "by_clip": list(clips),
    }


def _canonical(scene: Scene, points: F64) -> F64:
    """Where the points lie in a crop that frames the neutral face as the registration does: eyes where they belong."""
    face = scene.face.points
    eyes = [eye_centre(face, side) for side in "rl"]
    five = np.array([*eyes, face["nose_tip"][0], face["mouth_r"][0], face["mouth_l"][0]])
    transform = similarity(five, keypoints_to_crop(CANONICAL_KEYPOINTS).astype(np.float64))
    return np.asarray(points @ transform[:, :2].T + transform[:, 2])


def _unrest(tracks: F64, lag: int) -> dict[str, float]:
    """Of points over time [T, P, 2], root mean squares: spread_px, the distance from their mean places, and change_px, the way
    they go in `lag` frames."""
    away = tracks - tracks.mean(axis=0)
    change = tracks[lag:] - tracks[:-lag]
    return {
        "spread_px": round(float(np.sqrt((away**2).sum(axis=2).mean())), 4),
        "change_px": round(float(np.sqrt((change**2).sum(axis=2).mean())), 4),
    }


def _flows(crops: Sequence[U8]) -> dict[str, float]:
    """flow_px: root mean square over the pairs of neighbouring crops of the mean length of their flow."""
    lengths = [float(np.hypot(*tvl1(a, b, backend="cpu")).mean()) for a, b in pairwise(crops)]
    return {"flow_px": round(float(np.sqrt(np.mean(np.square(lengths)))), 4)} if lengths else {"flow_px": 0.0}
