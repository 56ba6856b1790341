"""One source's analysis: a thread that takes its frames, runs the pipeline, and hands over what comes of them.

A failure inside the pipeline is reported, its open events are saved where that is possible, and a new pipeline takes its place;
the thread itself goes on until its mailbox is closed, and then flushes. Nothing here waits for anything but the next frame.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine import Pipeline
from engine.config import PipelineSettings
from engine.types import ActivityKind, Event, Face
from stream.analysis.heartbeat import Pulse
from stream.analysis.preview import PreviewMaker
from stream.messages import Acted, Arrival, Decided, FaceTrace, Signal, Sink

log = logging.getLogger(__name__)

SIGNAL_S = 0.1
"""Time between two signals."""

SOUND_S = 5.0
"""A new pipeline that has worked for so long counts as sound: the next failure is a first one."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 2.0
"""Before a new pipeline is tried after a failure, doubling from one to the other."""

Make = Callable[[PipelineSettings, str, str], Pipeline]

Processed = Callable[[str, float, int], None]
"""Called after each frame: the stream, the seconds its analysis took, the frames that wait."""


class Inbox(Protocol):
    """Where frames come from: `stream.mailbox.Mailbox`."""

    def get(self, timeout: float | None = None) -> Arrival | None:
        """The next frame, waited for; None once the source has ended."""

    def abandon(self) -> None:
        """Nobody takes frames any more."""

    def __len__(self) -> int:
        """How many wait."""


def made(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
    """A pipeline. Raises WeightsError, BackendError."""
    return Pipeline(settings, stream=stream, session=session)


class Worker:
    """The analysis of one stream; `session` makes its events' ids differ from those of other runs.

    Called on the worker's thread: `told` with what is wrong with the analysis, "" once it is well again; `loaded` once, when
    the first pipeline is there (None) or cannot be made (why); `processed` after each frame. A replacement takes over a source
    that is at work: its first pipeline is made at a frame and retried as after a failure, and `loaded` is not called.
    """

    def __init__(
        self,
        stream: str,
        settings: PipelineSettings,
        inbox: Inbox,
        sink: Sink,
        *,
        session: str,
        told: Callable[[str], None],
        loaded: Callable[[Exception | None], None] = lambda error: None,
        processed: Processed = lambda stream, seconds, waiting: None,
        make: Make = made,
        replacement: bool = False,
    ) -> None:
        self._replacement = replacement
        self.stream, self.settings = stream, settings
        self._inbox, self._sink, self._told = inbox, sink, told
        self._loaded, self._processed, self._make = loaded, processed, make
        self._session, self._pipelines = session, 0
        self._pipeline: Pipeline | None = None
        self._stopping = threading.Event()
        self._pulse, self._at_frame, self._left = Pulse(), False, False
        self._wait_s, self._sound_at = FIRST_WAIT_S, 0.0
        self._well = True
        self._arrived = 0.0
        self._traces = _Traces(stream)
        self._previews = PreviewMaker(stream, sink)
        self._thread = threading.Thread(target=self._run, name=f"analysis of {stream}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def hurry(self) -> None:
        """The service is ending: wait for nothing any more. The source is to close the mailbox."""
        self._stopping.set()

    def stuck_s(self) -> float:
        """For how many seconds it has been at one frame; to be called every `heartbeat.LOOK_S`, on one thread."""
        if not self._at_frame:
            self._pulse.beat()
        return self._pulse.silent_s()

    def leave(self) -> None:
        """Another has taken its place: it takes no frame any more and hands nothing over."""
        self._left = True

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, which comes once the mailbox is closed and empty; False where it did not come in time.

        One that never started has ended.
        """
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if not self._replacement and not self._begun():
            return
        try:
            while not self._left and (arrival := self._inbox.get()) is not None:
                self._take(arrival)
            self._end()
        except Exception as error:  # a defect of ours: reported, and no other source feels it
            log.debug("the analysis of %s has ended", self.stream, exc_info=error)
            self._told(f"the analysis has ended ({_named(error)})")
            self._inbox.abandon()
        finally:
            self._close()

    def _begun(self) -> bool:
        """Make the first pipeline and report it; False where it cannot be made."""
        try:
            self._renew()
        except Exception as error:  # noqa: BLE001 - reported to the caller of `start`
            self._inbox.abandon()
            self._loaded(error)
            return False
        self._loaded(None)
        return True

    def _take(self, arrival: Arrival) -> None:
        if self._pipeline is None and not self._retry():
            return
        self._arrived = arrival.arrived
        self._at_frame = True
        try:
            self._analyse(arrival)
        except Exception as error:  # noqa: BLE001 - whatever breaks one frame's analysis, the source goes on
            if not self._left:
                self._failed(error)
            return
        finally:
            self._at_frame = False
            self._pulse.beat()
        if not self._well and arrival.arrived >= self._sound_at:
            self._well, self._wait_s = True, FIRST_WAIT_S
            self._told("")

    def _analyse(self, arrival: Arrival) -> None:
        pipeline, frame, began = self._pipeline, arrival.frame, time.monotonic()
        assert pipeline is not None
        faces = pipeline.locate(frame)
        events = [] if self._left else pipeline.advance(frame, faces)
        if self._left:
            return
        self._hand_over(events)
        self._tell_activities()
        signal = self._traces.note(arrival, faces, pipeline)
        if signal is not None:
            self._sink.signal(signal)
        self._previews.offer(arrival, faces)
        if not self._inbox:
            pipeline.recognize_ahead()
        if not self._inbox:
            pipeline.search_ahead(frame)
        self._processed(self.stream, time.monotonic() - began, len(self._inbox))

    def _hand_over(self, events: Sequence[Event]) -> None:
        if events:
            self._sink.decided([Decided(event, self._arrived) for event in events])

    def _tell_activities(self) -> None:
        if self._pipeline is not None:
            for activity in self._pipeline.activities():
                self._sink.activity(Acted(self.stream, activity))

    def _failed(self, error: Exception) -> None:
        """Tell it, save the events that were open, and do without a pipeline until the next frame."""
        log.debug("the analysis of %s failed", self.stream, exc_info=error)
        self._told(f"the analysis failed ({_named(error)}) and is restarted")
        self._well = False
        self._save_open()
        self._close()

    def _save_open(self) -> None:
        try:
            if self._pipeline is not None:
                self._hand_over(self._pipeline.flush())
                self._tell_activities()
        except Exception as error:  # noqa: BLE001 - it failed before; what it held open is lost
            log.warning("what was open in %s is lost: %s", self.stream, _named(error))

    def _retry(self) -> bool:
        """A new pipeline, after a wait; False where there is none yet, nor will be at the end."""
        if self._stopping.wait(self._wait_s):
            return False
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        try:
            self._renew()
        except Exception as error:  # noqa: BLE001 - reported; the next frame tries again
            self._well = False
            self._told(f"the analysis cannot be restarted: {_named(error)}")
            return False
        self._sound_at = time.monotonic() + SOUND_S
        return True

    def _renew(self) -> None:
        self._pipelines += 1
        self._pipeline = self._make(self.settings, self.stream, f"{self._session}.{self._pipelines}")

    def _end(self) -> None:
        """The source has ended: what is still open becomes final."""
        if self._left:
            return
        self._save_open()
        signal = self._traces.rest()
        if signal is not None:
            self._sink.signal(signal)

    def _close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = None


@dataclass(eq=False)
class _Trace:
    t: list[float] = field(default_factory=list)
    loudness: list[float] = field(default_factory=list)
    moved_px: list[float] = field(default_factory=list)
    doing: dict[ActivityKind, float] = field(default_factory=dict)


class _Traces:
    """Gathers every frame's motion, and lets go of it ten times a second."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._sent = float("-inf")
        self._newest: Arrival | None = None
        self._faces: dict[int, _Trace] = {}

    def note(self, arrival: Arrival, faces: Sequence[Face], pipeline: Pipeline) -> Signal | None:
        """Add a frame; returns the signal when it is due. A picture without a face has a signal too, an empty one."""
        self._newest = arrival
        seen, doing = pipeline.trace(), pipeline.doing()
        for id_ in (face.id for face in faces if face.id in seen):
            trace = self._faces.setdefault(id_, _Trace())
            loudness, moved = seen[id_]
            trace.t.append(arrival.frame.t)
            trace.loudness.append(loudness)
            trace.moved_px.append(moved)
            trace.doing = doing[id_]
        return self.rest() if arrival.arrived - self._sent >= 0.95 * SIGNAL_S else None

    def rest(self) -> Signal | None:
        """What was gathered since the last signal."""
        newest = self._newest
        if newest is None:
            return None
        self._sent, self._newest = newest.arrived, None
        traces = [(id_, trace) for id_, trace in sorted(self._faces.items())]
        self._faces = {}
        faces = tuple(FaceTrace(id_, tuple(x.t), tuple(x.loudness), tuple(x.moved_px), x.doing) for id_, x in traces)
        return Signal(self._stream, newest.frame.t, newest.at, faces)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
