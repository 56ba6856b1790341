"""The sources shared out to worker processes, because Python's lock lets only one thread of a process run at a time.

    configured sources   a session in each worker process --pipe--> a thread here --> sink
    browsers' cameras    analysed in this process

The monotonic clock counts from the machine's start on Linux, macOS and Windows alike, so a time read in one process means the
same in another.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from stream.analysis.child import FLUSH_S
from stream.analysis.session import STOP_S, Countdown, Session
from stream.analysis.worker import MakePipeline, OnProcessed
from stream.analysis.worker_process import KILL_S, WorkerProcess
from stream.messages import Sink, SourceStatus
from stream.process import core_count
from stream.settings import LiveSettings
from stream.sources.settings import SourceSettings

log = logging.getLogger(__name__)

SOURCES_PER_PROCESS = 3
"""One process analyses so many sources as well as several would; more are shared out, so many to a process if cores allow."""


def create_session(settings: LiveSettings, sink: Sink, *, processed: OnProcessed, make: MakePipeline | None = None) -> Session:
    """A session for the sources of settings, in this process or in as many as settings ask for."""
    kind = Session if process_count(settings) < 2 else Supervisor
    return kind(settings, sink, processed=processed, make=make)


def process_count(settings: LiveSettings) -> int:
    """Number of worker processes; under 2 none is used, as this process can do as much."""
    count = len(settings.sources)
    if settings.processes != "auto":
        return min(settings.processes, count)
    return 0 if count <= SOURCES_PER_PROCESS else min(core_count(), math.ceil(count / SOURCES_PER_PROCESS))


class Supervisor(Session):
    """A session whose configured sources run in worker processes, which it starts, monitors and ends.

    A process that exits is restarted, which its sources' statuses say; the events that were open in it are lost, and a file is
    played from the start.
    """

    def __init__(
        self, settings: LiveSettings, sink: Sink, *, processed: OnProcessed = lambda *_: None, make: MakePipeline | None = None
    ) -> None:
        super().__init__(settings, sink, processed=processed, make=make)
        count = max(1, process_count(settings))
        self._processes = [
            WorkerProcess(number, _share(settings, sources), sink, processed=processed, make=make, name=self._name)
            for number, sources in enumerate((settings.sources[k::count] for k in range(count)), 1)
            if sources
        ]

    def start(self, ready: Callable[[Exception | None], None] = lambda error: None) -> None:
        """Start the processes; returns at once. As `Session.start`; errors of the processes go to ready, too."""
        statuses = {source.name: _starting(source) for source in self.settings.sources}
        countdown = Countdown(len(self._processes), ready)
        self._monitor.start()
        for status in statuses.values():
            self._sink.status(status)
        for process in self._processes:
            process.start(statuses, countdown.done)

    def stop(self, timeout: float = STOP_S) -> bool:
        """End all sources and processes, their last events flushed to the sink; True when all ended by themselves in time.

        After timeout seconds those processes that are left have been killed. Idempotent.
        """
        if not self._begin_stop():
            return True
        until = time.monotonic() + timeout - KILL_S
        self._monitor.stop(KILL_S)
        for process in self._processes:
            process.end(max(0.1, timeout - KILL_S - FLUSH_S))
        ended = self._stop_streams(max(0.0, until - time.monotonic()))
        late = [process for process in self._processes if not process.join(until)]
        for process in late:
            log.error("worker process %d does not end and is killed", process.number)
            process.kill()
        for process in late:
            process.join(until + KILL_S)
        return ended and not late

    def _check(self) -> None:
        super()._check()
        for process in self._processes:
            process.check()


def _share(settings: LiveSettings, sources: tuple[SourceSettings, ...]) -> LiveSettings:
    """The settings for one process, without the server's secrets."""
    return LiveSettings(sources=sources, pipeline=settings.pipeline, queued_frames=settings.queued_frames)


def _starting(source: SourceSettings) -> SourceStatus:
    """A source's first status. Raises SourceError or ConfigError where it makes no sense."""
    return SourceStatus(source.name, source.address().kind, "starting", since=time.time())
