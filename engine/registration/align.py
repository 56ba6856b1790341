"""Faces -> registered crops: the head's motion taken out, what the face does left in.

Landmarks alone are too coarse for this: their jitter of half a pixel is as large as a micro-expression. They only give a
first estimate. The fine registration tracks the face's own texture: some seventy small patches, placed by the mesh once on a
reference picture of the face, are found in every frame (Lucas-Kanade, always against the reference, so errors do not
accumulate). Patches on parts that expressions hardly move (bridge of the nose, temples, cheekbones, hairline) give the head's
motion: a similarity for sway, zoom and roll, and two terms for turns out of the picture plane, which shift near points against
far ones. The similarity goes into the crop; the rest is subtracted from the motion of the other patches, which is the input of
the spotter.

    d(x, y) = (a x - b y + tx + yaw z,  b x + a y + ty + pitch z)

with (x, y) from the middle of the crop and z the mesh's depth. The fit is robust: iteratively reweighted (Geman-McClure),
its scale annealed from a whole pixel down to the patches' own disagreement, so that it neither locks onto a wrong
consensus nor follows a cheek that moves. The other patches have little weight: between expressions they stabilize the fit.
Lids and gaze are no head motion, so the eyes are painted over before the search. Where the reference no longer fits the
picture a new one is taken, and motions continue from their last values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from engine.geometry import CANONICAL_KEYPOINTS, CROP_SIDE, apply, compose, keypoints, keypoints_to_crop, similarity
from engine.quantiles import median
from engine.registration.head import CANVAS, MARGIN, Head, fit_head, head_design
from engine.registration.patches import Patches
from engine.registration.regions import HEAD, HEAD_POINTS, REGIONS, TRACKED, VOTES
from engine.registration.warp import warp
from engine.types import F32, F64, U8, Crop, Face, Frame, Mark

_BROWS = frozenset(i for name, points in REGIONS.items() if name.startswith("brow") for i in points)
_BROW_LIFT = 3.0  # brow patches sit on the brow's upper edge, clear of the lid

_HEAD_POINTS = np.array(HEAD_POINTS)
_BRIDGE = slice(0, 5)
TURN_SCALE = 20.0  # a turn of the head in these units is about one
_GROUP = np.array([-1] * len(HEAD_POINTS) + [k for k, points in enumerate(REGIONS.values()) for _ in points])

_OF_REGIONS = TRACKED[_GROUP >= 0]
_SIZES = np.array([len(points) for points in REGIONS.values()])
_FIRSTS = np.cumsum(_SIZES) - _SIZES
_MEMBERS = (np.arange(len(REGIONS))[:, None] == _GROUP).astype(np.float64)  # [R, P], 1 where a patch belongs to a region

_MAX_STRAY = 3.0  # pixels a patch may be away from the mesh, or
_MAX_STRAY_SMOOTH = 7.0  # if it moved
_MAX_STEP = 2.0  # no more pixels than this since the last frame
_MESH_START = 3.5  # pixels away from the mesh from which on the search for a patch starts at the mesh
_HEAD_JUMP = 4.0  # pixels between mesh and last transform from which on the mesh is used
_HOLD_S = 0.4  # time constant with which a lost patch moves to the mesh
_CARRY_S = 10.0  # time constant with which offsets from earlier references decay, so that their errors do not accumulate
_EYE_LINES = np.array([[(33, 133), (160, 144), (158, 153)], [(263, 362), (387, 373), (385, 380)]])  # width, two heights


def eye_opening(points: F32) -> float:
    """Height of the eyes over their width, the mean of both (eye aspect ratio, Soukupova and Cech 2016)."""
    ends = points[_EYE_LINES, :2]  # [2 eyes, 3 lines, 2 ends, 2]
    lines = np.hypot(*(ends[:, :, 0] - ends[:, :, 1]).transpose(2, 0, 1)).astype(np.float64)
    return float(np.mean((lines[:, 1] + lines[:, 2]) / (2 * np.maximum(lines[:, 0], 1e-6))))


def region_places(landmarks: F32) -> F64:
    """[R, 3] of where each region lies: the middle of its mesh points, from landmarks [478, 3] in crop pixels."""
    return np.asarray(np.add.reduceat(landmarks[_OF_REGIONS], _FIRSTS, axis=0) / _SIZES[:, None], np.float64)


def _lengths(motion: F64) -> F64:
    """Length [P] of motion [P, 2]."""
    return np.asarray(np.hypot(motion[:, 0], motion[:, 1]))


def without_head(motion: F64, places: F64) -> F64:
    """Regions' motion [2 R] less as much of it as a motion of the whole head can explain; places [R, 3] as `region_places`.

    The same robust model as between frames, among the regions themselves: shared motion is removed, that of few regions stays.
    """
    design = head_design(places[:, :2] + MARGIN, places[:, 2] - places[:, 2].mean())
    moved = motion.reshape(-1, 2)
    head = fit_head(design, moved, np.ones(len(moved)), slice(0, len(moved)), finest=0.03)
    return np.asarray((moved - design @ head.terms).ravel())


@dataclass(eq=False)
class _Reference:
    """Reference for all frames: mesh and patches on a picture of the face (canvas pixels), the head model's design at the
    patches, and a weight for each."""

    landmarks: F64
    patches: Patches
    design: F64
    trust: F64
    number: int


class Registrar:
    """Registers one face, frame after frame. `register` takes frames in order; a gap or a new id needs a new Registrar."""

    def __init__(self) -> None:
        self._reference: _Reference | None = None
        self._anchors = 0
        self._transform: F64 = np.zeros((2, 3))
        self._raw: F32 = np.zeros((0, 3), np.float32)
        self._landmarks: F32 = np.zeros((0, 3), np.float32)  # of the last mesh, in crop pixels
        self._meshed: F64 = np.zeros((len(TRACKED), 2))  # motion of each patch by the mesh, without the head's
        self._bad = 0
        self._opening = 0.0
        self._blendshapes: Mapping[str, float] = {}
        self._presence = math.inf
        self._mesh_t = 0.0
        self._t = 0.0
        self._motion: F64 = np.zeros((len(TRACKED), 2))  # of each patch against the reference, without the head's
        self._missing_s: F64 = np.zeros(len(TRACKED))  # how long each patch has been lost
        self._turn: F64 = np.zeros(2)  # yaw and pitch against the reference
        self._carried: F64 = np.zeros((len(TRACKED), 2))  # motion at the last change of reference
        self._carried_turn: F64 = np.zeros(2)  # the same for the turn

    def register(self, frame: Frame, face: Face) -> Crop | None:
        """The registered crop, or None where the face cannot be followed in this frame."""
        fresh = face.t == frame.t
        if fresh:
            self._raw = face.points
            self._opening, self._blendshapes = eye_opening(face.points), face.blendshapes
            self._presence, self._mesh_t = face.presence, face.t
        if self._reference is None:
            return self._anchor(frame, face) if fresh else None
        self._transform = self._predict(fresh)
        elapsed, self._t = frame.t - self._t, frame.t
        kept = np.exp(-elapsed / _CARRY_S)
        self._carried, self._carried_turn = kept * self._carried, kept * self._carried_turn
        canvas = warp(frame.grey, self._transform)
        moved, found = self._track(canvas, fresh)
        reference = self._reference
        head = fit_head(reference.design, moved, reference.trust * VOTES * found, HEAD)
        if self._is_bad(head, found):
            return self._anchor(frame, face) if fresh else None
        if fresh:
            self._meshed = self._by_mesh() - reference.design @ head.terms
        found = self._settle(moved, found, head, elapsed)
        back = np.asarray(cv2.invertAffineTransform(head.transform), np.float64)
        self._transform = compose(back, self._transform)
        if fresh:
            self._landmarks = self._in_crop()
        return self._crop(frame, face, found, head)

    def _predict(self, fresh: bool) -> F64:
        """First estimate of the transform: the last one, or the mesh's where the head has jumped."""
        if not fresh or self._reference is None:
            return self._transform
        here = self._raw[_HEAD_POINTS, :2].astype(np.float64)
        by_mesh = similarity(here, self._reference.landmarks[_HEAD_POINTS])
        apart = median(_lengths(apply(by_mesh, here) - apply(self._transform, here)))
        return by_mesh if apart > _HEAD_JUMP else self._transform

    def _by_mesh(self) -> F64:
        """Displacement [P, 2] of each patch from the reference, by the newest mesh, with the head's motion."""
        assert self._reference is not None
        by_mesh = apply(self._transform, self._raw[TRACKED, :2].astype(np.float64))
        return np.asarray(by_mesh - self._reference.landmarks[TRACKED])

    def _track(self, canvas: U8, fresh: bool) -> tuple[F64, F64]:
        """Displacement [P, 2] of each patch from the reference by its texture, and 1 where it was found, else 0."""
        assert self._reference is not None
        meshed = self._by_mesh() if fresh else self._meshed
        far = _lengths(self._motion - meshed) > _MESH_START
        return self._reference.patches.find(canvas, np.where(far[:, None], meshed, self._motion))

    def _settle(self, moved: F64, found: F64, head: Head, elapsed: float) -> F64:
        """Updates each patch's motion, less the head's, where it is plausible; returns 1 for those, else 0.

        Plausible is a patch near its place a frame ago or near the mesh. A lost patch stays where it was and moves to the mesh
        with _HOLD_S: a blink passes, a laugh is followed.
        """
        assert self._reference is not None
        by_head = self._reference.design @ head.terms
        motion, meshed = moved - by_head, self._meshed
        step, stray = _lengths(motion - self._motion), _lengths(motion - meshed)
        plausible = (found > 0) & ((step < _MAX_STEP) & (stray < _MAX_STRAY_SMOOTH) | (stray < _MAX_STRAY))
        self._missing_s = np.where(plausible, 0.0, self._missing_s + elapsed)
        share = 1 - np.exp(-self._missing_s / _HOLD_S)
        fallback = self._motion + (share * min(elapsed / 0.033, 1.0))[:, None] * (meshed - self._motion)
        self._motion = np.where(plausible[:, None], motion, fallback)
        return np.asarray(plausible, np.float64)

    def _is_bad(self, head: Head, found: F64) -> bool:
        """Whether the reference no longer fits: after a few bad frames, or a very bad one."""
        share = float(np.add.reduce(found[HEAD])) / len(HEAD_POINTS)
        self._bad = self._bad + 1 if share < 0.5 or head.agree < 0.6 else 0
        return self._bad >= 4 or share < 0.25

    def _anchor(self, frame: Frame, face: Face) -> Crop:
        """Takes this frame as the new reference."""
        self._t = frame.t
        points = face.points.astype(np.float64)
        target = keypoints_to_crop(CANONICAL_KEYPOINTS).astype(np.float64) + MARGIN
        self._transform = similarity(keypoints(face.points).astype(np.float64), target)
        landmarks = apply(self._transform, points[:, :2])
        scale = float(np.hypot(self._transform[0, 0], self._transform[1, 0]))
        depth = points[TRACKED, 2] * scale
        depth = depth - depth[HEAD].mean()
        places = landmarks[TRACKED].copy()
        places[[i in _BROWS for i in TRACKED], 1] -= _BROW_LIFT
        edge = 6.0
        inside = ((places > edge) & (places < CANVAS - 1 - edge)).all(axis=1)
        places = np.clip(places, edge, CANVAS - 1 - edge)
        patches = Patches(warp(frame.grey, self._transform), landmarks, places)
        design = head_design(places, depth)
        self._reference = _Reference(landmarks, patches, design, inside * patches.trust, self._anchors)
        self._anchors += 1
        self._bad = 0
        self._carried, self._carried_turn = self._carried + self._motion, self._carried_turn + self._turn
        self._motion, self._missing_s = np.zeros_like(places), np.zeros(len(places))
        self._meshed, self._landmarks = np.zeros_like(places), self._in_crop()
        still = Head(np.zeros(design.shape[2]), 0.0, 1.0)
        return self._crop(frame, face, np.ones(len(places)), still)

    def _in_crop(self) -> F32:
        """The mesh's points [478, 3] in crop pixels, through the transform of the mesh's frame."""
        scale = float(np.hypot(self._transform[0, 0], self._transform[1, 0]))
        places = apply(self._transform, self._raw[:, :2].astype(np.float64)) - MARGIN
        return np.column_stack([places, self._raw[:, 2] * scale]).astype(np.float32)

    def _crop(self, frame: Frame, face: Face, found: F64, head: Head) -> Crop:
        reference = self._reference
        assert reference is not None
        to_crop = self._transform.copy()
        to_crop[:, 2] -= MARGIN
        weight = _MEMBERS * (reference.trust * (0.25 + found) + 1e-6)
        motion = self._carried + self._motion
        regions = (weight @ motion) / weight.sum(axis=1, keepdims=True)
        bridge = motion[_BRIDGE].mean(axis=0)
        self._turn = head.terms[4:]
        return Crop(
            face=face.id,
            mark=Mark(frame.index, frame.t),
            pixels=warp(frame.grey, to_crop, CROP_SIDE),
            transform=to_crop,
            landmarks=self._landmarks,
            motion=regions.astype(np.float32),
            eye_opening=self._opening,
            turn=np.concatenate([TURN_SCALE * (self._carried_turn + self._turn), bridge]).astype(np.float32),
            residual=head.residual,
            anchor=reference.number,
            blendshapes=self._blendshapes,
            mesh_age=frame.t - self._mesh_t,
            repeated=face.repeated,
            found=((_MEMBERS @ found) / _SIZES).astype(np.float32),
            presence=self._presence,
        )
