"""Where faces and their regions are in each frame, kept in a temporary file until the video is read again."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.geometry import apply
from engine.types import F32, F64, Face, Observation
from stream.analysis.preview import CONTOURS, region_boxes
from stream.files import write_errors

_FINENESS = 8  # steps per pixel of stored points
_FAR = 32_000  # of them at most
_FACE = struct.Struct("<i4f")  # id, box
_LENGTHS = [len(line) for line in CONTOURS]
_POINTS = np.array([index for line in CONTOURS for index in line])
_CORNERS = 10  # two of each region
_SIZE = 2 * (len(_POINTS) + _CORNERS)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a face is in a frame, in frame pixels: box (x, y, width, height); contours, lines of mesh points [N, 2]; regions
    [5, 4], the boxes that the network gets."""

    face: int
    box: tuple[float, float, float, float]
    contours: list[F64]
    regions: F64

    def moved(self, x: float, y: float) -> Place:
        """The place x pixels further right and y further down."""
        if not x and not y:
            return self
        left, top, width, height = self.box
        lines = [line + np.array([x, y]) for line in self.contours]
        return Place(self.face, (left + x, top + y, width, height), lines, self.regions + np.array([x, y, 0, 0]))


class Spool:
    """Some 600 bytes for each face and frame, in a file in folder that has no name and is gone when it is closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with write_errors(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`

    def append(self, faces: Sequence[Face], observations: Sequence[Observation]) -> None:
        """Keep the faces of the next frame. Raises OutputError."""
        pieces = [struct.pack("<H", len(faces))]
        for face, seen in zip(faces, observations, strict=True):
            points = _here(face, seen)
            x, y, width, height = seen.box
            pieces.append(_FACE.pack(face.id, x, y, width, height))
            boxes = region_boxes(points)
            corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
            stored = (np.concatenate([points[_POINTS, :2], corners]) - (x, y)) * _FINENESS
            pieces.append(np.rint(np.clip(stored, -_FAR, _FAR)).astype("<i2").tobytes())
        with write_errors(self._folder):
            self._file.write(b"".join(pieces))

    def __iter__(self) -> Iterator[list[Place]]:
        """The places of the faces in each frame, from the first frame on. Raises OutputError."""
        with write_errors(self._folder):
            self._file.seek(0)  # writes what is still buffered
            while head := self._file.read(2):
                yield [self._place() for _ in range(*struct.unpack("<H", head))]

    def close(self) -> None:
        """Free the file."""
        self._file.close()

    def _place(self) -> Place:
        face, *box = _FACE.unpack(self._file.read(_FACE.size))
        stored = np.frombuffer(self._file.read(2 * _SIZE), "<i2").reshape(-1, 2).astype(np.float64)
        points = stored / _FINENESS + box[:2]
        corners = points[len(_POINTS) :].reshape(2, -1, 2)
        contours = np.split(points[: len(_POINTS)], np.cumsum(_LENGTHS)[:-1])
        return Place(face, (box[0], box[1], box[2], box[3]), contours, np.hstack([corners[0], corners[1] - corners[0]]))


def _here(face: Face, seen: Observation) -> F32:
    """The mesh [478, 3] where the face is in this frame: between two looks of the mesh it moves with the head."""
    crop = seen.crop
    if crop is None:
        return face.points
    linear = np.linalg.inv(crop.transform[:, :2])
    back = np.column_stack([linear, -linear @ crop.transform[:, 2]])
    points = face.points.copy()
    points[:, :2] = apply(back, crop.landmarks[:, :2].astype(np.float64))
    return points
