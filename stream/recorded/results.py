"""The results of a video read back from the folder into which `analyze` wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ArrayError, InputError
from engine.types import Activity, Mark
from stream.events.formats import Entry, Recording

NO_RESULTS = "the folder of one video's results is expected, as `apexstream analyze` writes it"


@dataclass(frozen=True)
class Results:
    """What was found in a video: the summary, and the events in the order in which they were written. origin is the source
    time, seconds, at which a player of the video shows 0."""

    folder: Path
    summary: Mapping[str, Any]
    entries: tuple[Entry, ...]
    origin: float

    @property
    def video(self) -> Path | None:
        """The file that was analysed; it may have been moved since."""
        return Path(self.summary["file"]) if isinstance(self.summary.get("file"), str) else None

    @property
    def stream(self) -> str:
        """The name of the events' source."""
        named = self.summary.get("stream")
        return str(named) if named else self.entries[0].event.stream if self.entries else self.folder.name

    def recording(self, coder: str | None = None) -> Recording:
        """The video for an export of its events, or of a coder's review of them, with the activities that are in the folder.

        Raises InputError where those are damaged.
        """
        return Recording.from_summary(self.summary, _activities(self.folder / "activity.jsonl"), self.origin, coder)


def read_results(folder: Path) -> Results:
    """The results in a folder. A last line that was cut off, as by a loss of power, is left out.

    Raises InputError where there are none or they are damaged.
    """
    summary = _summary(folder)
    entries, origin = [], _start(summary)
    for fields in _lines(folder / "events.jsonl"):
        try:
            origin = fields["onset"]["t"] - fields["played"]["onset"]
            entries.append(Entry(Entry.stored(fields).event, fields, origin))
        except (KeyError, TypeError, AttributeError, ArrayError) as error:
            raise InputError(f"{folder / 'events.jsonl'} is damaged: line {len(entries) + 1} is no event") from error
    return Results(folder, summary, tuple(entries), origin)


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except NotADirectoryError:
        raise InputError(f"{folder} is a file: {NO_RESULTS}") from None
    except FileNotFoundError:
        if not folder.exists():
            raise InputError(f"there is no folder {folder}: {NO_RESULTS}") from None
        inside = sorted(path.parent for path in folder.glob("*/summary.json"))
        example = f", such as {inside[0]}" if inside else ""
        raise InputError(f"{folder} has no summary.json: {NO_RESULTS}{example}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged: it is no JSON") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: it holds no summary")
    return found


def _start(summary: Mapping[str, Any]) -> float:
    """The origin where no event tells: that which the summary states, else the first picture."""
    video = summary.get("video")
    start = video.get("origin", video.get("start")) if isinstance(video, dict) else None
    return float(start) if isinstance(start, (int, float)) else 0.0


def _activities(path: Path) -> list[Activity]:
    """The activities in a file; none where there is no such file."""
    found: list[Activity] = []
    if not path.exists():
        return found
    for one in _lines(path):
        try:
            start, end = (Mark(one[name]["frame"], one[name]["t"]) for name in ("start", "end"))
            found.append(Activity(one["face"], one["kind"], start, end, one.get("expression_probability")))
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: line {len(found) + 1} is no activity") from error
    return found


def _lines(path: Path) -> Iterator[Any]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path.parent} has no events.jsonl: {NO_RESULTS}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read; it is damaged or may not be read") from error
    for number, line in enumerate(lines[:-1], 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise InputError(f"{path} is damaged: line {number} is no JSON") from error
