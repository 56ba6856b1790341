"""The sources at work: the one place where the service's threads start and are joined.

    a source        capture thread -> mailbox -> worker thread -> sink
    a browser       its socket's feed          -> worker thread -> sink

Each source has its own; what breaks in one is told in its status and nowhere else felt.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Protocol
from uuid import uuid4

from engine.errors import InputError
from stream.analysis.batching import Sharing
from stream.analysis.heartbeat import REPLACED_S, STALLED_S, Lookout
from stream.analysis.worker import Inbox, Make, Processed, Worker
from stream.messages import Arrival, Sink, SourceStatus
from stream.process import give_back_memory
from stream.queues import BoundedQueue
from stream.settings import LiveSettings, SourceSettings
from stream.sources.address import parse_address
from stream.sources.capture import Capture

log = logging.getLogger(__name__)

MOST_BROWSERS = 4
WAITING_BYTES = 256 << 20
"""Of a source's pictures that wait for its analysis: twelve up to 4K, five of the largest."""
MOST_REPLACED = 3
"""How often an analysis that hangs is replaced, a stream: each that hangs for good keeps its thread and its memory."""
LOAD_S = 60.0
"""A browser whose pipeline takes longer to load is turned away."""
STOP_S = 2.0
"""In which a source is closed and its analysis flushed."""


class Feed(Inbox, Protocol):
    """A browser's pictures: `stream.server.camera.Feed`."""

    def close(self) -> None:
        """No more pictures come."""


class Sources(Protocol):
    """The sources at work, wherever that is: a `Session`, or a `stream.analysis.supervisor.Crew`."""

    def start(self, ready: Callable[[Exception | None], None] = ...) -> None:
        """Begin; ready is called once, when all are loaded or cannot be."""

    def stop(self, timeout: float = ...) -> bool:
        """End; True when all has ended in time."""

    def add_browser(self, name: str, feed: Feed) -> None:
        """Analyse a browser's pictures."""

    def remove_browser(self, name: str) -> None:
        """End a browser's stream."""

    def tell(self, status: SourceStatus) -> None:
        """How a browser's stream is doing."""

    @property
    def running(self) -> int:
        """How many streams there are."""


@dataclass(eq=False)
class _Stream:
    """One source at work; told and problem are the last that capture and worker said, guarded by the session's lock;
    so are worker, stuck (it does not end its frame) and replaced (how many workers were given up for that).

    give_up ends the wait for a browser's pipeline.
    """

    name: str
    worker: Worker
    inbox: Inbox
    close: Callable[[], None]
    capture: Capture | None = None
    told: SourceStatus | None = None
    problem: str = ""
    stuck: bool = False
    replaced: int = 0
    give_up: Callable[[Exception], None] = lambda error: None


class Session:
    """The sources of settings, analysed side by side; what comes of them goes to sink.

    processed hears of every analysed frame; make makes the pipelines, in place of `stream.analysis.batching`. Methods may be
    called from any thread; `start` once.
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
        self._sink, self._processed, self._make = sink, processed, make or Sharing().made
        self._name = name or uuid4().hex[:12]
        self._lock = threading.RLock()  # guards the next three, each stream's told and problem, and the order of statuses
        self._streams: dict[str, _Stream] = {}
        self._leaving: list[_Stream] = []  # browsers that have gone, until their threads have ended
        self._stopped = False
        self._loading: Loading | None = None
        self._lookout = Lookout(self._look, "look at analyses")

    def start(self, ready: Callable[[Exception | None], None] = lambda error: None) -> None:
        """Begin to load the pipelines; each source is opened as soon as its own is there. Returns at once.

        ready is called once, on some thread: with None when all are loaded, or with what keeps one from it. Raises SourceError
        or ConfigError for a source that makes no sense.
        """
        streams = [self._prepare(source) for source in self.settings.sources]
        self._loading = Loading(len(streams), ready)
        with self._lock:
            self._streams.update({stream.name: stream for stream in streams})
        for stream in streams:
            if stream.capture is not None:
                self.tell(stream.capture.status)
            stream.worker.start()
        self._lookout.start()

    def add_browser(self, name: str, feed: Feed) -> None:
        """Analyse a browser's pictures as the stream `name`; returns once its pipeline is loaded.

        Raises InputError where the name is taken, there are too many, or the pipeline does not load.
        """
        loaded: SimpleQueue[Exception | None] = SimpleQueue()
        stream = _Stream(name, self._worker(name, feed, loaded.put), feed, feed.close, give_up=loaded.put)
        with self._lock:
            self._check_room(name)
            self._streams[name] = stream
        stream.worker.start()
        try:
            error = loaded.get(timeout=LOAD_S)
        except Empty:
            error = InputError("it takes too long")
        if error is not None:
            self._forget(name)
            feed.close()
            raise InputError(f"{name}: the analysis cannot begin ({error})") from error

    def remove_browser(self, name: str) -> None:
        """End a browser's stream: its events are flushed, then everybody is told that it is gone."""
        stream = self._forget(name)
        if stream is None:
            return
        _end(stream, time.monotonic() + STOP_S)
        with self._lock:
            self._sink.removed(name)
        give_back_memory()

    def tell(self, status: SourceStatus) -> None:
        """Send a source's status to the sink; where its analysis fails, with that in place of its own.

        That of a stream that is gone, told too late, is left out: it would bring the stream back.
        """
        with self._lock:
            stream = self._streams.get(status.stream)
            if stream is not None:
                stream.told = status
                self._sink.status(_merged(status, stream))

    def stop(self, timeout: float = STOP_S) -> bool:
        """End all sources: their last events are flushed to the sink. True when every thread has ended within timeout seconds.

        Idempotent.
        """
        with self._lock:
            streams, self._stopped = [] if self._stopped else [*self._streams.values(), *self._leaving], True
        self._lookout.stop()
        if not streams:
            return True
        until = time.monotonic() + timeout
        for stream in streams:
            stream.give_up(InputError("the service is ending"))
        with ThreadPoolExecutor(len(streams), "end") as pool:
            ended = list(pool.map(lambda stream: _end(stream, until), streams))
        with self._lock:
            self._streams.clear()
        return all(ended)

    @property
    def running(self) -> int:
        """How many streams there are."""
        with self._lock:
            return len(self._streams)

    def _prepare(self, source: SourceSettings) -> _Stream:
        mailbox: BoundedQueue[Arrival] = BoundedQueue(
            self.settings.queued_frames,
            drop_oldest=parse_address(source.url).live,
            max_bytes=WAITING_BYTES,
            size_of=lambda arrival: arrival.frame.pixels.nbytes,
        )
        capture = Capture(source, mailbox, self.tell)
        worker = self._worker(source.name, mailbox, lambda error: self._loaded(capture, error))
        return _Stream(source.name, worker, mailbox, mailbox.close, capture)

    def _loaded(self, capture: Capture, error: Exception | None) -> None:
        """A pipeline is there, or cannot be."""
        with self._lock:
            if error is None and not self._stopped:
                capture.start()
        if self._loading is not None:
            self._loading.done(error)

    def _worker(
        self, name: str, inbox: Inbox, loaded: Callable[[Exception | None], None] = lambda error: None, *, replaced: int = 0
    ) -> Worker:
        return Worker(
            name,
            self.settings.pipeline,
            inbox,
            self._sink,
            session=f"{self._name}.r{replaced}" if replaced else self._name,
            told=lambda problem: self._ailing(name, problem),
            loaded=loaded,
            processed=self._analysed,
            make=self._make,
            replacement=replaced > 0,
        )

    def _check_room(self, name: str) -> None:
        if self._stopped:
            raise InputError("the service is ending")
        self._leaving = [stream for stream in self._leaving if not stream.worker.join(0)]
        leaving = [stream.name for stream in self._leaving]
        if name in self._streams or name in leaving:
            raise InputError(f"there is a stream called {name!r} already; choose another name")
        if sum(stream.capture is None for stream in self._streams.values()) + len(leaving) >= MOST_BROWSERS:
            raise InputError(f"{MOST_BROWSERS} browsers show their camera already; try again later")

    def _forget(self, name: str) -> _Stream | None:
        """Take a browser's stream off the list; its place is free once its thread has ended."""
        with self._lock:
            stream = self._streams.pop(name, None)
            if stream is not None:
                self._leaving.append(stream)
            return stream

    def _analysed(self, name: str, seconds: float, waiting: int) -> None:
        if name in self._streams:  # else it outlives its end, and has no figures any more
            self._processed(name, seconds, waiting)

    def _ailing(self, name: str, problem: str) -> None:
        """A worker says what is wrong with its analysis, or that it is well again."""
        (log.warning if problem else log.info)("%s: %s", name, problem or "the analysis is well again")
        with self._lock:
            stream = self._streams.get(name)
            if stream is None:
                return
            stream.problem = problem
            if stream.told is not None:
                self._sink.status(_merged(stream.told, stream))

    def _look(self) -> None:
        """Report analyses that do not end their frame as stalled, and replace them where it lasts."""
        with self._lock:
            for stream in list(self._streams.values()):
                stuck_s = stream.worker.stuck_s()
                if stream.stuck is not (stuck_s >= STALLED_S):
                    stream.stuck = not stream.stuck
                    said = f"the analysis has been at one frame for {stuck_s:g} s; it is replaced if that lasts"
                    self._ailing(stream.name, said if stream.stuck else "")
                if stuck_s >= REPLACED_S and stream.replaced < MOST_REPLACED and not self._stopped:
                    self._replace(stream)

    def _replace(self, stream: _Stream) -> None:
        """Give up a stream's worker, whose thread ends once its frame does, and have another take its frames."""
        log.error("%s: its analysis hangs and is replaced; what was open in it is lost", stream.name)
        stream.replaced += 1
        stream.worker.leave()
        stream.worker = self._worker(stream.name, stream.inbox, replaced=stream.replaced)
        stream.worker.start()


def _merged(status: SourceStatus, stream: _Stream) -> SourceStatus:
    """The source's status, where the analysis fails with that in place of its own."""
    if not stream.problem:
        return status
    state = status.state if status.state == "ended" else "stalled" if stream.stuck else "reconnecting"
    return replace(status, state=state, detail=stream.problem)


class Loading:
    """Counts the pipelines down, and tells once how it went."""

    def __init__(self, count: int, ready: Callable[[Exception | None], None]) -> None:
        self._lock = threading.Lock()  # guards _left
        self._left = count
        self._ready = ready
        if not count:
            ready(None)

    def done(self, error: Exception | None) -> None:
        """One more is loaded, or cannot be."""
        with self._lock:
            if self._left <= 0:
                return
            self._left = 0 if error is not None else self._left - 1
            last = not self._left
        if last:
            self._ready(error)


def _end(stream: _Stream, until: float) -> bool:
    """Close the source, then wait for its analysis to flush."""
    stream.worker.hurry()
    if stream.capture is not None:
        stream.capture.stop(max(0.1, until - time.monotonic()))
    stream.close()
    ended = stream.worker.join(max(0.1, until - time.monotonic()))
    if not ended:
        log.error("%s: its analysis does not end", stream.name)
    return ended
