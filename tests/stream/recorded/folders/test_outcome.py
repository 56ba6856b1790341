from __future__ import annotations

import errno
from pathlib import Path

from engine.errors import OutputError
from stream.recorded.folders.outcome import earlier_outcome
from tests.stream.recorded.folders.results import a_file
from tests.stream.recorded.folders.test_runs import Analysis, a_task, run


def test_what_came_of_a_task_is_read_back(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    assert earlier_outcome(task) is None
    run(task, tmp_path, Analysis(lambda video, folder: a_file(folder / "events.jsonl", "") and "cut off"))
    found = earlier_outcome(task)
    assert found is not None and found.report is not None
    assert (found.problem, found.report.timing, found.report.events) == ("cut off", {"wall_s": 1.0}, ())
    a_file(task.folder / "events.jsonl", "damaged\n")
    assert earlier_outcome(task) is None


def test_a_defect_is_a_sentence(tmp_path: Path) -> None:
    def broken(video: Path, folder: Path) -> None:
        raise RuntimeError("the graph is gone")

    outcome = run(a_task(tmp_path), tmp_path, Analysis(broken))
    assert outcome.defect and outcome.problem == "unexpected error (RuntimeError: the graph is gone)"


def test_a_full_disk_is_known_from_other_failures(tmp_path: Path) -> None:
    def full(video: Path, folder: Path) -> None:
        raise OutputError("cannot be written") from OSError(errno.ENOSPC, "no space left")

    def denied(video: Path, folder: Path) -> None:
        raise OutputError("cannot be written") from OSError(errno.EACCES, "permission denied")

    outcomes = [run(a_task(tmp_path), tmp_path, Analysis(then)) for then in (full, denied)]
    assert [(outcome.problem, outcome.disk_full) for outcome in outcomes] == [
        ("cannot be written", True),
        ("cannot be written", False),
    ]
