"""Videos analysed by workers on a cluster; videos and results are in folders that all nodes share."""

from __future__ import annotations

import os
import pickle
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputError

if TYPE_CHECKING:
    from apexstream.cluster.connection import Cluster
    from apexstream.cluster.dispatch import Happening
    from apexstream.cluster.ray_process import Node, Share
    from apexstream.video_analysis import AnalysisOptions
    from stream.recorded.folders.runs import Outcome, Watcher
    from stream.recorded.folders.store import Store
    from stream.recorded.folders.tasks import Task
    from stream.recorded.folders.workers import StopRequest

MEMORY_BYTES = 1_000_000_000
"""What a worker is given of a node's memory."""
LOCK_WAIT_S = 60.0
"""How long a worker waits for a folder of results: the worker of a node that was lost may live a little longer."""
SHARED = "what is read and written must be in folders that all nodes share, under the same paths"
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
    """A task, and when the results that it had before were made."""

    task: Task
    before: Mapping[str, Any] | None


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

    def do(self, item: Item, again: bool) -> Outcome:
        """Analyse a video, unless another worker did before it was lost."""
        from apexstream.video_analysis import analyze_video
        from stream.recorded.folders.runs import run_task

        self._progress = None
        if again and (earlier := self._earlier(item)) is not None:
            return earlier
        analyse = partial(analyze_video, options=self._options)
        return run_task(
            item.task,
            analyse,
            self._wanted,
            out=self._out,
            progress=self._note,
            stop=self._stop,
            lock_wait_s=LOCK_WAIT_S,
            store=self._store,
        )

    def progress(self) -> tuple[int, int | None, int] | None:
        """Frames that are done, frames expected, events."""
        return self._progress

    def stop(self) -> None:
        """End the analysis in order."""
        self._stop.set()

    def _earlier(self, item: Item) -> Outcome | None:
        """What came of the task by a worker that was lost; None where it was not done."""
        from stream.recorded.folders.runs import earlier_outcome

        if self._store is None:
            earlier = earlier_outcome(item.task)
        else:
            with self._store.results(item.task) as local:
                earlier = earlier_outcome(local)
        made = None if earlier is None or earlier.report is None else earlier.report.timing
        return earlier if made != item.before else None

    def _note(self, done: int, expected: int | None, events: int) -> None:
        self._progress = done, expected, events


def _check_place(place: Place) -> None:
    enter(place.folder)
    if place.store is not None:
        place.store.check()
    for path in (place.mark, place.video):
        if path is not None and not path.exists():
            raise InputError(f"{socket.gethostname()} does not see {path.absolute().parent} as it is here; {SHARED}")


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
        for happening in dispatch.run():
            if _tell(happening, tasks, watcher, say):
                dispatch.drop_waiting()


def _tell(happening: Happening, tasks: Sequence[Task], watcher: Watcher, say: Callable[[str], None]) -> bool:
    """Pass on what happened; whether the disk is full."""
    from apexstream.cluster.dispatch import Done, Failed, Note, Progressed, Started
    from apexstream.cluster.ray_process import Raised
    from stream.recorded.folders.runs import Outcome

    if isinstance(happening, Note):
        say(happening.sentence)
        return False
    task = tasks[happening.item]
    if isinstance(happening, Started):
        watcher.started(task)
    elif isinstance(happening, Progressed):
        watcher.progressed(task, *happening.value)
    elif isinstance(happening, Failed):
        watcher.ended(Outcome(task, None, happening.sentence))
    elif isinstance(happening, Done):
        if isinstance(happening.result, Raised):
            raise happening.result.error
        outcome = replace(happening.result.value, task=task)
        watcher.ended(outcome)
        return bool(outcome.disk_full)
    return False


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
        with tempfile.NamedTemporaryFile(prefix=MARK, dir=out) as file:
            yield Path(file.name)
