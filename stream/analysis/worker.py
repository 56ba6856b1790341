"""The analysis of one source: a thread that takes its frames, runs the pipeline, and passes the results to the sink.

When the pipeline fails, the failure is reported, its open events are flushed if possible, and a new pipeline replaces it; the
thread runs until its queue is closed, and then flushes. It waits for nothing but the next frame.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from engine import Pipeline
from engine.config import PipelineSettings
from engine.types import ActivityKind, Event, Evidence, Face
from stream.analysis.heartbeat import Heartbeat
from stream.analysis.preview import PreviewMaker
from stream.analysis.status import Fault
from stream.backoff import Backoff
from stream.messages import Acted, Arrival, Decided, FaceTrace, Signal, Sink
from stream.sources.capture_clock import CaptureClock

log = logging.getLogger(__name__)

SIGNAL_S = 0.1
"""Time between two signals."""

STABLE_S = 5.0
"""A new pipeline that has run for so long is stable: the fault is over, and the next wait is a first one."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 2.0
"""Backoff before a pipeline is loaded again."""

MakePipeline = Callable[[PipelineSettings, str, str], Pipeline]
"""Loads a pipeline, given its settings, the stream and the session. Raises WeightsError, BackendError."""

OnProcessed = Callable[[str, float, int], None]
"""Called after each frame: the stream, the seconds its analysis took, the number of frames waiting."""


class FrameQueue(Protocol):
    """Where frames come from: a `stream.queues.BoundedQueue`, or a browser's camera (`stream.server.camera.Feed`)."""

    def get(self, timeout: float | None = None) -> Arrival | None:
        """The next frame, waited for; None once the source has ended."""

    def close(self) -> None:
        """End the input; waiting frames can still be taken."""

    def abandon(self) -> None:
        """End the output; waiting frames are discarded."""

    def __len__(self) -> int:
        """How many frames wait."""


class Worker:
    """The analysis of one stream; `session` makes its events' ids differ from those of other runs.

    Called on the worker's thread: `on_fault` with a fault, None once it is over; `on_loaded` once the first pipeline is loaded
    (None) or could not be (the error), which ends the worker; `processed` after each frame. Without `on_loaded` (a worker that
    replaces another) the first pipeline is loaded at the first frame, and tried again as after a failure.
    """

    def __init__(
        self,
        stream: str,
        settings: PipelineSettings,
        frames: FrameQueue,
        sink: Sink,
        *,
        session: str,
        make: MakePipeline,
        on_fault: Callable[[Fault | None], None],
        on_loaded: Callable[[Exception | None], None] | None = None,
        processed: OnProcessed = lambda *_: None,
    ) -> None:
        self.stream, self.settings = stream, settings
        self._frames, self._sink = frames, sink
        self._on_fault, self._on_loaded, self._processed, self._make = on_fault, on_loaded, processed, make
        self._session, self._pipelines = session, 0
        self._pipeline: Pipeline | None = None
        self._sent_evidence: dict[str, Evidence] = {}  # of events that are provisional, by id
        self._stopping = threading.Event()
        self._heartbeat, self._at_frame, self._discarded = Heartbeat(), False, False
        self._backoff, self._stable_at, self._faulty = Backoff(FIRST_WAIT_S, LONGEST_WAIT_S), 0.0, False
        self._arrived = 0.0
        self._clock = CaptureClock()
        self._traces = _Traces(stream, self._clock)
        self._previews = PreviewMaker(stream, sink)
        self._thread = threading.Thread(target=self._run, name=f"analysis of {stream}", daemon=True)

    def start(self) -> None:
        """Start the thread; returns at once."""
        self._thread.start()

    def stop_waiting(self) -> None:
        """End a wait before a retry, and retry no more, as the service is ending; the queue is closed by its producer."""
        self._stopping.set()

    def busy_s(self) -> float:
        """For how many seconds it has been at the same frame; to be called every `heartbeat.CHECK_S`, on one thread."""
        if not self._at_frame:
            self._heartbeat.beat()
        return self._heartbeat.silent_s()

    def discard(self) -> None:
        """Another worker replaces it: it takes no more frames, and its results are dropped."""
        self._discarded = True

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread, which ends once the queue is closed and empty; False where it is still alive after timeout."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self._on_loaded is not None and not self._load_first(self._on_loaded):
                return
            while not self._discarded and (arrival := self._frames.get()) is not None:
                self._take(arrival)
            if not self._discarded:
                self._flush()
                signal = self._traces.flush()
                if signal is not None:
                    self._sink.signal(signal)
        except Exception as error:  # a defect: reported, and no other source is affected
            log.debug("the analysis of %s has ended", self.stream, exc_info=error)
            self._report(f"the analysis has ended ({_named(error)})")
            self._frames.abandon()
        finally:
            self._close()

    def _load_first(self, on_loaded: Callable[[Exception | None], None]) -> bool:
        try:
            self._load()
        except Exception as error:  # noqa: BLE001 - reported to the caller of `start`
            self._frames.abandon()
            on_loaded(error)
            return False
        on_loaded(None)
        return True

    def _take(self, arrival: Arrival) -> None:
        if self._pipeline is None and not self._reload():
            return
        self._arrived = arrival.arrived
        self._clock.note(arrival.frame, arrival.arrived)
        self._at_frame = True
        try:
            self._analyse(arrival)
        except Exception as error:  # whatever breaks the analysis of one frame, the source continues
            if not self._discarded:
                log.debug("the analysis of %s failed", self.stream, exc_info=error)
                self._report(f"the analysis failed ({_named(error)}) and is restarted")
                self._flush()
                self._close()
            return
        finally:
            self._at_frame = False
            self._heartbeat.beat()
        if self._faulty and arrival.arrived >= self._stable_at:
            self._faulty = False
            self._backoff.reset()
            self._on_fault(None)

    def _analyse(self, arrival: Arrival) -> None:
        pipeline, frame, began = self._pipeline, arrival.frame, time.monotonic()
        assert pipeline is not None
        faces = pipeline.locate(frame)
        events = [] if self._discarded else pipeline.advance(frame, faces)
        if self._discarded:
            return
        self._send_results(pipeline, events)
        signal = self._traces.note(arrival, faces, pipeline)
        if signal is not None:
            self._sink.signal(signal)
        self._previews.offer(arrival, faces)
        if not self._frames:
            pipeline.recognize_ahead()
        if not self._frames:
            pipeline.search_ahead(frame)
        self._processed(self.stream, time.monotonic() - began, len(self._frames))

    def _send_results(self, pipeline: Pipeline, events: Sequence[Event]) -> None:
        if events:
            self._sink.decided([self._decided(event) for event in events])
        for activity in pipeline.activities():
            self._sink.activity(Acted(self.stream, activity, self._clock.offset(activity.start.t)))

    def _decided(self, event: Event) -> Decided:
        offset = self._clock.offset(event.onset.t)
        return Decided(self._without_sent_evidence(event), self._arrived, clock_offset=offset)

    def _without_sent_evidence(self, event: Event) -> Event:
        """The event, without its evidence where the provisional event was sent with the very same."""
        sent = self._sent_evidence.pop(event.id, None)
        if event.state == "provisional" and event.evidence is not None:
            self._sent_evidence[event.id] = event.evidence
        return replace(event, evidence=None) if event.evidence is sent else event

    def _flush(self) -> None:
        """Send what is open in the pipeline as final."""
        try:
            if self._pipeline is not None:
                self._send_results(self._pipeline, self._pipeline.flush())
        except Exception as error:  # noqa: BLE001 - it failed before; what was open in it is lost
            log.warning("what was open in %s is lost: %s", self.stream, _named(error))

    def _report(self, detail: str) -> None:
        self._faulty = True
        self._on_fault(Fault("analysis failed", detail, time.time()))

    def _reload(self) -> bool:
        """Load a new pipeline after a wait; False where that failed or the service is ending."""
        if self._stopping.wait(self._backoff.next()):
            return False
        try:
            self._load()
        except Exception as error:  # noqa: BLE001 - reported; tried again at the next frame
            self._report(f"the analysis cannot be restarted: {_named(error)}")
            return False
        self._stable_at = time.monotonic() + STABLE_S
        return True

    def _load(self) -> None:
        self._pipelines += 1
        self._pipeline = self._make(self.settings, self.stream, f"{self._session}.{self._pipelines}")

    def _close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = None
        self._sent_evidence.clear()


class _Traces:
    """Collects the motion of every frame into ten signals a second."""

    def __init__(self, stream: str, clock: CaptureClock) -> None:
        self._stream, self._clock = stream, clock
        self._sent = float("-inf")
        self._newest: Arrival | None = None
        self._faces: dict[int, list[tuple[float, float, float]]] = {}  # time, loudness and motion, as in `FaceTrace`
        self._doing: dict[int, dict[ActivityKind, float]] = {}

    def note(self, arrival: Arrival, faces: Sequence[Face], pipeline: Pipeline) -> Signal | None:
        """Add a frame; returns the signal when it is due. Frames without a face yield signals too, without faces."""
        self._newest = arrival
        seen, doing = pipeline.trace(), pipeline.doing()
        for id_ in (face.id for face in faces if face.id in seen):
            self._faces.setdefault(id_, []).append((arrival.frame.t, *seen[id_]))
            self._doing[id_] = doing[id_]
        return self.flush() if arrival.arrived - self._sent >= 0.95 * SIGNAL_S else None

    def flush(self) -> Signal | None:
        """The motion since the last signal; None where no frame came since."""
        newest = self._newest
        if newest is None:
            return None
        self._sent, self._newest = newest.arrived, None
        traces = []
        for id_, rows in sorted(self._faces.items()):
            t, loudness, moved_px = zip(*rows, strict=True)
            traces.append(FaceTrace(id_, t, loudness, moved_px, self._doing[id_]))
        self._faces, self._doing = {}, {}
        offset = self._clock.offset(newest.frame.t)
        return Signal(self._stream, newest.frame.t, newest.at, tuple(traces), offset)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
