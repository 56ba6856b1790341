"""The sources at work in several processes, so that Python's lock, which lets one thread of a process run at a time, leaves no
core idle.

    a process: some of the sources, in a Session --pipe--> a thread here --> sink
    browsers:  in a Session here

A `Crew` looks to the service like a `Session`. The monotonic clock counts from the machine's start on Linux, macOS and Windows
alike: a time that one process read means the same in another.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from uuid import uuid4

from engine.errors import InputError
from stream.analysis.child import FLUSH_S
from stream.analysis.heartbeat import Lookout
from stream.analysis.session import STOP_S, Feed, Loading, Session, Sources
from stream.analysis.worker import Make, Processed
from stream.analysis.worker_process import KILL_S, Member
from stream.messages import Sink, SourceStatus
from stream.settings import LiveSettings, SourceSettings

log = logging.getLogger(__name__)

FEW = 3
"""Sources that one process analyses as well as several would; more are dealt to processes, so many each where cores allow."""


def at_work(settings: LiveSettings, sink: Sink, *, processed: Processed, make: Make | None = None) -> Sources:
    """The sources of settings, in this process or in as many as settings ask for."""
    if how_many(settings) < 2:
        return Session(settings, sink, processed=processed, make=make)
    return Crew(settings, sink, processed=processed, make=make)


def how_many(settings: LiveSettings) -> int:
    """Processes besides this one; under 2 is none, as this one can do as much."""
    count = len(settings.sources)
    if settings.processes != "auto":
        return min(settings.processes, count)
    return 0 if count <= FEW else min(_cores(), math.ceil(count / FEW))


class Crew:
    """The sources of settings, dealt to processes of their own; what comes of them goes to sink, as with a `Session`.

    A process that dies takes its sources' open events with it; it is started anew, and its sources' statuses say so. A file
    begins again then. Methods may be called from any thread; `start` once.
    """

    def __init__(
        self,
        settings: LiveSettings,
        sink: Sink,
        *,
        processed: Processed = lambda stream, seconds, waiting: None,
        make: Make | None = None,
        name: str = "",
    ) -> None:
        self.settings = settings
        self._sink, self._lock = sink, threading.Lock()  # guards _stopped
        self._stopped = False
        self._here = Session(settings.model_copy(update={"sources": ()}), sink, processed=processed, make=make, name=name)
        self._names = {source.name for source in settings.sources}
        name = name or uuid4().hex[:12]
        count = max(1, how_many(settings))
        shares = [_share(settings, settings.sources[k::count]) for k in range(count)]
        self._members = [
            Member(number, share, sink, processed=processed, make=make, name=name)
            for number, share in enumerate(shares, 1)
            if share.sources
        ]
        self._lookout = Lookout(self._look, "look at processes")

    def start(self, ready: Callable[[Exception | None], None] = lambda error: None) -> None:
        """Start the processes; returns at once. As `Session.start`, but for errors of the processes, also told to ready."""
        statuses = [_starting(source) for source in self.settings.sources]
        loading = Loading(len(self._members), ready)
        self._here.start()
        for status in statuses:
            self._sink.status(status)
        for member in self._members:
            member.start(statuses, loading.done)
        self._lookout.start()

    def _look(self) -> None:
        for member in self._members:
            member.look()

    def add_browser(self, name: str, feed: Feed) -> None:
        """Analyse a browser's pictures, in this process; as `Session.add_browser`."""
        if name in self._names:
            raise InputError(f"there is a stream called {name!r} already; choose another name")
        self._here.add_browser(name, feed)

    def remove_browser(self, name: str) -> None:
        """End a browser's stream; as `Session.remove_browser`."""
        self._here.remove_browser(name)

    def tell(self, status: SourceStatus) -> None:
        """Send a browser's status to the sink; as `Session.tell`."""
        self._here.tell(status)

    def stop(self, timeout: float = STOP_S) -> bool:
        """End all sources and processes, their last events flushed to the sink; True when all ended by themselves in time.

        After timeout seconds there is no process any more, however that went. Idempotent.
        """
        with self._lock:
            if self._stopped:
                return True
            self._stopped = True
        until = time.monotonic() + timeout - KILL_S
        self._lookout.stop(KILL_S)
        for member in self._members:
            member.end(max(0.1, timeout - KILL_S - FLUSH_S))
        ended = self._here.stop(timeout)
        late = [member for member in self._members if not member.join(until)]
        for member in late:
            log.error("process %d of the sources does not end and is killed", member.number)
            member.kill()
        for member in late:
            member.join(until + KILL_S)
        return ended and not late

    @property
    def running(self) -> int:
        """How many streams there are."""
        return (0 if self._stopped else len(self._names)) + self._here.running

    @property
    def pids(self) -> list[int]:
        """The processes that are alive now."""
        return [pid for member in self._members if (pid := member.pid) is not None]


def _share(settings: LiveSettings, sources: tuple[SourceSettings, ...]) -> LiveSettings:
    """What a process is told of the settings; the server's secrets are not its business."""
    return LiveSettings(sources=sources, pipeline=settings.pipeline, queued_frames=settings.queued_frames)


def _starting(source: SourceSettings) -> SourceStatus:
    """A source's first status. Raises SourceError or ConfigError where it makes no sense."""
    return SourceStatus(source.name, source.address().kind, "starting", since=time.time())


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
