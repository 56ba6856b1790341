"""The record of a run over one video: run.json in the folder of its results, the last file that is written.

It tells finished results from those of a run that was killed, and whether the video, the settings or the program have changed
since. All that differs between two runs over the same video is in this file: when it ran and how fast.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stream.events.formats import FORMATS, file_name
from stream.files import write_atomically, write_errors
from stream.recorded.files import analysed_video, as_json

RECORD = "run.json"
REVIEW = "review.sqlite"
"""The decisions of human coders, about the events that are there."""
PART = ".part-"
"""How the names of files begin in which what is found in parts of a video waits until it is joined."""
EARLIER = ".earlier-"
"""How the names of the files of finished results begin while the video is analysed again."""
OPTIONAL = ("annotated.mp4", "event-[0-9]*.jpg", "frames.csv", "overview.png", "report.html")
"""Files that a run of other options, which was killed, may have left."""
WRITTEN = (*map(file_name, FORMATS), "activity.jsonl", "faces.csv", "summary.json", *OPTIONAL)
"""All files that an analysis writes besides its record, as patterns: others in the folder are the user's."""
SHOWN_CHANGES = 3


@dataclass(frozen=True)
class Wanted:
    """What results are to be: deciding holds everything that decides the content of events, by name, extras the names of what
    is written besides."""

    deciding: Mapping[str, Any]
    extras: Collection[str] = ()


@dataclass(frozen=True)
class VideoState:
    """What tells whether a file has changed; mtime_ns in nanoseconds since 1970."""

    file: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """A run over one video. finished is False while it runs; video is None where the video is no plain file.

    problem says what is missing in the results of a damaged video; files are the names of the results' files, digests the
    SHA-256 of those that people may work on.
    """

    finished: bool
    files: tuple[str, ...] = ()
    video: VideoState | None = None
    deciding: Mapping[str, Any] | None = None
    extras: tuple[str, ...] = ()
    problem: str | None = None
    timing: Mapping[str, Any] | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


def is_result(name: str) -> bool:
    """Whether an analysis writes files of that name."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in WRITTEN)


def read_record(folder: Path, name: str = RECORD) -> Record | None:
    """The record in a folder of results; None where there is none that can be read."""
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        video = found.pop("video")
        found.pop("format")
        record = Record(video=video and VideoState(**video), **found)
        return Record(**{**vars(record), "files": tuple(record.files), "extras": tuple(record.extras)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Write the record once everything that it lists is safe on the disk. Raises OutputError."""
    for name in record.files:
        _to_disk(folder / name)
    write_atomically(folder / RECORD, [as_json({"format": 1, **asdict(record)})])
    _to_disk(folder / RECORD)
    _to_disk(folder)


def _to_disk(path: Path) -> None:
    with write_errors(path), contextlib.suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def state_of(video: Path) -> VideoState | None:
    """The state of a video now, its whole content read; None for what is no plain file. Raises OSError."""
    if not video.is_file():
        return None
    facts = video.stat()
    return VideoState(str(video.resolve()), facts.st_size, facts.st_mtime_ns, digest_of(video))


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def belongs(folder: Path, video: Path | None) -> bool | None:
    """Whether the results in a folder are the video's, by its name or, where it was moved, by its content; None where there are
    no results. The results of another video, and any results where video is None, give False."""
    owner = analysed_video(folder) or analysed_video(folder, EARLIER)
    if owner is None:
        return None
    if video is None:
        return False
    if owner == video.resolve():
        return True
    record = read_record(folder, f"{EARLIER}{RECORD}") or read_record(folder)
    if record is None or record.video is None or not video.is_file() or record.video.size != video.stat().st_size:
        return False
    with contextlib.suppress(OSError):
        state = state_of(video)
        return state is not None and state.sha256 == record.video.sha256
    return False


def why_analyse(folder: Path, video: Path, wanted: Wanted) -> str | None:
    """Why the video is to be analysed: None where its results are finished and unchanged, "" where there are none."""
    record = read_record(folder)
    if record is None or not record.finished:
        return "not finished before" if analysed_video(folder) else ""
    missing = [name for name in record.files if not (folder / name).exists()]
    if missing:
        return f"{missing[0]} is missing"
    changed = list(changes(record.deciding or {}, wanted.deciding))
    if changed:
        more = len(changed) - SHOWN_CHANGES
        return "changed: " + ", ".join([*changed[:SHOWN_CHANGES], *([f"{more} more"] if more > 0 else [])])
    extras = sorted(set(wanted.extras) - set(record.extras))
    if extras:
        return f"{', '.join(extras)} wanted"
    return None if _unchanged(folder, record, video) else "the video has changed"


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What decides the content of events and is not as before, in words."""
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{name} was {before.get(name)} and is {now.get(name)}"


def _unchanged(folder: Path, record: Record, video: Path) -> bool:
    """By size and time of the last change, and where these differ by the content; then the record takes the new state."""
    known = record.video
    if known is None or not video.is_file():
        return False
    facts = video.stat()
    if facts.st_size != known.size:
        return False
    if (str(video.resolve()), facts.st_mtime_ns) == (known.file, known.mtime_ns):
        return True
    state = None
    with contextlib.suppress(OSError):  # reported when the video is analysed
        state = state_of(video)
    if state is None or state.sha256 != known.sha256:
        return False
    _follow(folder, Record(**{**vars(record), "video": state}))
    return True


def _follow(folder: Path, record: Record) -> None:
    """Name the video's new place in the results; the summary keeps its time, by which later changes to results show."""
    assert record.video is not None
    path = folder / "summary.json"
    summary, facts = json.loads(path.read_text(encoding="utf-8")), path.stat()
    if summary["file"] != record.video.file:
        summary["file"] = record.video.file
        write_atomically(path, [as_json(summary)])
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    write_record(folder, record)
