"""The sources under analysis: the one place where the service's threads are started and joined.

    a configured source   capture thread -> queue         -> worker thread -> sink
    a browser's camera    socket         -> camera's feed -> worker thread -> sink

A fault of one source shows in its status and does not affect the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from uuid import uuid4

from engine.errors import InputError
from stream.analysis.batching import PipelineFactory
from stream.analysis.heartbeat import REPLACED_S, STALLED_S, Monitor
from stream.analysis.status import Fault, visible_status
from stream.analysis.worker import FrameQueue, MakePipeline, OnProcessed, Worker
from stream.messages import Arrival, Sink, SourceStatus
from stream.process import return_memory
from stream.queues import BoundedQueue
from stream.settings import LiveSettings
from stream.sources.capture import Capture
from stream.sources.kinds import parse_address
from stream.sources.settings import SourceSettings

log = logging.getLogger(__name__)

MAX_BROWSERS = 4
MAX_QUEUED_BYTES = 256 << 20
"""Of a source's frames that wait for analysis: twelve up to 4K, five of the largest."""
MAX_REPLACEMENTS = 3
"""How often a hanging analysis is replaced, a stream: each one that never ends its frame keeps its thread and its memory."""
LOAD_S = 60.0
"""A browser whose pipeline takes longer to load is refused."""
STOP_S = 2.0
"""In which a source is closed and its analysis flushed."""


@dataclass(eq=False)
class _Stream:
    """One source under analysis. The session's lock guards reported (by the source itself), fault, worker and replacements.

    cancel ends the wait for a browser's pipeline, with an error.
    """

    name: str
    worker: Worker
    frames: FrameQueue
    capture: Capture | None = None
    cancel: Callable[[Exception], None] = lambda error: None
    reported: SourceStatus | None = None
    fault: Fault | None = None
    replacements: int = 0

    def stop(self, until: float) -> bool:
        """Close the source and wait for its analysis to flush; False where that is not over at until (monotonic)."""
        self.worker.stop_waiting()
        if self.capture is not None:
            self.capture.stop(max(0.1, until - time.monotonic()))
        self.frames.close()
        ended = self.worker.join(max(0.1, until - time.monotonic()))
        if not ended:
            log.error("%s: its analysis does not end", self.name)
        return ended


class Session:
    """The sources of settings, analysed side by side; results go to sink.

    processed is called after every analysed frame; make loads the pipelines, in place of `stream.analysis.batching`. Methods
    may be called from any thread; `start` once.
    """

    def __init__(
        self,
        settings: LiveSettings,
        sink: Sink,
        *,
        processed: OnProcessed = lambda *_: None,
        make: MakePipeline | None = None,
        name: str = "",
    ) -> None:
        self.settings = settings
        self._sink, self._processed, self._make = sink, processed, make or PipelineFactory().make
        self._name = name or uuid4().hex[:12]
        self._lock = threading.RLock()  # guards the next three, what `_Stream` says, and the order of statuses
        self._streams: dict[str, _Stream] = {}
        self._leaving: list[_Stream] = []  # browsers that have disconnected, until their threads have ended
        self._stopped = False
        self._countdown: Countdown | None = None
        self._monitor = Monitor(self._check, "monitor of analyses")

    def start(self, ready: Callable[[Exception | None], None] = lambda error: None) -> None:
        """Start to load the pipelines; each source is opened as soon as its own is loaded. Returns at once.

        ready is called once, on any thread: with None when all are loaded, or with the first error. Raises SourceError or
        ConfigError for a source that is not valid.
        """
        streams = [self._stream_of(source) for source in self.settings.sources]
        self._countdown = Countdown(len(streams), ready)
        with self._lock:
            self._streams.update({stream.name: stream for stream in streams})
        for stream in streams:
            if stream.capture is not None:
                self.report(stream.capture.status)
            stream.worker.start()
        self._monitor.start()

    def add_browser(self, name: str, feed: FrameQueue) -> None:
        """Analyse a browser's camera as the stream `name`; returns once its pipeline is loaded.

        Raises InputError where the name is taken, there are too many, or the pipeline does not load.
        """
        loaded: SimpleQueue[Exception | None] = SimpleQueue()
        stream = _Stream(name, self._worker(name, feed, on_loaded=loaded.put), feed, cancel=loaded.put)
        with self._lock:
            self._check_room(name)
            self._streams[name] = stream
        stream.worker.start()
        try:
            error = loaded.get(timeout=LOAD_S)
        except Empty:
            error = InputError("it takes too long")
        if error is not None:
            self._detach(name)
            feed.close()
            raise InputError(f"{name}: the analysis cannot begin ({error})") from error

    def remove_browser(self, name: str) -> None:
        """End a browser's stream: its events are flushed, then its removal is reported."""
        stream = self._detach(name)
        if stream is None:
            return
        stream.stop(time.monotonic() + STOP_S)
        with self._lock:
            self._sink.removed(name)
        return_memory()

    def report(self, status: SourceStatus) -> None:
        """Send a source's status to the sink, as `visible_status` shows it.

        A late status of a stream that was removed is dropped: it would bring the stream back.
        """
        with self._lock:
            stream = self._streams.get(status.stream)
            if stream is not None:
                stream.reported = status
                self._sink.status(visible_status(status, stream.fault))

    def stop(self, timeout: float = STOP_S) -> bool:
        """End all sources: their last events are flushed to the sink. True when every thread has ended within timeout seconds.

        Idempotent.
        """
        return not self._begin_stop() or self._stop_streams(timeout)

    def _begin_stop(self) -> bool:
        """Let no stream start any more; whether this is the first call."""
        with self._lock:
            first, self._stopped = not self._stopped, True
        return first

    def _stop_streams(self, timeout: float) -> bool:
        """End the streams of this process and the monitor; True when every thread has ended within timeout seconds."""
        until = time.monotonic() + timeout
        self._monitor.stop(timeout)
        with self._lock:
            streams = [*self._streams.values(), *self._leaving]
        for stream in streams:
            stream.cancel(InputError("the service is ending"))
        with ThreadPoolExecutor(max(1, len(streams)), "end") as pool:
            ended = list(pool.map(lambda stream: stream.stop(until), streams))
        with self._lock:
            self._streams.clear()
        return all(ended) and not self._monitor.is_alive()

    def _stream_of(self, source: SourceSettings) -> _Stream:
        frames: BoundedQueue[Arrival] = BoundedQueue(
            self.settings.queued_frames,
            drop_oldest=parse_address(source.url).live,
            max_bytes=MAX_QUEUED_BYTES,
            size_of=lambda arrival: arrival.frame.pixels.nbytes,
        )
        capture = Capture(source, frames, self.report)
        worker = self._worker(source.name, frames, on_loaded=lambda error: self._on_loaded(capture, error))
        return _Stream(source.name, worker, frames, capture)

    def _on_loaded(self, capture: Capture, error: Exception | None) -> None:
        with self._lock:
            if error is None and not self._stopped:
                capture.start()
        if self._countdown is not None:
            self._countdown.done(error)

    def _worker(
        self, name: str, frames: FrameQueue, *, on_loaded: Callable[[Exception | None], None] | None, suffix: str = ""
    ) -> Worker:
        return Worker(
            name,
            self.settings.pipeline,
            frames,
            self._sink,
            session=self._name + suffix,
            make=self._make,
            on_fault=lambda fault: self._set_fault(name, fault),
            on_loaded=on_loaded,
            processed=self._on_processed,
        )

    def _check_room(self, name: str) -> None:
        if self._stopped:
            raise InputError("the service is ending")
        self._leaving = [stream for stream in self._leaving if not stream.worker.join(0)]
        leaving = [stream.name for stream in self._leaving]
        if name in self._streams or name in leaving or name in {source.name for source in self.settings.sources}:
            raise InputError(f"there is a stream called {name!r} already; choose another name")
        if sum(stream.capture is None for stream in self._streams.values()) + len(leaving) >= MAX_BROWSERS:
            raise InputError(f"{MAX_BROWSERS} browsers show their camera already; try again later")

    def _detach(self, name: str) -> _Stream | None:
        """Take a browser's stream off the list; it counts towards MAX_BROWSERS until its thread has ended."""
        with self._lock:
            stream = self._streams.pop(name, None)
            if stream is not None:
                self._leaving.append(stream)
            return stream

    def _on_processed(self, name: str, seconds: float, waiting: int) -> None:
        if name in self._streams:  # else it was removed, and has no figures any more
            self._processed(name, seconds, waiting)

    def _set_fault(self, name: str, fault: Fault | None) -> None:
        if fault is None:
            log.info("%s: the analysis works again", name)
        else:
            log.warning("%s: %s", name, fault.detail)
        with self._lock:
            stream = self._streams.get(name)
            if stream is None:
                return
            stream.fault = fault
            if stream.reported is not None:
                self._sink.status(visible_status(stream.reported, fault))

    def _check(self) -> None:
        """Report analyses that do not end their frame as stalled, and replace them where it lasts."""
        with self._lock:
            for stream in list(self._streams.values()):
                busy_s = stream.worker.busy_s()
                known = stream.fault is not None and stream.fault.kind == "analysis hangs"
                if known is not (busy_s >= STALLED_S):
                    detail = f"the analysis has been at one frame for {busy_s:g} s; it is replaced if that lasts"
                    self._set_fault(stream.name, None if known else Fault("analysis hangs", detail, time.time()))
                if busy_s >= REPLACED_S and stream.replacements < MAX_REPLACEMENTS and not self._stopped:
                    self._replace(stream)

    def _replace(self, stream: _Stream) -> None:
        """Discard a stream's worker, whose thread ends once its frame does, and start another one on the same queue."""
        log.error("%s: its analysis hangs and is replaced; what was open in it is lost", stream.name)
        stream.replacements += 1
        stream.worker.discard()
        stream.worker = self._worker(stream.name, stream.frames, on_loaded=None, suffix=f".r{stream.replacements}")
        stream.worker.start()


class Countdown:
    """Counts the parts that are loaded, and calls ready once: with None after the last of count, or with the first error."""

    def __init__(self, count: int, ready: Callable[[Exception | None], None]) -> None:
        self._lock, self._left, self._ready = threading.Lock(), count, ready
        if not count:
            ready(None)

    def done(self, error: Exception | None) -> None:
        """One more part is loaded, or could not be."""
        with self._lock:
            waiting, self._left = self._left, 0 if error is not None else max(0, self._left - 1)
            last = waiting > 0 and not self._left
        if last:
            self._ready(error)
