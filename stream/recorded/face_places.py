"""faces.csv: where each face is, twice a second, so that the review can show it larger. No picture, and no measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engine.types import Face, Frame, Observation
from stream.files import LineFile
from stream.recorded.output import Output

FILE = "faces.csv"
EVERY_S = 0.5
COLUMNS = ("face", "frame", "t", "x", "y", "width", "height")


class FacePlaces(Output):
    """Writes faces.csv into folder. Raises OutputError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._file: LineFile | None = None
        self._last: dict[int, float] = {}  # by face: when its place was written

    def frame(self, frame: Frame, faces: Sequence[Face], observations: Sequence[Observation], origin: float) -> None:
        """Write the places of those faces whose turn it is."""
        if self._file is None:
            self._file = LineFile(self._path)
            self._file.append(",".join(COLUMNS) + "\n")
        for face in faces:
            if abs(frame.t - self._last.get(face.id, -np.inf)) >= EVERY_S:
                self._last[face.id] = frame.t
                low, high = face.points[:, :2].min(axis=0), face.points[:, :2].max(axis=0)
                place = ",".join(f"{value:.1f}" for value in (*low, *(high - low)))
                self._file.append(f"{face.id},{frame.index},{frame.t:.6f},{place}\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def read_face_places(folder: Path) -> Iterator[tuple[int, int, float, float, float, float]]:
    """(face, frame, x, y, width, height) of each line, in frame pixels; nothing where there is no file. A damaged line is
    left out: it is about how the page looks alone."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines[1:]:
        cells = line.split(",")
        try:
            face, frame, _, x, y, width, height = cells
            place = (int(face), int(frame), float(x), float(y), float(width), float(height))
        except ValueError:
            continue
        if np.isfinite(place).all():
            yield place
