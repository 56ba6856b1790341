"""A video of a person -> the largest face as a portrait in every frame, and the stretches in which it can be followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from apexstream.clips.portrait import Points, Portrait, portrait_of
from engine.config import LandmarkSettings
from engine.errors import InputError
from engine.faces.boxes import face_box
from engine.faces.landmarks import FaceLocator
from engine.types import F32, F64, U8, Face
from stream.sources.file import open_video

OUTER_CORNERS = (33, 263)
_MESH = {
    "lid_r_up": (33, 160, 159, 158, 133),
    "lid_r_low": (33, 144, 145, 153, 133),
    "lid_l_up": (362, 385, 386, 387, 263),
    "lid_l_low": (362, 380, 374, 373, 263),
    "mouth_r": (61,),
    "mouth_l": (291,),
}
_BROWS = {
    "brow_r": ((70, 46), (63, 53), (105, 52), (66, 65), (107, 55)),
    "brow_l": ((300, 276), (293, 283), (334, 282), (296, 295), (336, 285)),
}
"""Mesh points by the portrait's names; a brow's are the middles between its upper and lower edge, outer end first."""

_OVAL = [
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
]
"""Mesh points along the outline of the face, in order."""

SMOOTHED = 5
"""Frames over which the mesh is averaged, so that its jitter does not shake what is put in."""
JUMP = 0.25
"""Median motion of the mesh from one frame to the next, in distances of the outer eye corners, that counts as a cut."""
CUT_GREY = 20.0
"""Mean change of a thumbnail from one frame to the next, in grey levels, that counts as a cut."""
_THUMBNAIL = (64, 36)
_EVERY_FRAME = LandmarkSettings(mesh_hz=1000.0)


@dataclass(frozen=True, eq=False)
class Followed:
    """A video and its largest face: frame times [N] in seconds from the source, size (W, H) of what is written (even),
    points [N, 478, 2] in frame pixels, smoothed (NaN where no face is), and runs, the stretches (first, last) of frames
    without a cut in which the face is seen throughout."""

    path: Path
    times: F64
    size: tuple[int, int]
    points: F32
    runs: tuple[tuple[int, int], ...]

    @property
    def fps(self) -> float:
        """Frames per second, measured from first to last."""
        return float(np.clip((len(self.times) - 1) / max(self.times[-1] - self.times[0], 1e-3), 1, 1000))

    def portrait(self, i: int, scale: float = 1.0) -> Portrait:
        """The face in frame i; its points in frame pixels times scale. It has no texture."""
        xy = self.points[i] * np.float32(scale)
        points: Points = {name: np.asarray(xy[list(index)], np.float64) for name, index in _MESH.items()}
        for name, pairs in _BROWS.items():
            points[name] = np.asarray(xy[np.array(pairs)].mean(axis=1), np.float64)
        return portrait_of(np.zeros((1, 1, 3), np.uint8), points)

    def outline(self, i: int) -> F32:
        """The outline of the face in frame i, [36, 2] frame pixels in order."""
        return np.asarray(self.points[i, _OVAL], np.float32)

    def pictures(self) -> Iterator[tuple[float, U8]]:
        """(time in seconds, [H, W, 3] RGB) of every frame, from the file once more."""
        w, h = self.size
        with open_video(self.path) as video:
            for frame, t in zip(video, self.times, strict=False):
                yield float(t), np.ascontiguousarray(frame.rgb[:h, :w])


def follow(
    path: Path, seconds: float | None = None, progress: Callable[[int, int | None], None] = lambda done, total: None
) -> Followed:
    """Follow the largest face of a video; seconds limits how much of it is read. Calls progress with (frames read, frames in
    all, where the file says so).

    Raises SourceError where the video cannot be read, InputError where it shows no face, WeightsError or BackendError where
    the face mesh cannot be loaded.
    """
    times: list[float] = []
    points: list[F32 | None] = []
    cuts: list[bool] = []
    followed: int | None = None
    thumbnail: F32 | None = None
    size = (0, 0)
    locator = FaceLocator(_EVERY_FRAME)
    try:
        with open_video(path) as video:
            for frame in video:
                if times and seconds is not None and frame.t - times[0] >= seconds:
                    break
                size = size if times else (frame.width // 2 * 2, frame.height // 2 * 2)
                small = np.asarray(cv2.resize(frame.grey, _THUMBNAIL, interpolation=cv2.INTER_AREA), np.float32)
                face = _chosen([f for f in locator.locate(frame) if f.t == frame.t], followed)
                change = 0.0 if thumbnail is None else float(np.abs(small - thumbnail).mean())
                cuts.append(frame.gap or change > CUT_GREY or face is None or face.id != followed)
                followed, thumbnail = None if face is None else face.id, small
                points.append(None if face is None else np.asarray(face.points[:, :2], np.float32))
                times.append(frame.t)
                progress(len(times), video.expected_frames)
    finally:
        locator.close()
    if all(p is None for p in points):
        raise InputError(f"{path} shows no face; expressions can only be put into a video of a face")
    xy = np.stack([np.full((478, 2), np.nan, np.float32) if p is None else p for p in points])
    runs = _runs(xy, cuts)
    for first, last in runs:
        xy[first:last] = _smoothed(xy[first:last])
    return Followed(path, np.array(times), size, xy, runs)


def _chosen(faces: list[Face], followed: int | None) -> Face | None:
    """The face that was followed already, else the largest."""
    same = [face for face in faces if face.id == followed]
    return max(same or faces, key=lambda face: face_box(face.points)[2], default=None)


def _runs(xy: F32, cuts: list[bool]) -> tuple[tuple[int, int], ...]:
    """(first, last) of the stretches without a cut; last is the frame after the last."""
    corners = xy[:, OUTER_CORNERS[1]] - xy[:, OUTER_CORNERS[0]]
    motion = np.median(np.linalg.norm(np.diff(xy, axis=0), axis=-1), axis=1) / np.linalg.norm(corners[1:], axis=-1)
    runs: list[tuple[int, int]] = []
    first: int | None = None
    for i, cut in enumerate(cuts):
        if first is not None and (cut or motion[i - 1] > JUMP):
            runs.append((first, i))
            first = None
        if first is None and not np.isnan(xy[i, 0, 0]):
            first = i
    if first is not None:
        runs.append((first, len(cuts)))
    return tuple(runs)


def _smoothed(xy: F32) -> F32:
    """Mean over the SMOOTHED frames around each, fewer (and as many on either side) at the ends."""
    out = np.empty_like(xy)
    for i in range(len(xy)):
        half = min(SMOOTHED // 2, i, len(xy) - 1 - i)
        out[i] = xy[i - half : i + half + 1].mean(axis=0)
    return out
