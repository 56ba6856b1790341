"""The files an analysis leaves: events.jsonl, events.csv, events.vtt, activity.jsonl, summary.json.

Lines of events and activities are on disk as they come, so that whatever ends the program leaves them; a line that no longer
fits on the disk is taken back whole. The summary is there from the start, saying "complete": false, and is replaced in one step
at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import OutputError
from engine.text import csv_line, cue, json_line
from engine.types import Activity, Event, Mark

SHORTEST_CUE_S = 0.04
CSV_LABELS = ("negative", "positive", "surprise")
CSV_COLUMNS = (
    *("id", "stream", "face", "kind", "label", "confidence", "intensity"),
    *("onset_frame", "onset_t", "apex_frame", "apex_t", "offset_frame", "offset_t", "duration_s", "truncated", "speaking"),
    *(f"p_{label}" for label in CSV_LABELS),
    *("model", "why", "expression_probability"),
)
FILE_COLUMNS = (*CSV_COLUMNS, "onset_played", "apex_played", "offset_played")
"""What events.csv has: the times in a player's clock beside those of the source's own."""


class EventFiles:
    """The five files in one folder, which is made if need be; stream names the source of activities, video is
    the file that is analysed.

    Raises OutputError when something cannot be written.
    """

    def __init__(self, folder: Path, stream: str = "video", video: Path | None = None) -> None:
        self.folder, self.stream = folder, stream
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.events: list[Event] = []
        self.activities: list[Activity] = []
        self.origin = 0.0
        whose = {} if video is None else {"file": str(video.resolve())}
        write_atomically(folder / "summary.json", as_json({"complete": False, **whose}))
        (folder / "events.vtt").unlink(missing_ok=True)
        self._lines = _LineFile(folder / "events.jsonl")
        self._open = [self._lines]
        try:
            self._rows = _LineFile(folder / "events.csv")
            self._open.append(self._rows)
            self._rows.append(csv_line(FILE_COLUMNS))
            self._acts = _LineFile(folder / "activity.jsonl")
            self._open.append(self._acts)
        except OutputError:
            self.close()
            raise

    def write(self, event: Event, origin: float = 0.0) -> None:
        """Keep one final event; origin is the source time at which a player's clock is 0."""
        self.origin = origin
        marks = {"onset": event.onset, "apex": event.apex, "offset": event.offset}
        fields = event.as_dict() | {"played": {name: _played(mark, origin) for name, mark in marks.items()}}
        self._lines.append(json_line(fields) + "\n")
        self.events.append(event)
        self._rows.append(csv_line(csv_row(event, origin)))

    def note(self, activity: Activity, origin: float = 0.0) -> None:
        """Keep one activity; origin as for an event."""
        played = {"start": _played(activity.start, origin), "end": _played(activity.end, origin)}
        self._acts.append(json_line(activity.as_dict(self.stream) | {"played": played}) + "\n")
        self.activities.append(activity)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the subtitles and the summary, and close."""
        self.close()
        write_atomically(self.folder / "events.vtt", subtitles(self.events, self.origin))
        write_atomically(self.folder / "summary.json", as_json(summary))

    def close(self) -> None:
        """Close the files that grow; events written so far stay."""
        for file in self._open:
            file.close()


class _LineFile:
    """A file that grows line by line, each on disk (to a kill, not to a power cut) when append returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _told(path):
            self._file = path.open("wb", buffering=0)
        self._end = 0

    def append(self, line: str) -> None:
        data = line.encode()
        with _told(self._path):
            try:
                left = data
                while left:
                    left = left[self._file.write(left) or 0 :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._end)
                raise
        self._end += len(data)

    def close(self) -> None:
        with _told(self._path):
            self._file.close()


def analysed_in(folder: Path) -> Path | None:
    """The video whose analysis left its files in a folder; None where that holds none, or none that says so."""
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return Path(found["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def csv_row(event: Event, origin: float = 0.0) -> list[object]:
    """An event's values in the order of FILE_COLUMNS; other labels than CSV_LABELS are in events.jsonl alone. origin is the
    source time at which a player's clock is 0."""
    fields = event.as_dict()
    row: list[object] = [fields[name] for name in CSV_COLUMNS[:7]]
    for mark in (event.onset, event.apex, event.offset):
        row += ["", ""] if mark is None else [mark.frame, f"{mark.t:.6f}"]
    row.append("" if event.offset is None else f"{event.offset.t - event.onset.t:.6f}")
    row += [str(event.truncated).lower(), str(event.speaking).lower()]
    row += [fields["probabilities"].get(label, "") for label in CSV_LABELS]
    row += [event.model, event.why or "", fields.get("expression_probability", "")]
    for mark in (event.onset, event.apex, event.offset):
        row.append("" if mark is None else f"{mark.t - origin:.6f}")
    return row


def subtitles(events: list[Event], origin: float = 0.0) -> str:
    """WebVTT: a cue for each event with an offset, in order of onset, in the time of a player whose clock is 0 at origin;
    what lies before that cannot be shown."""
    cues = ["WEBVTT", ""]
    for event in sorted(events, key=lambda e: (e.onset.t, e.face)):
        if event.offset is None or event.offset.t < origin:
            continue
        start = max(event.onset.t - origin, 0.0)
        end = max(event.offset.t - origin, start + SHORTEST_CUE_S)
        cues += [f"{_cue_time(start)} --> {_cue_time(end)}"]
        cues += [f"{cue(event.label)} {event.confidence:.0%} · {event.kind} · face {event.face}", ""]
    return "\n".join(cues)


def _played(mark: Mark | None, origin: float) -> float | None:
    return None if mark is None else round(mark.t - origin, 6)


def as_json(value: dict[str, Any]) -> str:
    """Indented JSON with a newline at its end."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def write_atomically(path: Path, text: str) -> None:
    """Replace path by a file with text, or leave it as it was. Raises OutputError."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with _told(path):
        try:
            scratch.write_text(text, encoding="utf-8", newline="", errors="backslashreplace")
            scratch.replace(path)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise


def _cue_time(t: float) -> str:
    ms = round(t * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """OSError as OutputError with the path and the system's reason."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
