"""Tasks done by several processes at once.

Each process has a pipe to the one that started it. Tasks and the request to stop go in, progress and outcomes come out. A
process exits when its pipe closes, so that none outlives the run, however that ends. One that dies (a defect of a decoder, no
memory) fails its task alone, and another takes its place. Signals that end a process are blocked in it: the process that
started it gets them, too, and decides.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.shutdown import signals_blocked

if TYPE_CHECKING:
    from stream.recorded.folders.outcome import Outcome
    from stream.recorded.folders.records import Wanted
    from stream.recorded.folders.runs import Analyse, Watcher
    from stream.recorded.folders.store import Store
    from stream.recorded.folders.tasks import Task

PROGRESS_S = 0.2
"""How often a process reports its progress, seconds."""
STOP = "stop"
CORES_PER_VIDEO = 1.4
"""What the analysis of one video uses of two cores: 4.07 ms of CPU time for a picture that takes 2.92 ms."""


def default_jobs(cores: int) -> int:
    """How many videos keep so many cores busy."""
    return math.ceil(cores / CORES_PER_VIDEO)


class StopRequest(threading.Event):
    """An event whose setting wakes up a run that waits for its processes; a signal's handler may set it."""

    def __init__(self) -> None:
        super().__init__()
        self.wakes, self._wake = multiprocessing.Pipe(duplex=False)

    def set(self) -> None:
        """Ask for the end."""
        if not self.is_set():
            super().set()
            self._wake.send(STOP)


@dataclass(frozen=True)
class Setup:
    """What a process needs besides its tasks."""

    analyse: Analyse
    wanted: Wanted
    out: Path
    store: Store | None = None


@dataclass(frozen=True)
class Progressed:
    """A message of a process: so many frames of its task are done, of so many expected, with so many events."""

    done: int
    expected: int | None
    events: int


class _Worker:
    """A process, and the task that it does; None while it has none."""

    def __init__(self, setup: bytes) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of threads
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=work, args=(child, setup), daemon=True)
        self.task: Task | None = None
        resource_tracker.ensure_running()  # with the first process it would be started, which unblocks signals
        with signals_blocked(), child:
            self.process.start()

    def send(self, message: Task | str | None) -> None:
        """Send a task, STOP, or None for the end. That the process has died shows when its pipe is read."""
        with suppress(OSError):
            self.pipe.send(message)

    def receive(self) -> Progressed | Outcome:
        """The next message; an outcome where the process has died."""
        from stream.recorded.folders.outcome import Outcome

        assert self.task is not None
        try:
            message: Progressed | Outcome = self.pipe.recv()
            return message
        except (EOFError, OSError, pickle.UnpicklingError):
            return Outcome(self.task, None, self._death())

    def _death(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        memory = "; the memory may not suffice" if code == -signal.SIGKILL else ""
        return f"the process that analysed it ended {how}{memory}"


class _Run:
    """The tasks that wait, and the processes that do them."""

    def __init__(self, tasks: Sequence[Task], setup: Setup, jobs: int, watcher: Watcher) -> None:
        self._setup, self._watcher, self._waiting = pickle.dumps(setup), watcher, deque(tasks)
        self._workers: list[_Worker] = []
        self._jobs = min(jobs, len(tasks))

    def do(self, stop: StopRequest) -> None:
        """Until all is done, stop is set or the disk is full."""
        for _ in range(self._jobs):
            self._workers.append(_Worker(self._setup))
            self._give_task(self._workers[-1])
        stopping: list[Any] = [stop.wakes]
        while busy := self._busy():
            for ready in wait([*busy, *stopping]):
                if ready in stopping:
                    stopping.clear()
                    self._stop()
                else:
                    self._take_message(busy[ready])

    def _busy(self) -> dict[Any, _Worker]:
        """The processes that have a task, by their pipes."""
        return {worker.pipe: worker for worker in self._workers if worker.task}

    def close(self) -> None:
        """End the processes: those that are done are about to end, others end at once."""
        for worker in self._workers:
            worker.send(None)
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join()

    def _give_task(self, worker: _Worker) -> None:
        worker.task = self._waiting.popleft() if self._waiting else None
        if worker.task is not None:
            self._watcher.started(worker.task)
            worker.send(worker.task)

    def _take_message(self, worker: _Worker) -> None:
        message, task = worker.receive(), worker.task
        assert task is not None
        if isinstance(message, Progressed):
            self._watcher.progressed(task, message.done, message.expected, message.events)
            return
        self._watcher.ended(message)
        worker.task = None
        if message.disk_full:
            self._waiting.clear()
        if self._waiting and worker.process.exitcode is not None:
            self._workers.remove(worker)
            worker = _Worker(self._setup)
            self._workers.append(worker)
        self._give_task(worker)

    def _stop(self) -> None:
        self._waiting.clear()
        for worker in self._workers:
            worker.send(STOP)


def run_in_processes(tasks: Sequence[Task], setup: Setup, *, jobs: int, watcher: Watcher, stop: StopRequest) -> None:
    """Do the tasks, started in their order, in so many processes at once, until stop is set or the disk is full.

    What is under way at a stop ends in order, with an outcome.
    """
    run = _Run(tasks, setup, jobs, watcher)
    try:
        run.do(stop)
    finally:
        run.close()


def work(pipe: Connection[Any, Any], setup: bytes) -> None:
    """The code of a process; does not return."""
    from stream.process import load_less

    load_less()  # before the setup is unpacked, which loads numba
    ready: Setup = pickle.loads(setup)
    from stream.recorded.folders.runs import run_task

    stop, tasks = threading.Event(), queue.SimpleQueue[Any]()
    threading.Thread(target=_listen, args=(pipe, tasks, stop), name="listen", daemon=True).start()
    while (task := tasks.get()) is not None:
        progress = _Reports(pipe)
        pipe.send(run_task(task, ready.analyse, ready.wanted, out=ready.out, progress=progress, stop=stop, store=ready.store))
    os._exit(0)  # at once: unloading the libraries in order takes longer


def _listen(pipe: Connection[Any, Any], tasks: queue.SimpleQueue[Any], stop: threading.Event) -> None:
    """Pass on tasks and the request to stop; exit once the other process has."""
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            os._exit(1)
        if message == STOP:
            stop.set()
        else:
            tasks.put(message)


class _Reports:
    """Sends progress now and then."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe, self._sent_at = pipe, 0.0

    def __call__(self, done: int, expected: int | None, events: int) -> None:
        now = time.monotonic()
        if now - self._sent_at >= PROGRESS_S:
            self._sent_at = now
            self._pipe.send(Progressed(done, expected, events))
