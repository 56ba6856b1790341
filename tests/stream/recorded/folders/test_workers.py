from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.errors import OutputError, SourceError
from stream.recorded.analyze import Progress, Report
from stream.recorded.folders.tasks import Task
from stream.recorded.folders.workers import Setup, StopRequest, default_jobs, run_in_processes
from tests.stream.recorded.folders.results import WANTED, a_file
from tests.stream.recorded.folders.test_runs import Notes, a_task

ROOT = Path(__file__).resolve().parents[4]


def analyse(video: Path, folder: Path, /, *, stream: str, progress: Progress | None, stop: threading.Event | None) -> Report:
    """Stands for an analysis in another process; the video's name says what happens."""
    assert progress is not None and stop is not None
    a_file(folder / "summary.json", str(os.getpid()))
    progress(1, 2, 0)
    if video.stem == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if video.stem == "damaged":
        raise SourceError("damaged")
    if video.stem == "full":
        raise OutputError("no space left") from OSError(errno.EDQUOT, "Disk quota exceeded")
    if video.stem == "long":
        assert stop.wait(60)
        return Report(video, folder, (), {}, {}, "stopped by the user")
    return Report(video, folder, (), {"stream": stream}, {}, None)


def run(tmp_path: Path, *names: str, jobs: int = 1, notes: Notes | None = None, stop: StopRequest | None = None) -> Notes:
    notes = notes or Notes()
    tasks = [a_task(tmp_path, name) for name in names]
    setup = Setup(analyse, WANTED, tmp_path / "out")
    run_in_processes(tasks, setup, jobs=jobs, watcher=notes, stop=stop or StopRequest())
    return notes


@pytest.mark.parametrize(("cores", "jobs"), [(1, 1), (2, 2), (4, 3), (8, 6)])
def test_videos_at_once_keep_the_cores_busy(cores: int, jobs: int) -> None:
    assert default_jobs(cores) == jobs


def test_a_process_that_dies_fails_its_task_alone(tmp_path: Path) -> None:
    notes = run(tmp_path, "a", "crash", "damaged", "b")
    assert [(outcome.task.name, outcome.problem) for outcome in notes.outcomes] == [
        ("a", None),
        ("crash", "the process that analysed it ended by signal SIGSEGV"),
        ("damaged", "damaged"),
        ("b", None),
    ]
    assert ("1 of 2", "a") in notes.notes
    report = notes.outcomes[0].report
    assert report is not None and report.summary == {"stream": "a"}


def test_several_at_once_by_several_processes(tmp_path: Path) -> None:
    stop = StopRequest()

    class StopOnce(Notes):
        """Asks for the end as soon as two tasks are under way, of which each waits for the request."""

        def progressed(self, task: Task, done: int, expected: int | None, events: int) -> None:
            super().progressed(task, done, expected, events)
            if len(self.notes) == 4:
                stop.set()

    notes = run(tmp_path, "s1/long", "s2/long", "c", jobs=2, notes=StopOnce(), stop=stop)
    assert [(outcome.problem, outcome.stopped) for outcome in notes.outcomes] == [("stopped by the user", True)] * 2
    assert len({(tmp_path / "out" / name / "summary.json").read_text() for name in ("s1/long", "s2/long")}) == 2


def test_a_request_that_came_before_the_start_is_heeded(tmp_path: Path) -> None:
    stop = StopRequest()
    stop.set()
    stop.set()
    assert [outcome.stopped for outcome in run(tmp_path, "long", "b", stop=stop).outcomes] == [True]


def test_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    assert [outcome.disk_full for outcome in run(tmp_path, "full", "b").outcomes] == [True]


def test_an_error_of_the_watcher_ends_the_processes(tmp_path: Path) -> None:
    class Broken(Notes):
        def progressed(self, task: Task, done: int, expected: int | None, events: int) -> None:
            raise RuntimeError("the terminal is gone")

    with pytest.raises(RuntimeError, match="the terminal is gone"):
        run(tmp_path, "long", notes=Broken())
    worker = int((tmp_path / "out" / "long" / "summary.json").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


SCRIPT = """
import signal, sys
from pathlib import Path
from stream.recorded.folders.workers import StopRequest
from tests.stream.recorded.folders.test_runs import Notes
from tests.stream.recorded.folders.test_workers import run

class Told(Notes):
    def progressed(self, *args):
        print((Path(sys.argv[1]) / "out" / "long" / "summary.json").read_text(), flush=True)

if __name__ == "__main__":
    stop = StopRequest()
    signal.signal(signal.SIGINT, lambda *args: stop.set())
    notes = run(Path(sys.argv[1]), "long", "b", notes=Told(), stop=stop)
    print([outcome.problem for outcome in notes.outcomes])
"""


@contextmanager
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program that waits for a process of its own, which has a task; with its identifier."""
    script = a_file(folder / "script.py", SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools")])}
    command = [sys.executable, str(script), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as program:
        assert program.stdout is not None
        yield program, int(program.stdout.readline())


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """However that ends: a pipe that all of them can write to has an end only when all are gone."""
    with started(tmp_path) as (program, worker):
        program.kill()
        assert worker != program.pid
        assert program.communicate(timeout=60)[0] == ""


def test_ctrl_c_reaches_all_processes_and_ends_them_in_order(tmp_path: Path) -> None:
    """A terminal sends the signal to each of them."""
    with started(tmp_path) as (program, _):
        os.killpg(program.pid, signal.SIGINT)
        assert program.communicate(timeout=60)[0] == "['stopped by the user']\n"
