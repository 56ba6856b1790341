from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.soak import cluster
from tests.soak.cluster import WorkerKiller, differences, finished, render


def a_file(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_results_are_compared_byte_for_byte(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        a_file(folder / "a" / "events.jsonl", "same")
        a_file(folder / "a" / "run.json", str(folder))
        a_file(folder / "index.html", str(folder))
    assert differences(one, other) == []
    a_file(other / "a" / "events.jsonl", "s4me")
    a_file(one / "b" / "events.csv", "")
    assert differences(one, other) == ["a/events.jsonl", "b/events.csv"]


def test_finished_videos_are_counted_by_their_lines() -> None:
    assert finished(["2 videos found", "[1/2] a.mp4: 0 events", "vm: the node is gone", "[2/2] b.mp4: failed: no"]) == 2


def test_the_clips_are_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LONG_S", 0.2)
    first = render(tmp_path, 1, 0.2) / "s0" / "clip00.mp4"
    made = first.stat().st_mtime_ns
    assert render(tmp_path, 1, 0.2) == tmp_path and first.stat().st_mtime_ns == made


def test_other_processes_that_open_the_video_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file(tmp_path / "a.mp4", "")
    monkeypatch.setattr(psutil.Process, "kill", lambda self: pytest.fail("a process was killed"))
    with (tmp_path / "a.mp4").open(), WorkerKiller(tmp_path / "a.mp4") as killer:
        killer.looked.wait()
    assert killer.kills == 0
