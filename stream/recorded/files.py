"""The files an analysis writes: events in formats of `stream.events.formats`, activity.jsonl, summary.json.

Lines of events and activities are on disk at once, so that they remain however the program ends; a line that no longer fits on
the disk is removed whole. The summary exists from the start, with "complete": false, and is replaced in one step at the end.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.text import json_line
from engine.types import Activity, Event
from stream.events.formats import FORMATS, Entry, LineFormat, Recording, file_name
from stream.files import LineFile, write_atomically, write_errors
from stream.recorded.output import Output

ALWAYS = ("jsonl", "csv", "vtt")
"""The formats in which events are written in any case."""
EDITED = "edited-"
"""How the names of files begin that a person changed and a later analysis kept."""


class EventFiles(Output):
    """The files in one folder, which is created if needed: the events in each of formats, activities and summary. stream names
    the source of activities, video is the file that is analysed.

    Raises OutputError when something cannot be written, BackendError where a format needs a package that is missing.
    """

    def __init__(
        self, folder: Path, stream: str = "video", video: Path | None = None, formats: Collection[str] = ALWAYS
    ) -> None:
        self.folder, self.stream = folder, stream
        self._formats = {folder / file_name(name): FORMATS[name] for name in dict.fromkeys(formats)}
        for format_ in self._formats.values():
            format_.check()
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            keep_newer(folder)
        self.events: list[Event] = []
        self.activities: list[Activity] = []
        self.origin = 0.0
        source = {} if video is None else {"file": str(video.resolve())}
        write_atomically(folder / "summary.json", [as_json({"complete": False, **source})])
        self._lines: dict[LineFormat, LineFile] = {}
        with contextlib.ExitStack() as opened:
            for path, format_ in self._formats.items():
                if isinstance(format_, LineFormat):
                    self._lines[format_] = opened.enter_context(contextlib.closing(LineFile(path)))
                    self._lines[format_].append(format_.head(Recording()))
                else:  # written at the end
                    path.unlink(missing_ok=True)
            self._activity_lines = opened.enter_context(contextlib.closing(LineFile(folder / "activity.jsonl")))
            self._opened = opened.pop_all()

    def event(self, event: Event, origin: float = 0.0) -> None:
        """Write one final event; it is kept without evidence."""
        self.origin = origin
        entry = Entry.recorded(event, origin)
        for format_, file in self._lines.items():
            file.append(format_.write(entry))
        self.events.append(replace(event, evidence=None))

    def activity(self, activity: Activity, origin: float = 0.0) -> None:
        """Write one activity."""
        played = {"start": round(activity.start.t - origin, 6), "end": round(activity.end.t - origin, 6)}
        self._activity_lines.append(json_line(activity.as_dict(self.stream) | {"played": played}) + "\n")
        self.activities.append(activity)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the files of the other formats and the summary, and close. A file that cannot hold so many events is left out,
        and the summary's notes say so.

        No file is newer than the summary of the start, or it would count as changed by a person if this were killed here.
        """
        self.close()
        first = self.folder / "summary.json"
        begun_ns = first.stat().st_mtime_ns if first.is_file() else None
        recording = replace(Recording.from_summary(summary, self.activities, self.origin), folder=self.folder)
        try:
            for path, format_ in self._formats.items():
                if not isinstance(format_, LineFormat):
                    entries = (Entry.recorded(event, self.origin) for event in self.events)
                    try:
                        write_atomically(path, format_.export(entries, recording), changed_ns=begun_ns)
                    except InputError as error:
                        summary["notes"] = [*summary.get("notes", ()), f"{path.name} is not written: {error}"]
        finally:
            write_atomically(self.folder / "summary.json", [as_json(summary)])

    def close(self) -> None:
        """Close the files written line by line."""
        self._opened.close()


def keep_newer(folder: Path) -> None:
    """Rename the files of events that were changed since the analysis, as somebody may have worked on them. Raises OSError.

    Those written line by line are newer than the summary of an analysis that was killed, too.
    """
    summary = folder / "summary.json"
    ended = "video" in _content(summary)
    for name, format_ in FORMATS.items():
        path = folder / file_name(name)
        known = summary.is_file() and (ended or not isinstance(format_, LineFormat))
        if known and path.is_file() and path.stat().st_mtime_ns > summary.stat().st_mtime_ns:
            keep_edited(path)


def keep_edited(path: Path) -> None:
    """Rename a file on which somebody may have worked to a free name that begins with EDITED. Raises OSError."""
    names = (f"{EDITED}{number}{path.name}" for number in chain([""], (f"{k}-" for k in count(2))))
    path.rename(next(path.parent / free for free in names if not (path.parent / free).exists()))


def analysed_video(folder: Path, prefix: str = "") -> Path | None:
    """The video whose analysis wrote the files in folder, whose names begin with prefix; None where there are none, or the
    summary does not name it."""
    file = _content(folder / f"{prefix}summary.json").get("file")
    return Path(file) if isinstance(file, str) else None


def _content(summary: Path) -> dict[str, Any]:
    """What a summary says; nothing where there is none that can be read."""
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def as_json(value: dict[str, Any]) -> str:
    """Indented JSON with a newline at its end."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
