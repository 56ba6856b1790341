from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OutputError
from engine.types import Activity, Mark
from stream.recorded.files import as_json
from stream.recorded.folders.outcome import Outcome
from stream.recorded.folders.table import COLUMNS, Table, figures
from stream.recorded.folders.tasks import Task
from stream.recorded.settings import AnalysisSettings
from stream.recorded.summary import summarize
from stream.sources.facts import VideoFacts
from tests.stream.recorded.folders.results import a_file, finished_results
from tests.stream.recorded.test_files import EVENT

FACTS: dict[str, Any] = {
    **{"codec": "h264", "pixel_format": "i420", "width": 640, "height": 360, "rotation": 0, "fps": 30.0},
    **{"start": 0.0, "end": 60.0, "covered": 60.0, "clock_restarts": (), "frames": 1800, "expected_frames": 1800, "gaps": 0},
    **{"lost_frames": 0, "unlit_frames": 0, "decode_errors": 0, "damaged_frames": 0, "warnings": ("two tracks",)},
    **{"duration": 60.0, "measured_fps": 30.0},
}


def a_summary(video: Path, problem: str | None = None) -> dict[str, Any]:
    """The summary of a minute with two events."""
    spoken, blinked = Activity(0, "speech", Mark(0, 0.0), Mark(300, 10.0)), Activity(0, "blink", Mark(0, 0.0), Mark(3, 0.1))
    return summarize(
        stream="s1/a",
        video=VideoFacts(**(dict.fromkeys(VideoFacts.__annotations__) | FACTS | {"path": str(video)})),
        events=[EVENT, EVENT],
        activities=[spoken, blinked],
        statistics={"faces": 2, "frames_with_face": 900},
        model="m",
        backend="ort",
        settings=AnalysisSettings(),
        problem=problem,
    )


def finished(task: Task, problem: str | None = None) -> Task:
    """The results of the task, finished."""
    finished_results(task.folder, task.video, problem=problem)
    a_file(task.folder / "summary.json", as_json(a_summary(task.video, problem)))
    return task


def a_task(tmp_path: Path, name: str) -> Task:
    return Task(a_file(tmp_path / "videos" / f"{name}.mp4"), name, tmp_path / "out" / name, 7)


def written(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_video_is_a_row(tmp_path: Path) -> None:
    tasks = [a_task(tmp_path, name) for name in ("s1/a", "b", "bad", "later", "half")]
    finished(a_task(tmp_path, "of an earlier run"))
    finished(tasks[1], "cut off")
    table = Table(tmp_path / "out", tasks)
    table.note(Outcome(finished(tasks[0]), None, None))
    table.note(Outcome(tasks[2], None, "no video"))
    table.note(Outcome(tasks[4], None, "stopped", stopped=True))
    table.write()
    rows = written(tmp_path / "out")
    assert [(row["results"], row["state"], row["problem"], row["events"]) for row in rows] == [
        ("b", "damaged", "cut off", "2"),
        ("bad", "failed", "no video", ""),
        ("half", "waiting", "", ""),
        ("later", "waiting", "", ""),
        ("of an earlier run", "done", "", "2"),
        ("s1/a", "done", "", "2"),
    ]
    assert rows[5]["video"] == str(tasks[0].video)
    assert tuple(rows[0]) == COLUMNS


def test_a_video_that_fails_now_keeps_no_row_of_before(tmp_path: Path) -> None:
    task = finished(a_task(tmp_path, "a"))
    table = Table(tmp_path / "out", [task])
    (task.folder / "run.json").unlink()
    for stopped, state in ((True, "waiting"), (False, "failed")):
        table.note(Outcome(task, None, "no video", stopped=stopped))
        assert [(row.state, row.figures) for row in table.rows] == [(state, None)]
    table.note(Outcome(finished(task), None, "no video"))
    assert [(row.state, row.problem, row.figures) for row in table.rows] == [("failed", "no video", None)]


def test_figures_of_a_summary(tmp_path: Path) -> None:
    found = figures(a_summary(tmp_path / "a.mp4"))
    assert found == {
        **{"duration_s": 60.0, "frames": 1800, "fps": 30.0, "faces": 2, "face_s": 30.0, "events": 2, "micro": 2, "macro": 0},
        **{"negative": 0, "positive": 0, "surprise": 2, "uncertain": 0, "other_labels": 0, "truncated": 0},
        **{"while_speaking": 0, "speech_s": 10.0, "blinks": 1, "head_turn_s": 0, "covered_s": 0, "model": "m"},
        "notes": "two tracks",
    }
    assert set(found) < set(COLUMNS)


@pytest.mark.parametrize("content", ["", "{}", "[]", json.dumps({"file": "a", "video": 3})])
def test_a_summary_that_was_damaged_is_not_counted(content: str, tmp_path: Path) -> None:
    task = finished(a_task(tmp_path, "a"))
    a_file(task.folder / "summary.json", content)
    assert [row.state for row in Table(tmp_path / "out", [task]).rows] == ["waiting"]


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"summary\.csv cannot be written"):
        Table(tmp_path / "none", []).write()


def test_a_video_that_is_gone_is_marked(tmp_path: Path) -> None:
    before = finished(a_task(tmp_path, "before"))
    now = finished(Task(before.video.rename(before.video.with_name("now.mp4")), "now", tmp_path / "out" / "now", 7))
    Table(tmp_path / "out", [now]).write()
    rows = [(row["results"], row["state"], row["problem"], row["events"]) for row in written(tmp_path / "out")]
    problem = "the video is gone: it was renamed, moved or deleted after its analysis"
    assert rows == [("before", "gone", problem, "2"), ("now", "done", "", "2")]
