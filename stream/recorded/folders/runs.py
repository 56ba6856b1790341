"""What is to be done, and doing one task of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.errors import OutputError
from stream.events.formats import FORMATS, file_name
from stream.files import folder_lock, remove_leftovers, write_errors
from stream.recorded.files import keep_edited, keep_newer
from stream.recorded.folders.earlier import bring_back, is_set_aside, remove_earlier, set_aside, settle, settle_if_idle
from stream.recorded.folders.outcome import Outcome, failed
from stream.recorded.folders.records import (
    OPTIONAL,
    PART,
    REVIEW,
    Record,
    VideoState,
    Wanted,
    belongs,
    digest_of,
    is_result,
    read_record,
    state_of,
    why_analyse,
    write_record,
)
from stream.recorded.folders.tasks import Task

if TYPE_CHECKING:
    from stream.recorded.analyze import Progress, Report
    from stream.recorded.folders.store import Store


class Analyse(Protocol):
    """Analyses one video into a folder, as `stream.recorded.analyze.analyze` does."""

    def __call__(
        self, video: Path, folder: Path, /, *, stream: str, progress: Progress | None, stop: threading.Event | None
    ) -> Report:
        """Raises ApexError where there are no results."""


@dataclass(frozen=True)
class Finished:
    """A task whose results of an earlier run stay. problem is that of a damaged video; kept says why results stay that would
    have to be replaced."""

    task: Task
    problem: str | None
    kept: str = ""


@dataclass(frozen=True)
class Plan:
    """The tasks that are to be done, and those that are finished."""

    todo: list[Task] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)


class Watcher(Protocol):
    """Receives the progress of a run; always on the thread that started it."""

    def started(self, task: Task) -> None:
        """The video is being analysed from now on."""

    def progressed(self, task: Task, done: int, expected: int | None, events: int) -> None:
        """So many frames of it are done, of so many expected (None where the file does not say), with so many events."""

    def ended(self, outcome: Outcome) -> None:
        """The video is done, or has failed."""


def make_plan(tasks: Iterable[Task], wanted: Wanted, *, again: bool = False) -> Plan:
    """What is to be done: everything that is not finished, or has changed since. again: everything.

    Results that people have reviewed stay until again is asked for, as the reviews are about these events.
    """
    made = Plan()
    for task in tasks:
        settle_if_idle(task.folder)
        why = "asked for" if again and read_record(task.folder) else why_analyse(task.folder, task.video, wanted)
        record = read_record(task.folder)
        if why and not again and (task.folder / REVIEW).exists():
            made.finished.append(Finished(task, None if record is None else record.problem, why))
        elif why is None and record is not None:
            made.finished.append(Finished(task, record.problem))
        else:
            made.todo.append(replace(task, reason=why or ""))
    return made


def run_here(
    tasks: Iterable[Task], analyse: Analyse, wanted: Wanted, *, out: Path, watcher: Watcher, stop: threading.Event
) -> None:
    """Do the tasks one after the other on this thread, until stop is set."""
    for task in tasks:
        if stop.is_set():
            return
        watcher.started(task)
        watcher.ended(run_task(task, analyse, wanted, out=out, progress=partial(watcher.progressed, task), stop=stop))


def run_task(
    task: Task,
    analyse: Analyse,
    wanted: Wanted,
    *,
    out: Path,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    lock_wait_s: float = 0.0,
    store: Store | None = None,
) -> Outcome:
    """Analyse one video and record that it is finished; whatever fails is in the outcome, in a sentence.

    lock_wait_s is how long another process may still use the folder of its results, seconds. With a store, results go to its
    folder of the task's name.
    """
    try:
        if store is not None:
            return store.run(task, lambda local, top: run_task(local, analyse, wanted, out=top, progress=progress, stop=stop))
        with _results_folder(task, out, lock_wait_s):
            return _run(task, analyse, wanted, progress, stop or threading.Event())
    except Exception as error:  # noqa: BLE001 - reported to the user; other tasks go on
        return failed(task, error)


def _run(task: Task, analyse: Analyse, wanted: Wanted, progress: Progress | None, stop: threading.Event) -> Outcome:
    if belongs(task.folder, task.video) is False:  # of a run that was done since the tasks were made
        raise OutputError(f"{task.folder} has the results of another video by now; the same command finds another folder")
    remove_leftovers(task.folder)
    settle(task.folder)
    facts, old = _facts(task.video), read_record(task.folder)
    _keep_edited(task.folder, old)
    left = (path.name for name in OPTIONAL for path in task.folder.glob(name))
    stale = {*(filter(is_result, old.files) if old else ()), *left}
    if old is not None and old.finished:
        set_aside(task.folder, stale)
    before = _files(task.folder)
    try:
        report = analyse(task.video, task.folder, stream=task.name, progress=progress, stop=stop)
    except BaseException:
        with suppress(OutputError):  # the failure itself is raised; the next run brings the earlier results back
            _give_up(task.folder, before)
        raise
    if stop.is_set() and report.problem is not None:
        if not _give_up(task.folder, before):
            return Outcome(task, report, report.problem, stopped=True)
        problem = f"{task.video}: stopped by the user; the results of the earlier run stay in {task.folder}"
        return Outcome(task, None, problem, stopped=True)
    state = _unchanged_state(task.video, facts)
    written = _written_since(task.folder, before)
    for name in stale - written:
        with write_errors(task.folder / name):
            (task.folder / name).unlink(missing_ok=True)
    files, extras = tuple(sorted(written)), tuple(sorted(wanted.extras))
    digests = _digests(task.folder, files)
    record = Record(True, files, state, wanted.deciding, extras, report.problem, report.timing, digests)
    write_record(task.folder, record)
    with suppress(OutputError):  # the results are there
        remove_earlier(task.folder)
    for part in task.folder.glob(f"{PART}*"):
        with suppress(OSError):
            part.unlink()
    return Outcome(task, report, report.problem)


def _give_up(folder: Path, before: Mapping[str, object]) -> bool:
    """Put the finished results of an earlier run in place of what was written since; False where there are none."""
    if not is_set_aside(folder):
        return False
    with write_errors(folder):
        for name in _written_since(folder, before):
            (folder / name).unlink(missing_ok=True)
    bring_back(folder)
    return True


def _written_since(folder: Path, before: Mapping[str, object]) -> set[str]:
    return {name for name, state in _files(folder).items() if before.get(name) != state}


def _digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """What tells whether somebody has changed the files of events."""
    of_events = {file_name(name) for name in FORMATS}
    with write_errors(folder):
        return {name: digest_of(folder / name) for name in names if name in of_events}


def _keep_edited(folder: Path, old: Record | None) -> None:
    """Keep the files of events that were changed since the last run, also where a copy of the folder has new times, and those
    of a person's own that are newer."""
    known = {} if old is None else old.digests
    with write_errors(folder):
        for name in filter(is_result, known):
            path = folder / name
            if path.is_file() and digest_of(path) != known[name]:
                keep_edited(path)
        keep_newer(folder)


@contextmanager
def _results_folder(task: Task, out: Path, lock_wait_s: float) -> Iterator[None]:
    """The folder exists and is locked; where nothing was written it is removed again, up to and with out."""
    made = next((path for path in reversed([task.folder, *task.folder.parents]) if not path.exists()), None)
    with ExitStack() as opened:
        with write_errors(task.folder):
            task.folder.mkdir(parents=True, exist_ok=True)
        if made is not None:
            opened.callback(_remove_empty, task.folder, made)
        try:
            opened.enter_context(folder_lock(task.folder, wait_s=lock_wait_s))
        except BlockingIOError:
            sentence = f"{task.folder} is in use by another analysis or a review; wait for its end, or choose another folder"
            raise OutputError(sentence) from None
        yield


def _remove_empty(folder: Path, last: Path) -> None:
    with suppress(OSError):  # not empty
        while True:
            folder.rmdir()
            if folder == last:
                return
            folder = folder.parent


def _files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What changes with a file's content, of each result in a folder."""
    found = {}
    for path in folder.iterdir():
        if is_result(path.name) and path.is_file():
            facts = path.stat()
            found[path.name] = facts.st_ino, facts.st_mtime_ns, facts.st_size
    return found


def _facts(video: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        facts = video.stat()
        return facts.st_size, facts.st_mtime_ns
    return None


def _unchanged_state(video: Path, facts: tuple[int, int] | None) -> VideoState | None:
    """The state of a video that has been analysed; None where it changed meanwhile, so that it is analysed another time."""
    with suppress(OSError):
        state = state_of(video)
        if state is not None and (state.size, state.mtime_ns) == facts == _facts(video):
            return state
    return None
