from __future__ import annotations

import pickle
from pathlib import Path, PurePosixPath

import pytest

from stream.recorded.folders.finding import FoundVideo
from stream.recorded.folders.tasks import Task, make_tasks
from tests.stream.recorded.folders.results import a_file, finished_results, unfinished_results


def names(out: Path, *places: str) -> list[str]:
    videos = [FoundVideo(out.parent / "videos" / place, PurePosixPath(place), 7) for place in places]
    return [task.name for task in make_tasks(videos, out)]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["a.mp4", "s1/a.mp4", "s1/deep/b.mov"], ["a", "s1/a", "s1/deep/b"]),
        (["a.avi", "a.mp4", "b.mp4"], ["a.avi", "a.mp4", "b"]),
        (["a.avi", "A.mp4"], ["a.avi", "A.mp4"]),
        (["A.mp4", "a.mp4"], ["A.mp4", "a.mp4-2"]),
        (["\u00fc.mp4", "u\u0308.mov"], ["\u00fc.mp4", "u\u0308.mov"]),
        (["s1/a.mp4", "S1/b.mp4"], ["s1-2/a", "S1/b"]),
        (["s1.mp4", "s1/s1.mp4"], ["s1.mp4", "s1/s1"]),
        (["index.html.mp4", "Summary.csv.avi", "s1/index.html.mp4"], ["index.html.mp4", "Summary.csv.avi", "s1/index.html"]),
        (["..mp4", ".hidden", "two.dots.mp4", "video.avi"], ["mp4", "hidden", "two.dots", "video.avi"]),
    ],
)
def test_no_two_videos_share_a_folder(places: list[str], expected: list[str], tmp_path: Path) -> None:
    assert names(tmp_path / "out", *places) == expected


def test_results_keep_their_folder_when_other_videos_appear(tmp_path: Path) -> None:
    out, videos = tmp_path / "out", tmp_path / "videos"
    unfinished_results(out / "a", videos / "a.mp4")
    assert names(out, "a.avi", "a.mp4", "a/a.mp4") == ["a.avi", "a", "a-2/a"]


def test_results_of_another_video_are_never_replaced(tmp_path: Path) -> None:
    unfinished_results(tmp_path / "out" / "a", tmp_path / "elsewhere" / "a.mp4")
    assert names(tmp_path / "out", "a.mp4") == ["a.mp4"]
    unfinished_results(tmp_path / "out" / "a.mp4", tmp_path / "elsewhere" / "a.mov")
    assert names(tmp_path / "out", "a.mp4") == ["a.mp4-2"]


def test_videos_that_were_moved_keep_their_results(tmp_path: Path) -> None:
    before, now = a_file(tmp_path / "old" / "a.mp4"), tmp_path / "videos" / "a.mp4"
    finished_results(tmp_path / "out" / "a", before)
    now.parent.mkdir()
    before.rename(now)
    assert names(tmp_path / "out", "a.mp4") == ["a"]
    a_file(now, "another")
    assert names(tmp_path / "out", "a.mp4") == ["a.mp4"]


def test_a_task_can_be_sent_to_another_process(tmp_path: Path) -> None:
    task = Task(tmp_path / "a.mp4", "s1/a", tmp_path / "out" / "s1" / "a", 7)
    assert pickle.loads(pickle.dumps(task)) == task
