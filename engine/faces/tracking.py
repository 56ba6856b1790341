"""One face followed from frame to frame: the region its mesh is taken in, and when that mesh is due for a refresh.

The mesh network is expensive, so it runs at a low rate, and at once when eyes or mouth change (`engine.faces.change`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from engine.config import LandmarkSettings
from engine.faces.appearance import Gallery
from engine.faces.boxes import Box, face_box
from engine.faces.change import FaceSnapshot
from engine.faces.continuity import Continuity, JumpDetector, Step
from engine.mesh import FaceMesh, Region, region_around
from engine.types import Frame

EARLY_S = 1e-3  # times of frames are rounded
_CHANGED = 0.25  # a mesh is refreshed at once where eyes or mouth differ by more: see FaceSnapshot.change


@dataclass(eq=False)
class Track:
    """One followed face: the region in which its mesh is taken next, when a face was seen there and when the mesh was taken
    last, and that mesh, None where it saw no face.

    step is how the frame at hand follows the one before, apart whether it shows another moment (`JumpDetector`), returned
    whether the face has come back and was not reported since, as_meshed whether the frame is the very picture the mesh was
    taken from. gallery holds how the face looked at compared_t and before; near_another says that another face came near
    since, doubted_since since when it looks like another.
    """

    id: int
    region: Region
    box: Box
    seen_t: float
    meshed_t: float
    mesh: FaceMesh | None = None
    snapshot: FaceSnapshot | None = None
    continuity: Continuity | None = None
    jumps: JumpDetector = field(default_factory=JumpDetector)
    step: Step = "next"
    apart: bool = False
    returned: bool = False
    as_meshed: bool = False
    gallery: Gallery = field(default_factory=Gallery)
    compared_t: float = -math.inf
    near_another: bool = False
    doubted_since: float | None = None

    @property
    def shown(self) -> bool:
        """Whether the mesh saw a face and nothing speaks against its being this one."""
        return self.mesh is not None and self.doubted_since is None

    def rescale(self, by: float) -> None:
        """The frames have another size than before: the face is by so much further from their corner, and larger."""
        region = self.region
        self.region = replace(region, x=by * region.x, y=by * region.y, side=by * region.side)
        self.box = (by * self.box[0], by * self.box[1], by * self.box[2])
        self.snapshot = self.continuity = None

    def compare(self, frame: Frame) -> None:
        """Sees how the frame follows the one before."""
        self.step = "next" if self.continuity is None else self.continuity.step(frame.grey)
        change = 0.0 if self.continuity is None else self.continuity.change
        self.apart = self.jumps.observe(frame.t, self.step, change, doubtful=frame.doubtful) or self.returned
        self.as_meshed &= self.step == "repeat"

    def is_due(self, frame: Frame, settings: LandmarkSettings, *, is_new: bool) -> bool:
        """Whether the mesh is taken in this frame: it is new or it is time, or eyes or mouth changed since the last one. From
        the very picture of the last one, repeated, it would come out the same."""
        if self.as_meshed or self.apart:
            return self.apart
        since = frame.t - self.meshed_t + EARLY_S
        if is_new or since >= 1 / settings.mesh_hz:
            return True
        eyes_due, mouth_due = since >= 1 / settings.alert_hz, since >= 1 / settings.mouth_hz
        if self.snapshot is None or not (eyes_due or mouth_due):
            return False
        eyes, mouth = self.snapshot.change(frame.grey)
        return (eyes_due and eyes > _CHANGED) or (mouth_due and mouth > _CHANGED)

    def update(self, mesh: FaceMesh | None, frame: Frame, settings: LandmarkSettings) -> None:
        """Keeps the mesh just taken, None where it saw no face."""
        self.mesh, self.meshed_t, self.as_meshed = mesh, frame.t, mesh is not None
        if mesh is None:
            self.snapshot = self.continuity = None
            return
        self.region, self.box, self.seen_t = region_around(mesh.points), face_box(mesh.points), frame.t
        self.continuity = Continuity(frame.grey, self.box)
        if max(settings.alert_hz, settings.mouth_hz) > settings.mesh_hz:
            self.snapshot = FaceSnapshot(frame.grey, mesh.points)
