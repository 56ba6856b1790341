"""Videos analysed by workers on a cluster; videos and results are in folders that all nodes share."""

from __future__ import annotations

import os
import pickle
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apexstream.cluster.parts import PartFiles, watched
from engine.errors import ApexError, InputError, OutputError, SourceError

if TYPE_CHECKING:
    from apexstream.cluster.connection import Cluster
    from apexstream.cluster.dispatch import Dispatch, Happening
    from apexstream.cluster.ray_process import Node, Share
    from apexstream.video_analysis import AnalysisOptions
    from stream.recorded.folders.outcome import Outcome
    from stream.recorded.folders.runs import Analyse, Watcher
    from stream.recorded.folders.store import Store
    from stream.recorded.folders.tasks import Task
    from stream.recorded.folders.workers import StopRequest
    from stream.recorded.parts.plan import Part
    from stream.recorded.passage import Step

MEMORY_BYTES = 1_000_000_000
"""What a worker is given of a node's memory."""
LOCK_WAIT_S = 60.0
"""How long a worker waits for a folder of results: the worker of a node that was lost may live a little longer."""
SHARED = "what is read and written must be in folders that all nodes share, under the same paths"
PROGRESS = 1000
"""Of a video in parts, all of its progress."""
JOINING = 0.1
"""Joining the parts is so much of it."""
MARK = ".cluster-"
"""How the name of the file begins by which workers know the output folder."""


@dataclass(frozen=True)
class Place:
    """What each node must have: the folder in which the command was called, a video and a file in the output folder by their
    paths, or the store of results."""

    folder: Path
    video: Path
    mark: Path | None
    store: Store | None = None


@dataclass(frozen=True)
class Item:
    """Work on a task: all of it, where that is a long video finding its parts; else one of the parts, by its number, or, where
    part is None, joining them. before says when the results that it had before were made."""

    task: Task
    before: Mapping[str, Any] | None
    parts: tuple[Part, ...] = ()
    part: int | None = None


@dataclass(frozen=True)
class Cut:
    """The task is a long video, to be done in these parts."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class PartDone:
    """What is found in a part waits in its file."""


class _StoppedError(Exception):
    """The user ended the run within a part."""


class ArchiveWorker:
    """In a process on a node: analyses videos, one at a time. Raises InputError where the node has not what it needs."""

    def __init__(self, needs: bytes, deciding: Mapping[str, Any], out: Path, place: Place) -> None:
        from stream.process import load_less

        load_less()  # before the options are unpacked, which loads numba
        _check_place(place)
        options, prepare = pickle.loads(needs)
        self._options: AnalysisOptions = options
        self._out, self._store = out, place.store
        self._wanted = self._options.wanted()
        check_same(deciding, self._wanted.deciding)
        prepare()
        self._stop = threading.Event()
        self._progress: tuple[int, int | None, int] | None = None

    def do(self, item: Item, again: bool) -> Outcome | Cut | PartDone:
        """Do a piece of work, unless another worker did before it was lost."""
        from apexstream.video_analysis import analyze_video

        self._progress = None
        if item.part is not None:
            return self._do_part(item, item.part)
        if again and (earlier := self._earlier(item)) is not None:
            return earlier
        analyse = partial(analyze_video, options=self._options)
        if item.parts:
            with PartFiles(item.task, item.parts, self._wanted, self._store).joined() as steps:
                outcome = self._run(item.task, partial(analyse, steps=steps))
            return replace(outcome, stopped=outcome.problem is not None and self._stop.is_set())
        parts = self._parts(item.task)
        return Cut(parts) if len(parts) > 1 else self._run(item.task, analyse)

    def _run(self, task: Task, analyse: Analyse) -> Outcome:
        from stream.recorded.folders.runs import run_task

        return run_task(
            task,
            analyse,
            self._wanted,
            out=self._out,
            progress=self._note,
            stop=self._stop,
            lock_wait_s=LOCK_WAIT_S,
            store=self._store,
        )

    def _parts(self, task: Task) -> tuple[Part, ...]:
        """The parts of a video; none where it cannot be read, which the analysis will say."""
        from stream.recorded.parts.plan import plan_parts

        try:
            return plan_parts(task.video, self._options.settings.part_s)
        except ApexError:
            return ()

    def _do_part(self, item: Item, number: int) -> Outcome | PartDone:
        """Find what there is in a part and have it wait in its file."""
        from apexstream.video_analysis import analyzed_part
        from stream.recorded.folders.outcome import Outcome, failed

        task, part = item.task, item.parts[number]
        files = PartFiles(task, item.parts, self._wanted, self._store)
        try:
            if not files.exists(number):
                with analyzed_part(task.video, part, self._options, stream=task.name, stop=self._stop) as steps:
                    files.write(number, _to_the_end(watched(steps, part, self._note)))
            return PartDone()
        except _StoppedError:
            return Outcome(task, None, "stopped", stopped=True)
        except Exception as error:  # noqa: BLE001 - reported to the user; other videos go on
            return failed(task, error)

    def progress(self) -> tuple[int, int | None, int] | None:
        """Frames that are done, frames expected, events."""
        return self._progress

    def stop(self) -> None:
        """End the analysis in order."""
        self._stop.set()

    def _earlier(self, item: Item) -> Outcome | None:
        """What came of the task by a worker that was lost; None where it was not done."""
        from stream.recorded.folders.outcome import earlier_outcome

        try:
            with nullcontext(item.task) if self._store is None else self._store.results(item.task) as task:
                earlier = earlier_outcome(task)
        except OutputError:  # a store that cannot be read now; if that lasts, the analysis says so
            return None
        made = None if earlier is None or earlier.report is None else earlier.report.timing
        if made == item.before:
            return None
        PartFiles(item.task, item.parts, self._wanted, self._store).remove()
        return earlier

    def _note(self, done: int, expected: int | None, events: int) -> None:
        self._progress = done, expected, events


def _to_the_end(steps: Iterator[Step]) -> Iterator[Step]:
    """The steps of a part; raises _StoppedError or SourceError in place of an ending that is not the part's."""
    from stream.recorded.passage import Ending

    for step in steps:
        if isinstance(step, Ending) and step.stopped:
            raise _StoppedError
        if isinstance(step, Ending) and step.failure is not None:
            raise SourceError(step.failure)
        yield step


def _check_place(place: Place) -> None:
    enter(place.folder)
    if place.store is not None:
        place.store.check()
    for path in (place.mark, place.video):
        if path is not None and not path.exists():
            raise InputError(f"{socket.gethostname()} does not see {path.absolute().parent} as it is here; {SHARED}")
    if place.mark is not None:
        out = place.mark.absolute().parent
        try:
            tempfile.TemporaryFile(dir=out).close()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"{socket.gethostname()} cannot write into {out} ({reason}); {SHARED}") from error


def enter(folder: Path) -> None:
    """Work in the folder in which the command was called. Raises InputError where this node does not have it."""
    try:
        os.chdir(folder)
    except OSError:
        raise InputError(f"{socket.gethostname()} has no folder {folder}; {SHARED}") from None


def check_same(wanted: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise InputError where something that decides results is not the same on this node."""
    from stream.recorded.folders.records import changes

    different = next(changes(wanted, here), None)
    if different is not None:
        raise InputError(f"another version is installed there ({different}); all nodes need the same")


def run_on_cluster(
    tasks: Sequence[Task],
    options: AnalysisOptions,
    prepare: Callable[[], object],
    *,
    out: Path,
    store: Store | None,
    cluster: Cluster,
    jobs: int | None,
    watcher: Watcher,
    stop: StopRequest,
    say: Callable[[str], None],
) -> None:
    """Do the tasks, started in their order, on all nodes, so many at once in all (None: as many as their cores allow), until
    stop is set or the disk is full. Each worker calls prepare first; say takes sentences on the cluster.

    Raises ApexError where the connection is lost or no node can take part, OutputError where nothing can be written.
    """
    from apexstream.cluster.dispatch import Dispatch
    from stream.recorded.folders.records import read_record

    if not tasks:
        return
    with nullcontext() if store is not None else _mark(out) as mark:
        place = Place(Path.cwd(), tasks[0].video, mark, store)
        wanted = options.wanted()
        factory = partial(ArchiveWorker, pickle.dumps((options, prepare)), wanted.deciding, out, place)
        records = [read_record(task.folder) for task in tasks]
        items = [Item(task, None if record is None else record.timing) for task, record in zip(tasks, records, strict=True)]
        dispatch = Dispatch(cluster, items, factory, video_shares, most=jobs, stop=stop)
        archive = _Archive(items, dispatch, watcher, say)
        for happening in dispatch.run():
            archive.take(happening)


class _Archive:
    """The videos of a run: which items of work they are, and what came of them."""

    def __init__(self, items: Sequence[Item], dispatch: Dispatch, watcher: Watcher, say: Callable[[str], None]) -> None:
        self._items, self._dispatch, self._watcher, self._say = list(items), dispatch, watcher, say
        self._shares: dict[Task, dict[int, float]] = {}  # of videos in parts: how far each of their items is, 0 to 1
        self._left: dict[Task, set[int]] = {}  # and those that are not done
        self._ended: set[Task] = set()

    def take(self, happening: Happening) -> None:
        """Pass on what happened to the watcher; give further work to the cluster."""
        from apexstream.cluster.dispatch import Done, Failed, Note, Progressed, Started
        from apexstream.cluster.ray_process import Raised
        from stream.recorded.folders.outcome import Outcome

        if isinstance(happening, Note):
            self._say(happening.sentence)
            return
        number = happening.item
        item, task = self._items[number], self._items[number].task
        if task in self._ended:  # parts of a video that failed
            return
        if isinstance(happening, Started) and not item.parts:
            self._watcher.started(task)
        elif isinstance(happening, Progressed):
            self._progressed(number, *happening.value)
        elif isinstance(happening, Failed):
            self._end(Outcome(task, None, happening.sentence))
        elif isinstance(happening, Done):
            if isinstance(happening.result, Raised):
                raise happening.result.error
            self._done(number, happening.result.value)

    def _done(self, number: int, value: Outcome | Cut | PartDone) -> None:
        item = self._items[number]
        if isinstance(value, Cut):
            numbers = self._add(*(replace(item, parts=value.parts, part=part) for part in range(len(value.parts))))
            self._shares[item.task], self._left[item.task] = dict.fromkeys(numbers, 0.0), set(numbers)
        elif isinstance(value, PartDone):
            self._progressed(number, 1, 1, 0)
            self._left[item.task].discard(number)
            if not self._left[item.task]:
                self._add(replace(item, part=None))
        else:
            self._end(replace(value, task=item.task))

    def _add(self, *items: Item) -> range:
        self._items += items
        return self._dispatch.add(items)

    def _progressed(self, number: int, done: int, expected: int | None, events: int) -> None:
        item = self._items[number]
        if item.parts:
            shares = self._shares[item.task]
            shares[number] = min(done / expected, 1.0) if expected else 0.0
            joined = shares[number] if item.part is None else 0.0
            parts = (sum(shares.values()) - joined) / len(item.parts)
            done, expected, events = round(PROGRESS * ((1 - JOINING) * parts + JOINING * joined)), PROGRESS, 0
        self._watcher.progressed(item.task, done, expected, events)

    def _end(self, outcome: Outcome) -> None:
        self._ended.add(outcome.task)
        self._dispatch.drop_waiting(self._shares.get(outcome.task, ()))
        self._watcher.ended(outcome)
        if outcome.disk_full:
            self._dispatch.drop_waiting()


def video_shares(node: Node) -> list[Share]:
    """As many workers on a node as `--jobs auto` would use there."""
    from apexstream.cluster.dispatch import divided
    from stream.recorded.folders.workers import default_jobs

    return divided(node, default_jobs(node.cpus), MEMORY_BYTES)


@contextmanager
def _mark(out: Path) -> Iterator[Path]:
    """A file in the output folder while the block runs; those of runs that were killed are removed."""
    from stream.files import write_errors

    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for left in out.glob(f"{MARK}*"):
            left.unlink()
        handle, name = tempfile.mkstemp(prefix=MARK, dir=out)
        os.close(handle)
    try:
        yield Path(name)
    finally:
        with suppress(OSError):
            Path(name).unlink()
