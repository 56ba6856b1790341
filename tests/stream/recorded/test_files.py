from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from engine.errors import OutputError
from engine.types import Activity, Event, Mark
from stream.events.formats import Recording
from stream.events.formats.csv import columns
from stream.recorded.files import EventFiles, as_json
from tests.events import evidence

PLAYED = {"played": {"onset": 4.004, "apex": 4.204, "offset": 4.438}}
"""The fields that a file adds to EVENT where a player's clock is the source's."""

EVENT = Event(
    id="a1",
    stream="clip, one",
    face=0,
    state="final",
    kind="micro",
    onset=Mark(120, 4.004),
    apex=Mark(126, 4.204),
    offset=Mark(133, 4.438),
    label="surprise",
    probabilities={"negative": 0.03, "positive": 0.05, "surprise": 0.92},
    confidence=0.92,
    intensity=1.31,
    model="ahmsa@sha256:0123",
)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_events_are_on_disk_as_they_come(tmp_path: Path) -> None:
    files = EventFiles(tmp_path / "a" / "b")
    for number in range(3):
        event = replace(EVENT, id=f"e{number}")
        files.event(event)
        assert lines(files.folder / "events.jsonl")[-1] == event.as_dict() | PLAYED
        assert len((files.folder / "events.csv").read_text().splitlines()) == number + 2
    files.close()


def test_kept_events_have_no_pictures(tmp_path: Path) -> None:
    files = EventFiles(tmp_path)
    files.event(replace(EVENT, evidence=evidence()))
    files.close()
    assert files.events == [EVENT] and files.events[0].evidence is None


def test_activities_are_on_disk_as_they_come(tmp_path: Path) -> None:
    files = EventFiles(tmp_path, "lobby")
    spoken, blinked = Activity(0, "speech", Mark(10, 0.4), Mark(40, 1.6)), Activity(1, "blink", Mark(50, 2.0), Mark(54, 2.1))
    for number, activity in enumerate((spoken, blinked), 1):
        files.activity(activity)
        assert lines(tmp_path / "activity.jsonl")[-1] == activity.as_dict("lobby") | {
            "played": {"start": activity.start.t, "end": activity.end.t}
        }
        assert len(lines(tmp_path / "activity.jsonl")) == number
    assert files.activities == [spoken, blinked]
    files.close()


def test_the_summary_exists_from_the_start_as_incomplete(tmp_path: Path) -> None:
    files = EventFiles(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == {"complete": False}
    files.finish({"complete": True})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"complete": True}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("activity.jsonl", "events.csv", "events.jsonl", "events.vtt", "summary.json")
    ]


def test_a_new_run_replaces_an_old_one(tmp_path: Path) -> None:
    for ids in (["x", "y", "z"], ["w"]):
        files = EventFiles(tmp_path)
        for name in ids:
            files.event(replace(EVENT, id=name))
        files.finish({"complete": True})
    assert [event["id"] for event in lines(tmp_path / "events.jsonl")] == ["w"]
    assert len((tmp_path / "events.csv").read_text().splitlines()) == 2


def test_lines_survive_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from tests.stream.recorded.test_files import EVENT\n"
        "from stream.recorded.files import EventFiles\n"
        "files = EventFiles(Path(sys.argv[1])); files.event(EVENT); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).resolve().parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert ended.returncode == -9
    assert lines(tmp_path / "events.jsonl") == [EVENT.as_dict() | PLAYED]
    assert json.loads((tmp_path / "summary.json").read_text())["complete"] is False


def test_files_say_when_a_player_that_counts_from_the_first_frame_shows_an_event(tmp_path: Path) -> None:
    files = EventFiles(tmp_path)
    files.event(EVENT, -3.77)
    files.activity(Activity(0, "blink", Mark(50, -2.0), Mark(54, -1.9)), -3.77)
    files.finish({})
    assert lines(tmp_path / "events.jsonl")[0]["played"] == {"onset": 7.774, "apex": 7.974, "offset": 8.208}
    assert lines(tmp_path / "activity.jsonl")[0]["played"] == {"start": 1.77, "end": 1.87}
    assert "00:00:07.774 --> 00:00:08.208" in (tmp_path / "events.vtt").read_text()
    with (tmp_path / "events.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["onset_t"], row["onset_played"], row["offset_played"]) == ("4.004000", "7.774000", "8.208000")


def test_no_event_gives_files_without_events(tmp_path: Path) -> None:
    EventFiles(tmp_path).finish({"complete": True})
    assert (tmp_path / "events.jsonl").read_text() == ""
    assert (tmp_path / "events.vtt").read_text() == "WEBVTT\n"
    assert (tmp_path / "events.csv").read_text() == ",".join(columns(Recording())) + "\n"


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written: (not a directory|file exists)"):
        EventFiles(tmp_path / "file" / "deep")
    with pytest.raises(OutputError, match="file exists"):
        EventFiles(tmp_path / "file")


def test_a_full_disk_keeps_whole_lines_and_is_reported(tmp_path: Path) -> None:
    """A limit on file size in a process of its own stands for the disk: the kernel refuses the same write with an error."""
    script = (
        "import resource, signal, sys; from pathlib import Path; from tests.stream.recorded.test_files import EVENT\n"
        "from engine.errors import OutputError; from stream.recorded.files import EventFiles\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "files = EventFiles(Path(sys.argv[1]))\n"
        "try:\n    [files.event(EVENT) for _ in range(10)]\nexcept OutputError as error: print(error)\n"
    )
    root = Path(__file__).resolve().parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "events.jsonl cannot be written: file too large" in ended.stdout
    kept = lines(tmp_path / "events.jsonl")
    assert kept == [EVENT.as_dict() | PLAYED] * len(kept)
    assert len(kept) >= 2


def test_json_is_valid_and_ends_its_line() -> None:
    assert json.loads(as_json({"a": "ü", "b": [1, 2]})) == {"a": "ü", "b": [1, 2]}
    assert as_json({}).endswith("\n")


def test_what_a_person_changed_is_kept_by_a_later_analysis(tmp_path: Path) -> None:
    formats = ("jsonl", "eaf", "boris")
    for _ in range(2):
        files = EventFiles(tmp_path, formats=formats)
        files.event(EVENT)
        files.finish({})
        assert not list(tmp_path.glob("edited-*")), "nobody changed what the first analysis wrote"
    for work in ("hours", "more hours"):
        (tmp_path / "events.eaf").write_text(work)
        later = (tmp_path / "summary.json").stat().st_mtime_ns + 1_000_000_000
        os.utime(tmp_path / "events.eaf", ns=(later, later))
        EventFiles(tmp_path, formats=formats).finish({})
    kept = {path.name: path.read_text() for path in tmp_path.glob("edited-*")}
    assert kept == {"edited-events.eaf": "hours", "edited-2-events.eaf": "more hours"}
    assert (tmp_path / "events.eaf").read_text().startswith("<?xml")


def test_a_table_that_a_person_changed_is_kept_but_not_that_of_an_analysis_that_was_killed(tmp_path: Path) -> None:
    summaries: list[dict[str, Any]] = [{}, {"video": {}}]
    for changes in summaries:  # the first one was killed: it leaves the summary that was there from its start
        files = EventFiles(tmp_path)
        files.event(EVENT)
        files.finish(changes)
        (tmp_path / "events.csv").write_text("with a column of notes")
        later = (tmp_path / "summary.json").stat().st_mtime_ns + 1_000_000_000
        os.utime(tmp_path / "events.csv", ns=(later, later))
        EventFiles(tmp_path).close()
        kept = [path.name for path in tmp_path.glob("edited-*")]
        assert kept == (["edited-events.csv"] if changes else [])
    assert (tmp_path / "edited-events.csv").read_text() == "with a column of notes"


def test_a_file_of_an_analysis_that_was_killed_at_its_end_is_nobodys_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the last files of events and the summary, which is that of the start then."""
    files = EventFiles(tmp_path)
    files.event(EVENT)
    os.utime(tmp_path / "summary.json", ns=(0, 1_000_000_000))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("stream.recorded.files.as_json", Mock(side_effect=KeyboardInterrupt))
        files.finish({"video": {}})
    assert (tmp_path / "events.vtt").exists() and json.loads((tmp_path / "summary.json").read_text()) == {"complete": False}
    EventFiles(tmp_path).close()
    assert not list(tmp_path.glob("edited-*"))


def test_more_events_than_a_document_holds_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.events.formats.timeline.MAX_EVENTS", 1)
    files = EventFiles(tmp_path)
    for number in range(2):
        files.event(replace(EVENT, id=f"e{number}"))
    files.finish({"notes": ["dark"]})
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["notes"][0] == "dark" and summary["notes"][1].startswith("events.vtt is not written: a file of this format")
    assert len(lines(tmp_path / "events.jsonl")) == 2 and not (tmp_path / "events.vtt").exists()
