from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from apexstream.cli import main
from apexstream.video_analysis import AnalysisOptions, analyze_video
from engine.errors import ApexError, OutputError
from stream.files import folder_lock
from stream.recorded.folders.runs import Outcome, run_here
from stream.recorded.folders.store import Store
from stream.recorded.folders.tasks import Task
from stream.recorded.folders.workers import Setup, StopRequest
from tests.videos import stepping, write_video

ROOT = Path(__file__).resolve().parents[4]


def exits(*args: object) -> object:
    with pytest.raises(SystemExit) as caught:
        main(["analyze", *map(str, args)])
    return caught.value.code


def small(path: Path, count: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, stepping(64, 48, count))


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder by their paths, without those that differ from run to run."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "run.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Folders of videos, of which two are damaged, and other files."""
    folder = tmp_path / "videos"
    for number, name in enumerate(("a.mp4", "s1/a.mp4", "s1/a.avi", "s1/deep/b.mkv"), 3):
        small(folder / name, number)
    (folder / "s1" / "text.mp4").write_text("not a video")
    whole = small(folder / "s2" / "cut.mp4", 200).read_bytes()
    (folder / "s2" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("of the day")
    return folder


def test_results_mirror_the_folders(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits(videos, "--recursive", "--jobs", 1, "--out", tmp_path / "out") == 1
    found = sorted(path.parent.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("run.json"))
    assert found == ["a", "s1/a.avi", "s1/a.mp4", "s1/deep/b"]
    shown = capsys.readouterr()
    assert shown.out.startswith("6 videos found; besides 1 other file\n[1/6] ")
    assert f"[1/6] {videos / 'a.mp4'}: 0 events in 3 frames (0.1 s), " in shown.out
    assert [line.split(" cannot")[0].split(": no ")[0] for line in shown.err.splitlines()] == [
        f"apexstream: error: {videos / 's1' / 'text.mp4'}",
        f"apexstream: error: {videos / 's2' / 'cut.mp4'}",
    ]


def test_only_what_changed_is_analysed_again(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (videos / "s1", "--recursive", "--jobs", 1, "--out", tmp_path / "out")
    assert exits(*arguments) == 1
    before = contents(tmp_path / "out")
    capsys.readouterr()
    small(videos / "s1" / "a.avi", 9)
    assert exits(*arguments) == 1
    shown = capsys.readouterr().out
    assert "finished before and unchanged: 2 videos (--again analyses them again)\n" in shown
    assert f"[1/2] {videos / 's1' / 'a.avi'} (the video has changed): 0 events in 9 frames" in shown
    after = contents(tmp_path / "out")
    assert {name for name in after if after[name] != before[name]} == {
        *("a.avi/report.html", "a.avi/summary.json", "index.html", "summary.csv")
    }
    assert exits(*arguments, "--sensitivity", "high") == 1
    assert "(changed: spotter.sensitivity was normal and is high)" in capsys.readouterr().out


def test_a_single_video_is_skipped_likewise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (small(tmp_path / "a.mp4"), "--out", tmp_path / "out")
    assert exits(*arguments) == 0
    capsys.readouterr()
    assert exits(*arguments) == 0
    results = tmp_path / "out" / "a"
    assert capsys.readouterr().out == (
        f"{tmp_path / 'a.mp4'}: finished before and unchanged; results in {results} (--again analyses it again)\n"
    )
    assert exits(*arguments, "--again") == 0
    assert "0 events in 5 frames" in capsys.readouterr().out


@pytest.fixture
def ten_videos(tmp_path: Path) -> Path:
    """Ten videos in folders, two of them damaged: one cannot be read, one is cut off."""
    folder = tmp_path / "ten"
    for name in ("a.mp4", "a.avi", "day1/a.mp4", "day1/b.mkv", "day1/late/a.mp4", "day2/a.mp4", "day2/b.mp4", "day3/c.mp4"):
        small(folder / name, 40)
    (folder / "day2" / "bad.mp4").write_bytes(b"not a video" * 100)
    whole = small(folder / "day3" / "cut.mkv", 400).read_bytes()
    (folder / "day3" / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    return folder


def start(*args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "apexstream", "analyze", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_run_that_is_killed_twice_gives_the_same_bytes(
    ten_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = tmp_path / "whole" / "results", tmp_path / "killed" / "results"
    assert exits(ten_videos, "--recursive", "--jobs", 1, "--out", whole) == 1
    assert capsys.readouterr().err.count("apexstream: error:") == 2
    arguments = (ten_videos, "--recursive", "--out", killed, "--jobs", 2)
    for _ in range(2):
        with start(*arguments) as process:
            assert process.stdout is not None
            assert any(line.startswith("[2/") for line in process.stdout)
            process.kill()
        assert len(list(killed.rglob("run.json"))) < 9, "it was killed before its end"
    last = start(*arguments)
    printed, problems_of_last = last.communicate(timeout=120)
    assert (last.returncode, problems_of_last.count("apexstream: error:")) == (1, 2)
    assert "finished before and unchanged: " in printed
    assert contents(killed) == contents(whole)
    assert {"index.html", "summary.csv", "day1/late/a/report.html", "a.avi/events.csv"} <= contents(whole).keys()
    assert len(list(killed.rglob("run.json"))) == 9


def test_folders_below_are_searched_when_asked_for(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits(videos, "--out", tmp_path / "out") == 0
    assert [path.parent.name for path in (tmp_path / "out").rglob("run.json")] == ["a"]
    empty = tmp_path / "none"
    (empty / "below").mkdir(parents=True)
    assert exits(empty, "--out", tmp_path / "out2") == 1
    assert capsys.readouterr().err == (
        f"apexstream: error: there is no video in {empty}; --recursive searches the folders in it\n"
    )
    assert not (tmp_path / "out2").exists()


def test_two_runs_over_one_output_folder_do_not_fight(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    sentence = f"{tmp_path / 'out'} is in use by another apexstream analyze; wait for its end, or choose another folder"
    with folder_lock(tmp_path / "out"):
        for argument in (videos, videos / "a.mp4"):
            assert exits(argument, "--out", tmp_path / "out") == 1
            assert capsys.readouterr().err == f"apexstream: error: {sentence}\n"
    with folder_lock(tmp_path / "out", shared=True):
        assert exits(videos / "a.mp4", "--out", tmp_path / "out") == 0, "other videos at the same time"


def test_several_files_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = [small(tmp_path / name) for name in ("a\n.mp4", "b\n.mp4")]
    assert exits(*videos, "--jobs", 2, "--out", tmp_path / "out") == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert (first, [line[:6] for line in lines]) == ("2 videos found", ["[1/2] ", "[2/2] "]), "each name is in one line"
    assert last.startswith("all videos: ")
    assert {"a\n/summary.json", "b\n/summary.json", "index.html", "summary.csv"} <= contents(tmp_path / "out").keys()


def test_reviewed_results_that_are_kept_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (small(tmp_path / "a.mp4"), "--out", tmp_path / "out")
    assert exits(*arguments) == 0
    assert "note: no face was seen in the video" in capsys.readouterr().out
    (tmp_path / "out" / "a" / "review.sqlite").write_bytes(b"")
    assert exits(*arguments, "--frames") == 0
    assert capsys.readouterr().out == (
        f"{tmp_path / 'a.mp4'}: kept as it was reviewed (frames wanted); --again analyses it again: its reviews stay, but open "
        f"only where the same events are found again; results in {tmp_path / 'out' / 'a'}\n"
    )


@pytest.mark.parametrize(
    ("more", "goes_on"), [((), "the same command goes on from there"), (("--again",), "--again analyses all of them again")]
)
def test_what_was_stopped_says_how_to_go_on(
    more: tuple[str, ...],
    goes_on: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: object, stop: StopRequest, **__: object) -> None:
        stop.set()

    monkeypatch.setattr("apexstream.commands.analysis_run.run_in_processes", stopped)
    assert exits(small(tmp_path / "a.mp4"), "--jobs", 2, "--out", tmp_path / "out", *more) == 1
    assert f"stopped by the user before 1 video could be analysed; {goes_on}\n" in capsys.readouterr().err


def test_a_cluster_is_given_what_is_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing connects where all is finished."""
    given: dict[str, Any] = {}

    @contextmanager
    def connected(address: str) -> Iterator[str]:
        given["address"] = address
        yield "the cluster"

    def run_on_cluster(tasks: Sequence[Task], options: AnalysisOptions, prepare: object, **others: Any) -> None:
        given.update(tasks=[task.name for task in tasks], frames=options.frames, **others)
        others["say"]("a node is gone")
        setup = Setup(partial(analyze_video, options=options), options.wanted(), others["out"])
        run_here(tasks, setup.analyse, setup.wanted, out=setup.out, watcher=others["watcher"], stop=others["stop"])

    monkeypatch.setattr("apexstream.cluster.connection.connected", connected)
    monkeypatch.setattr("apexstream.cluster.archive.run_on_cluster", run_on_cluster)
    arguments = (small(tmp_path / "a.mp4"), "--frames", "--out", tmp_path / "out", "--cluster", "head:1", "--jobs", 5)
    assert exits(*arguments) == 0
    assert (given["address"], given["cluster"], given["jobs"]) == ("head:1", "the cluster", 5)
    assert (given["tasks"], given["frames"]) == (["a"], True)
    assert "a node is gone\n[1/1] " in capsys.readouterr().out
    given.clear()
    assert exits(*arguments) == 0
    assert given == {}


def test_what_was_done_before_a_cluster_was_lost_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_on_cluster(tasks: Sequence[Task], options: AnalysisOptions, prepare: object, **others: Any) -> None:
        others["watcher"].started(tasks[0])
        others["watcher"].ended(Outcome(tasks[0], None, "it is damaged"))
        raise ApexError("the connection to the cluster was lost")

    monkeypatch.setattr("apexstream.cluster.connection.connected", nullcontext)
    monkeypatch.setattr("apexstream.cluster.archive.run_on_cluster", run_on_cluster)
    video = small(tmp_path / "a.mp4")
    assert exits(video, small(tmp_path / "b.mp4"), "--out", tmp_path / "out", "--cluster", "head:1") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"apexstream: error: {video}: it is damaged",
        "apexstream: error: the connection to the cluster was lost",
    ]
    assert "it is damaged" in (tmp_path / "out" / "summary.csv").read_text()


def test_results_in_a_store_are_those_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = tmp_path / "videos"
    small(videos / "s1" / "a.mp4")
    url = f"file://{tmp_path}/store/results"
    for _ in range(2):
        assert exits(videos, "--recursive", "--frames", "--jobs", 1, "--out", url) == 0
    shown = capsys.readouterr().out
    assert f"all videos: {url}/index.html and {url}/summary.csv" in shown
    assert "finished before and unchanged: 1 video" in shown
    assert exits(videos, "--recursive", "--frames", "--jobs", 1, "--out", tmp_path / "results") == 0
    stored, kept = contents(tmp_path / "store" / "results"), contents(tmp_path / "results")
    name = "s1/a/report.html"
    assert b"videos/s1/a.mp4" in kept.pop(name) and b"videos/s1/a.mp4" not in stored.pop(name), (
        "nobody knows where it is opened"
    )
    assert stored == kept and "s1/a/frames.csv" in stored


def test_a_store_that_fails_for_a_while_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = tmp_path / "videos"
    for name in ("a.mp4", "b.mp4"):
        small(videos / name)
    refresh, calls = Store.refresh, list[str]()

    def failing_at_first(self: Store, name: str, folder: Path) -> None:
        calls.append(name)
        if len(calls) == 1:
            raise OutputError("the store is away")
        refresh(self, name, folder)

    monkeypatch.setattr(Store, "refresh", failing_at_first)
    monkeypatch.setattr("apexstream.commands.analysis_run.TABLE_S", 0.0)
    assert exits(videos, "--jobs", 1, "--out", f"file://{tmp_path}/store") == 0
    rows = (tmp_path / "store" / "summary.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1:3] for row in rows] == [["a", "done"], ["b", "done"]]
    assert len(calls) == 3
