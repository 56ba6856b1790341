"""Gathers the report during an analysis, and writes `report.html` at its end.

What grows with the number of events goes to temporary files beside the report, which vanish with the process; in memory remain
the times of faces and activities.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from engine.text import plain
from engine.types import Activity, Event, Face, Frame, Observation
from stream.events.formats import Entry
from stream.files import write_atomically, write_errors
from stream.recorded.output import Output
from stream.recorded.report.film import flow, strip
from stream.recorded.report.motion import KEEP_S, CropHistory, Motion, motion_of
from stream.recorded.report.page import data_line, page, picture_element
from stream.recorded.report.seen import ASIDE_DEG, LEAST_EYES_PX, Seen, Visibility, visibility
from stream.recorded.report.spans import Span
from stream.sources.clock import MICRO_FPS

NAME = "report.html"

SHOWN_S = 1.0
"""Faces in view for less than this, and without an event, are only counted,"""

SHOWN_FACES = 60
"""and so are those beyond this number, that have the fewest events and were in view for the shortest time."""


class ReportPage(Output):
    """Writes the report of the analysis of a video into folder; with pictures of the faces, and a link to the
    video, only if pictures and linked ask for them.

    Raises OutputError when something cannot be written.
    """

    def __init__(self, folder: Path, video: Path, *, pictures: bool = False, linked: bool = True) -> None:
        self._path, self._video, self._with_pictures, self._linked = folder / NAME, video, pictures, linked
        self.needs_faces = pictures
        self._seen = Seen()
        self._crops: dict[int, CropHistory] = {}
        self._activities: list[Activity] = []
        self._origin: float | None = None
        self._events = 0
        self._opened = ExitStack()
        self._lines: IO[str] | None = None
        self._pictures: IO[str] | None = None

    def frame(self, frame: Frame, faces: Sequence[Face], observations: Sequence[Observation], origin: float) -> None:
        """Note who is in view, and keep the last crops."""
        if self._lines is None or self._pictures is None:
            with write_errors(self._path):
                self._path.unlink(missing_ok=True)  # of an earlier analysis
                self._lines, self._pictures = (self._spill() for _ in range(2))
        self._origin = origin
        self._seen.frame(frame, faces, observations)
        apart = {face.id for face in faces if face.apart or frame.gap}
        for seen in observations:
            if seen.crop is not None:
                self._crops.setdefault(seen.face, CropHistory()).append(seen.crop, apart=seen.face in apart)
        for face in [face for face, crops in self._crops.items() if frame.t - crops.last_t > KEEP_S]:
            del self._crops[face]

    def event(self, event: Event, origin: float) -> None:
        """Put the event's figures, motion and pictures aside."""
        crops = self._crops[event.face].around(event) if event.face in self._crops else []
        fields = {**Entry.recorded(event, origin).fields, **_motion_fields(motion_of(event, crops), origin)}
        count, film = strip(event, crops) if self._with_pictures else (0, "")
        assert self._lines is not None and self._pictures is not None  # there was a frame
        with write_errors(self._path):
            self._lines.write(f"{data_line({**fields, 'pictures': count})}\n")
            if count:
                self._pictures.write(picture_element(self._events, film, flow(event)))
        self._events += 1

    def activity(self, activity: Activity, origin: float) -> None:
        """Keep the activity."""
        self._activities.append(activity)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the page."""
        title = plain(self._video.name)
        write_atomically(self._path, page(title, self._shown(title, summary), _lines(self._lines), _lines(self._pictures)))

    def close(self) -> None:
        """Drop the temporary files."""
        self._opened.close()

    def _spill(self) -> IO[str]:
        return self._opened.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", dir=self._path.parent))

    def _shown(self, title: str, summary: dict[str, Any]) -> dict[str, Any]:
        """What the page shows besides events; times in seconds of a player's clock."""
        origin, seen = self._origin or 0.0, self._seen
        whole, each = visibility(seen, self._activities)
        counts = {int(face): count for face, count in summary["events"]["by_face"].items()}
        candidates = [id_ for id_ in each if id_ in counts or each[id_].present >= SHOWN_S]
        candidates.sort(key=lambda id_: (-counts.get(id_, 0), -each[id_].present))
        shown = sorted(candidates[:SHOWN_FACES])
        video = summary["video"]
        facts = ("codec", "width", "height", "measured_fps", "duration", "frames")
        return {
            "title": title,
            "link": _link(self._video, self._path.parent) if self._linked else None,
            "video": {name: video[name] for name in facts},
            "complete": summary["complete"],
            "problem": summary["problem"] and plain(summary["problem"]),
            "notes": [plain(note) for note in (*video["warnings"], *summary["notes"])],
            "pictures": self._with_pictures,
            "model": summary["model"],
            "version": summary["versions"]["apexstream"],
            "from": round((seen.start or 0.0) - origin, 3),
            "to": round(seen.end - origin, 3),
            "limits": {"aside_deg": ASIDE_DEG, "eyes_px": LEAST_EYES_PX, "fps": MICRO_FPS},
            "seen": _rounded(whole),
            "slow": _flat(seen.slow, origin),
            "faces": [{"id": id_, "seen": _rounded(each[id_]), **self._times(id_, origin)} for id_ in shown],
            "others": len(each) - len(shown),
        }

    def _times(self, face: int, origin: float) -> dict[str, Any]:
        """When a face is in view and under which conditions, and its activities by kind."""
        times = {name: _flat(spans, origin) for name, spans in vars(self._seen.faces[face]).items()}
        kinds: dict[str, list[Span]] = {}
        for one in self._activities:
            if one.face == face:
                kinds.setdefault(one.kind, []).append((one.start.t, one.end.t))
        return {**times, "activities": {kind: _flat(spans, origin) for kind, spans in kinds.items()}}


def _motion_fields(motion: Motion | None, origin: float) -> dict[str, Any]:
    if motion is None:
        return {"curve": None, "moved": None}
    curve = {"t": [round(t, 3) for t in (motion.t - origin).tolist()], "px": [round(px, 2) for px in motion.px.tolist()]}
    return {"curve": curve, "moved": motion.moved.round(2).tolist()}


def _rounded(visibility: Visibility) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(visibility).items()}


def _flat(spans: Iterable[Span], origin: float) -> list[float]:
    """start, end, start, end ..."""
    return [round(t - origin, 3) for span in spans for t in span]


def _lines(file: IO[str] | None) -> Iterator[str]:
    if file is not None:
        file.seek(0)
        yield from file


def _link(video: Path, folder: Path) -> str | None:
    """The address of the video as seen from a page in folder; None where it is no file that can be opened again."""
    if not video.is_file():
        return None
    try:
        return quote(os.fsencode(Path(os.path.relpath(video.resolve(), folder.resolve())).as_posix()))
    except ValueError:  # on another drive
        return video.resolve().as_uri()
