"""Results as an analysis leaves them, without analysing."""

from __future__ import annotations

import json
from pathlib import Path

from stream.recorded.folders.records import Record, Wanted, state_of, write_record

WANTED = Wanted({"version": "1", "spotter.sensitivity": "normal"}, ("pictures",))


def a_file(path: Path, content: str = "a video") -> Path:
    """A file at path, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def unfinished_results(folder: Path, video: Path) -> Path:
    """What an analysis of the video leaves that was killed."""
    a_file(folder / "events.jsonl", "{}\n")
    a_file(folder / "summary.json", json.dumps({"file": str(video.resolve()), "complete": False}))
    return folder


def finished_results(folder: Path, video: Path, wanted: Wanted = WANTED, problem: str | None = None) -> Path:
    """The results of a video."""
    unfinished_results(folder, video)
    files = ("events.jsonl", "summary.json")
    write_record(folder, Record(True, files, state_of(video), wanted.deciding, tuple(wanted.extras), problem))
    return folder
