"""frames.csv: a row of measurements for each face in each frame, for those who analyse them elsewhere.

A frame without a face has a row too, as in OpenFace. Some measurements of a frame become known later: loudness when its
smoothing has seen the frames after it, speech when the mouth has moved for a while. So rows wait for HELD_S before they are
written.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.registration.align import TURN_SCALE
from engine.registration.head import roll_of, yaw_and_pitch
from engine.registration.regions import REGION_NAMES
from engine.types import Activity, ActivityKind, Crop, Face, Frame, Observation
from stream.files import LineFile
from stream.recorded.output import Output

HELD_S = 3.0
"""So long after a frame it is known what a face does in it, seconds of the source."""

REACH_S = 0.1
"""A frame has the loudness that is measured next, if that is no further away."""

DOES: dict[str, ActivityKind] = {
    "speaking": "speech",
    "blink": "blink",
    "eyes_closed": "eyes_closed",
    "gaze_away": "gaze",
    "head_turn": "head_turn",
    "covered": "covered",
}
"""Columns of 0 and 1, and the activity that each is about."""

PLACE = ("frame", "t", "played", "face", "success", "voice", "box_x", "box_y", "box_width", "box_height")
MEASURED = ("loudness", "moved")
QUALITY = ("repeated", "mesh_age", "presence", "found", "residual", "scale")
HEAD = ("yaw", "pitch", "roll", "yaw_change", "pitch_change", "eye_opening")
MOTION = tuple(f"{name}_{axis}" for name in REGION_NAMES for axis in ("x", "y"))
COLUMNS = (*PLACE, *DOES, *MEASURED, *QUALITY, *HEAD, *MOTION)
"""The names of the columns; docs/usage.md says what they mean."""

_NO_CROP = [""] * len((*QUALITY, *HEAD, *MOTION))


@dataclass(eq=False)
class _Row:
    """A row that waits: its first and last cells, those of MEASURED once they are known, and the face, None for no face."""

    t: float
    face: int | None
    place: list[str]
    crop: list[str]
    measured: list[str] = field(default_factory=lambda: [""] * len(MEASURED))


@dataclass(eq=False)
class _FaceHistory:
    """Of one face: its rows that are not measured yet, its activities that ended lately, and those that are open."""

    unmeasured: deque[_Row] = field(default_factory=deque)
    ended: deque[Activity] = field(default_factory=deque)
    open: dict[ActivityKind, float] = field(default_factory=dict)

    def measure(self, seen: Observation) -> None:
        """Take what the spotter measured last, for the rows up to that moment."""
        last = -math.inf if seen.measured_t is None else seen.measured_t
        while self.unmeasured and self.unmeasured[0].t <= last:
            row = self.unmeasured.popleft()
            if row.t >= last - REACH_S:
                row.measured = [f"{seen.loudness:.3f}", f"{seen.moved_px:.3f}"]

    def does(self, t: float) -> set[ActivityKind]:
        """What the face does at t, seconds of the source; not asked for earlier moments afterwards."""
        while self.ended and self.ended[0].end.t < t:
            self.ended.popleft()
        ended = {one.kind for one in self.ended if one.start.t <= t <= one.end.t}
        return ended | {kind for kind, since in self.open.items() if since <= t}


class FrameTable(Output):
    """Writes frames.csv into folder. Raises OutputError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "frames.csv"
        self._file: LineFile | None = None
        self._rows: deque[_Row] = deque()
        self._faces: dict[int, _FaceHistory] = {}

    def frame(self, frame: Frame, faces: Sequence[Face], observations: Sequence[Observation], origin: float) -> None:
        """Take the next frame, after what ended with the one before was taken; write the rows that are complete by now."""
        if self._file is None:
            self._file = LineFile(self._path)
            self._file.append(",".join(COLUMNS) + "\n")
        self._write(frame.t - HELD_S)
        seen_or_none: Sequence[Observation | None] = observations or [None]
        for seen in seen_or_none:
            row = _row(frame, seen, origin)
            self._rows.append(row)
            if seen is not None:
                face = self._faces.setdefault(seen.face, _FaceHistory())
                if seen.crop is not None:
                    face.unmeasured.append(row)
                    face.measure(seen)
                face.open = dict(seen.doing)

    def activity(self, activity: Activity, origin: float) -> None:
        """Take an activity that ended."""
        face = self._faces.setdefault(activity.face, _FaceHistory())
        face.ended.append(activity)
        face.open.pop(activity.kind, None)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the rows that still wait."""
        self._write(math.inf)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, until: float) -> None:
        """Write the rows of frames before until, seconds of the source."""
        lines = []
        while self._rows and self._rows[0].t < until:
            row = self._rows.popleft()
            does = self._faces[row.face].does(row.t) if row.face is not None else set()
            acts = [("1" if kind in does else "0") if row.face is not None else "" for kind in DOES.values()]
            lines.append(",".join([*row.place, *acts, *row.measured, *row.crop]) + "\n")
        if lines and self._file is not None:
            self._file.append("".join(lines))


def _row(frame: Frame, seen: Observation | None, origin: float) -> _Row:
    crop = None if seen is None else seen.crop
    voice = "" if frame.voice is None else f"{frame.voice:.2f}"
    place = [str(frame.index), f"{frame.t:.6f}", f"{frame.t - origin:.6f}"]
    place += ["" if seen is None else str(seen.face), "01"[crop is not None], voice]
    place += [""] * 4 if seen is None else [f"{value:.2f}" for value in seen.box]
    return _Row(frame.t, None if seen is None else seen.face, place, _NO_CROP if crop is None else _crop_cells(crop))


def _crop_cells(crop: Crop) -> list[str]:
    """The cells of QUALITY, HEAD and MOTION."""
    scale = math.hypot(crop.transform[0, 0], crop.transform[1, 0])
    change = (-crop.turn[:2] / TURN_SCALE).tolist()  # near points move against the turn of `engine.registration.head.Head`
    angles = [math.degrees(angle) for angle in (*yaw_and_pitch(crop.landmarks), roll_of(crop.transform), *change)]
    presence = "" if math.isinf(crop.presence) else f"{crop.presence:.2f}"
    quality = ["01"[crop.repeated], f"{crop.mesh_age:.3f}", presence, f"{crop.found.mean():.3f}"]
    quality += [f"{crop.residual:.3f}", f"{scale:.5f}"]
    head = [*(f"{angle:.2f}" for angle in angles), f"{crop.eye_opening:.4f}"]
    return [*quality, *head, *(f"{value:.4f}" for value in crop.motion.ravel().tolist())]
