from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import OutputError
from stream.recorded.folders.records import RECORD, Record, Wanted, belongs, read_record, state_of, why_analyse, write_record
from tests.stream.recorded.folders.results import WANTED, a_file, finished_results, unfinished_results


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return a_file(tmp_path / "videos" / "a.mp4")


@pytest.fixture
def results(video: Path, tmp_path: Path) -> Path:
    return finished_results(tmp_path / "out" / "a", video)


def test_a_record_is_read_as_it_was_written(video: Path, tmp_path: Path) -> None:
    record = Record(True, ("events.csv",), state_of(video), {"a": [1, None]}, ("pictures",), "cut off", {"wall_s": 1.5})
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1, "video": {"size": 3}}', "\x00" * 40])
def test_what_is_no_record_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(content, encoding="utf-8")
    assert read_record(tmp_path) is None


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_record(tmp_path / "none", Record(True))


def test_finished_results_stay(video: Path, results: Path) -> None:
    assert why_analyse(results, video, WANTED) is None
    assert why_analyse(results, video, replace(WANTED, extras=())) is None, "more than is wanted is no reason"


def test_what_was_killed_is_not_finished(video: Path, results: Path, tmp_path: Path) -> None:
    assert why_analyse(tmp_path / "new", video, WANTED) == ""
    assert why_analyse(unfinished_results(tmp_path / "b", video), video, WANTED) == "not finished before"
    write_record(results, Record(False))
    assert why_analyse(results, video, WANTED) == "not finished before"


def test_a_result_that_is_missing_is_a_reason(video: Path, results: Path) -> None:
    (results / "events.jsonl").unlink()
    assert why_analyse(results, video, WANTED) == "events.jsonl is missing"


@pytest.mark.parametrize(
    ("deciding", "reason"),
    [
        ({"version": "2"}, "changed: version was 1 and is 2"),
        ({"spotter.sensitivity": "high"}, "changed: spotter.sensitivity was normal and is high"),
        ({"new": 3}, "changed: new was None and is 3"),
        (dict.fromkeys("abcde", 1), "changed: a was None and is 1, b was None and is 1, c was None and is 1, 2 more"),
    ],
)
def test_changed_settings_are_named(deciding: dict[str, object], reason: str, video: Path, results: Path) -> None:
    assert why_analyse(results, video, Wanted({**WANTED.deciding, **deciding}, ("pictures",))) == reason


def test_what_is_wanted_besides_is_a_reason(video: Path, results: Path) -> None:
    assert why_analyse(results, video, Wanted(WANTED.deciding, ("pictures", "report", "frames"))) == "frames, report wanted"


def test_a_changed_video_is_a_reason(video: Path, results: Path) -> None:
    for content in ("b video", "a longer video"):
        a_file(video, content)
        os.utime(video, ns=(0, 0))
        assert why_analyse(results, video, WANTED) == "the video has changed"


def test_a_video_that_was_only_touched_is_unchanged_and_read_once(
    video: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(video, ns=(0, 5))
    assert why_analyse(results, video, WANTED) is None
    record = read_record(results)
    assert record is not None and record.video is not None and record.video.mtime_ns == 5
    monkeypatch.setattr("stream.recorded.folders.records.state_of", lambda video: pytest.fail("read again"))
    assert why_analyse(results, video, WANTED) is None


def test_results_follow_a_video_that_was_moved(video: Path, results: Path, tmp_path: Path) -> None:
    moved, written_at = video.rename(tmp_path / "moved.mp4"), (results / "summary.json").stat().st_mtime_ns
    assert why_analyse(results, moved, WANTED) is None
    assert json.loads((results / "summary.json").read_text())["file"] == str(moved)
    assert (results / "summary.json").stat().st_mtime_ns == written_at


def test_whose_results_they_are(video: Path, results: Path, tmp_path: Path) -> None:
    other = a_file(tmp_path / "b.mp4", "b video")
    assert belongs(results, video) is True
    assert belongs(results, other) is False
    assert belongs(results, a_file(tmp_path / "c.mp4")) is True, "the same content elsewhere"
    assert belongs(results, None) is False
    assert belongs(tmp_path, video) is None


def test_a_pipe_has_no_state(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert state_of(tmp_path / "pipe") is None
