from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OutputError, SourceError
from stream.files import folder_lock
from stream.recorded.analyze import Progress, Report
from stream.recorded.folders import runs
from stream.recorded.folders.outcome import Outcome
from stream.recorded.folders.records import REVIEW, Wanted, read_record, write_record
from stream.recorded.folders.runs import make_plan, run_here, run_task
from stream.recorded.folders.tasks import Task
from tests.stream.recorded.folders.results import WANTED, a_file, finished_results, unfinished_results


class Analysis:
    """Stands for the analysis of a video: writes a summary and events, then does what the test asks for."""

    def __init__(self, then: Callable[[Path, Path], str | None] = lambda video, folder: None) -> None:
        self._then = then

    def __call__(
        self, video: Path, folder: Path, /, *, stream: str, progress: Progress | None, stop: threading.Event | None
    ) -> Report:
        unfinished_results(folder, video)
        if progress is not None:
            progress(1, 2, 0)
        problem = self._then(video, folder)
        a_file(folder / "summary.json", json.dumps({"file": str(video.resolve()), "complete": problem is None}))
        return Report(video, folder, (), {"stream": stream}, {"wall_s": 1.0}, problem)


class Notes:
    """A watcher that notes the progress that it receives."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []
        self.outcomes: list[Outcome] = []

    def started(self, task: Task) -> None:
        self.notes.append(("started", task.name))

    def progressed(self, task: Task, done: int, expected: int | None, events: int) -> None:
        self.notes.append((f"{done} of {expected}", task.name))

    def ended(self, outcome: Outcome) -> None:
        self.notes.append((outcome.problem or "done", outcome.task.name))
        self.outcomes.append(outcome)


def a_task(tmp_path: Path, name: str = "s1/a") -> Task:
    video = a_file(tmp_path / "videos" / f"{name}.mp4")
    return Task(video, name, tmp_path / "out" / name, 7)


def run(task: Task, tmp_path: Path, analyse: runs.Analyse, wanted: Wanted = WANTED, **given: Any) -> Outcome:
    return run_task(task, analyse, wanted, out=tmp_path / "out", **given)


def refused(sentence: str) -> Callable[..., Report]:
    def analyse(*args: object, **kwargs: object) -> Report:
        raise SourceError(sentence)

    return analyse


def test_a_task_that_was_done_is_not_planned_again(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    assert make_plan([task], WANTED).todo == [task]
    outcome = run(task, tmp_path, Analysis())
    assert outcome.problem is None and outcome.report is not None and outcome.report.summary["stream"] == "s1/a"
    assert [done.task for done in make_plan([task], WANTED).finished] == [task]
    assert make_plan([task], WANTED, again=True).todo[0].reason == "asked for"
    record = read_record(task.folder)
    assert record is not None and (record.files, record.timing) == (("events.jsonl", "summary.json"), {"wall_s": 1.0})


def test_what_was_kept_for_a_person_is_no_result(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    kept = task.folder / "edited-events.eaf"
    run(task, tmp_path, Analysis(lambda video, folder: a_file(folder / kept.name, "hours") and None))
    record = read_record(task.folder)
    assert record is not None and record.files == ("events.jsonl", "summary.json")
    run(task, tmp_path, Analysis())
    assert kept.read_text() == "hours"


@pytest.mark.parametrize("name", ["notes.txt", "reviewed-anna.eaf", "events.eaf.001", "frames.csv.bak"])
def test_what_a_person_puts_there_during_a_run_stays(name: str, tmp_path: Path) -> None:
    task = a_task(tmp_path)
    run(task, tmp_path, Analysis(lambda video, folder: a_file(folder / name, "hours") and None))
    run(task, tmp_path, Analysis())
    assert (task.folder / name).read_text() == "hours"


def test_work_on_a_file_is_kept_though_a_copy_lost_its_times(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    analysis = Analysis(lambda video, folder: a_file(folder / "events.eaf", "as found") and None)
    for _ in range(2):
        run(task, tmp_path, analysis)
        assert not list(task.folder.glob("edited-*"))
    a_file(task.folder / "events.eaf", "hours")
    os.utime(task.folder / "events.eaf", ns=(1, 1))
    run(task, tmp_path, analysis)
    assert (task.folder / "edited-events.eaf").read_text() == "hours"
    assert (task.folder / "events.eaf").read_text() == "as found"


def test_a_record_that_was_changed_removes_nothing_elsewhere(tmp_path: Path) -> None:
    task, own = a_task(tmp_path), a_file(tmp_path / "out" / "own.txt")
    run(task, tmp_path, Analysis())
    record = read_record(task.folder)
    assert record is not None
    write_record(task.folder, replace(record, files=("../../own.txt", "notes.txt", "events.jsonl")))
    a_file(task.folder / "notes.txt")
    run(task, tmp_path, Analysis())
    assert own.exists() and (task.folder / "notes.txt").exists()


def test_results_that_another_video_got_meanwhile_stay(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    finished_results(task.folder, a_file(tmp_path / "others" / "a.mp4", "another video"))
    outcome = run(task, tmp_path, Analysis())
    assert outcome.report is None and "has the results of another video" in (outcome.problem or "")
    assert json.loads((task.folder / "summary.json").read_text())["complete"] is False
    record = read_record(task.folder)
    assert record is not None and record.finished


def test_a_damaged_video_is_done_with_its_problem(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    assert run(task, tmp_path, Analysis(lambda video, folder: "cut off")).problem == "cut off"
    planned = make_plan([task], WANTED)
    assert (planned.todo, planned.finished[0].problem) == ([], "cut off")


def test_what_was_stopped_is_to_be_done(tmp_path: Path) -> None:
    task, stop = a_task(tmp_path), threading.Event()

    def stopped(video: Path, folder: Path) -> str:
        stop.set()
        return "stopped by the user"

    assert run(task, tmp_path, Analysis(stopped), stop=stop).stopped
    assert make_plan([task], WANTED).todo[0].reason == "not finished before"


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def fails(video: Path, folder: Path) -> str | None:
    a_file(folder / "events.eaf", "half of it")
    raise SourceError("the drive is gone")


def interrupted(video: Path, folder: Path) -> str | None:
    raise KeyboardInterrupt


def killed(task: Task, tmp_path: Path, at: Callable[[Path, Path], object] = lambda video, folder: None) -> None:
    """Run the task in a process that is killed once its first results are there."""

    def then(video: Path, folder: Path) -> None:
        at(video, folder)
        os._exit(9)

    child = os.fork()
    if child == 0:
        run(task, tmp_path, Analysis(then))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_run_that_fails_leaves_the_results_of_the_run_before(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    finished_results(task.folder, task.video)
    before = content(task.folder)
    assert run(task, tmp_path, Analysis(fails)).problem == "the drive is gone"
    assert content(task.folder) == before
    with pytest.raises(KeyboardInterrupt):
        run(task, tmp_path, Analysis(interrupted))
    assert content(task.folder) == before
    assert make_plan([task], WANTED).todo == []


def test_a_run_that_is_stopped_leaves_the_results_of_the_run_before(tmp_path: Path) -> None:
    task, stop = a_task(tmp_path), threading.Event()
    finished_results(task.folder, task.video)
    before = content(task.folder)

    def stopped(video: Path, folder: Path) -> str:
        stop.set()
        return f"{video}: stopped by the user; 0 events kept in {folder}"

    outcome = run(task, tmp_path, Analysis(stopped), stop=stop)
    assert (outcome.stopped, outcome.report) == (True, None)
    assert outcome.problem == f"{task.video}: stopped by the user; the results of the earlier run stay in {task.folder}"
    assert content(task.folder) == before


def test_what_a_killed_run_set_aside_is_there_for_the_next_one(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    finished_results(task.folder, task.video)
    before = content(task.folder)
    killed(task, tmp_path)
    assert content(task.folder).keys() > {".earlier-events.jsonl", ".earlier-run.json", ".earlier-summary.json"}
    assert make_plan([task], WANTED).todo == []
    assert content(task.folder) == before
    killed(task, tmp_path)
    assert run(task, tmp_path, Analysis(fails)).problem == "the drive is gone"
    assert content(task.folder) == before


def test_reviewed_results_are_there_after_a_run_that_was_killed(tmp_path: Path) -> None:
    task, changed = a_task(tmp_path), Wanted({**WANTED.deciding, "version": "2"})
    a_file(finished_results(task.folder, task.video) / REVIEW)
    before = content(task.folder)
    killed(task, tmp_path)
    assert make_plan([task], changed).finished[0].kept == "changed: version was 1 and is 2"
    assert content(task.folder) == before


def test_a_failure_is_reported_though_the_drive_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = a_task(tmp_path)
    finished_results(task.folder, task.video)
    before = content(task.folder)

    def full(video: Path, folder: Path) -> None:
        raise OutputError("cannot be written") from OSError(errno.ENOSPC, "no space left")

    def gone(folder: Path) -> None:
        raise OutputError("the drive is gone")

    with monkeypatch.context() as patched:
        patched.setattr(runs, "bring_back", gone)
        outcome = run(task, tmp_path, Analysis(full))
    assert (outcome.problem, outcome.disk_full) == ("cannot be written", True)
    assert make_plan([task], WANTED).todo == [] and content(task.folder) == before


def test_what_a_killed_run_set_aside_goes_when_the_next_one_is_done(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    finished_results(task.folder, task.video)
    for _ in range(2):
        killed(task, tmp_path)
    assert run(task, tmp_path, Analysis()).problem is None
    assert sorted(content(task.folder)) == ["events.jsonl", "run.json", "summary.json"]


def test_a_folder_stays_its_videos_own_when_a_kill_left_only_what_was_set_aside(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    finished_results(task.folder, task.video)
    before = content(task.folder)
    killed(task, tmp_path, lambda video, folder: [(folder / name).unlink() for name in ("events.jsonl", "summary.json")])
    other = replace(task, video=a_file(tmp_path / "others" / "a.mp4", "another video"))
    assert "has the results of another video" in (run(other, tmp_path, Analysis()).problem or "")
    run(task, tmp_path, Analysis(fails))
    assert content(task.folder) == before


def test_results_of_other_options_go_away_and_own_files_stay(tmp_path: Path) -> None:
    task = a_task(tmp_path)

    def with_pictures(video: Path, folder: Path) -> None:
        a_file(folder / "event-01.jpg")
        a_file(folder / "events.eaf")

    run(task, tmp_path, Analysis(with_pictures))
    for own in ("notes.txt", REVIEW, "summary (copy).json"):
        a_file(task.folder / own)
    a_file(task.folder / "report.html", "of a run that was killed")
    run(task, tmp_path, Analysis())
    assert sorted(path.name for path in task.folder.iterdir()) == [
        *("events.jsonl", "notes.txt", REVIEW, "run.json", "summary (copy).json", "summary.json")
    ]


def test_reviewed_results_are_kept_until_asked_for(tmp_path: Path) -> None:
    task, changed = a_task(tmp_path), Wanted({**WANTED.deciding, "version": "2"})
    a_file(finished_results(task.folder, task.video) / REVIEW)
    kept = make_plan([task], changed)
    assert (kept.todo, kept.finished[0].kept) == ([], "changed: version was 1 and is 2")
    assert make_plan([task], changed, again=True).todo


def test_reviewed_results_are_kept_though_they_are_not_finished(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    a_file(unfinished_results(task.folder, task.video) / REVIEW)
    kept = make_plan([task], WANTED)
    assert (kept.todo, kept.finished[0].kept) == ([], "not finished before")


@pytest.mark.parametrize("sentence", ["no video"])
def test_a_video_that_cannot_be_read_leaves_nothing(sentence: str, tmp_path: Path) -> None:
    outcome = run(a_task(tmp_path), tmp_path, refused(sentence))
    assert (outcome.report, outcome.problem, outcome.defect) == (None, sentence, False)
    assert not (tmp_path / "out").exists()
    assert "SourceError" in outcome.trace


def test_a_video_that_changes_meanwhile_is_analysed_another_time(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    run(task, tmp_path, Analysis(lambda video, folder: a_file(video, "longer than before") and None))
    assert make_plan([task], WANTED).todo[0].reason == "the video has changed"


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    task.folder.mkdir(parents=True)
    with folder_lock(task.folder):
        outcome = run(task, tmp_path, Analysis())
    sentence = "is in use by another analysis or a review; wait for its end, or choose another folder"
    assert outcome.problem == f"{task.folder} {sentence}"
    assert run(task, tmp_path, Analysis()).problem is None


def test_tasks_are_done_in_order_and_a_failure_stops_none(tmp_path: Path) -> None:
    tasks = [a_task(tmp_path, name) for name in ("a", "b", "c")]

    def fails_once(video: Path, folder: Path) -> str | None:
        if video.stem == "b":
            raise SourceError("b is damaged")
        return None

    notes = Notes()
    run_here(tasks, Analysis(fails_once), WANTED, out=tmp_path / "out", watcher=notes, stop=threading.Event())
    assert notes.notes == [
        *(("started", "a"), ("1 of 2", "a"), ("done", "a")),
        *(("started", "b"), ("1 of 2", "b"), ("b is damaged", "b")),
        *(("started", "c"), ("1 of 2", "c"), ("done", "c")),
    ]


def test_no_task_starts_after_a_stop(tmp_path: Path) -> None:
    notes, stop = Notes(), threading.Event()
    analysis = Analysis(lambda video, folder: stop.set())
    tasks = [a_task(tmp_path, name) for name in ("a", "b")]
    run_here(tasks, analysis, WANTED, out=tmp_path / "out", watcher=notes, stop=stop)
    assert [outcome.task.name for outcome in notes.outcomes] == ["a"]
