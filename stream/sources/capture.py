"""One source under supervision: connected, read, reconnected without limit, and its state reported.

    starting ──> live ──> stalled ──┐        stalled       no picture for stall_s seconds
        │          │                │        reconnecting  the connection ended or failed, or could not be made
        └──────────┴──> reconnecting ──> live              it is retried without limit
                   └──> ended                ended         a file or a pattern came to its end, or the capture was stopped

A camera that sends the very same picture for stall_s seconds has stalled too, until its picture changes; it is reconnected for
that once.

Two threads serve a source: the connection's only reads; the capture's gives each frame its number and time and puts it into the
queue. The state below belongs to the latter; other threads use `status` and `stop`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from engine.types import Frame
from stream.backoff import Backoff
from stream.messages import Arrival, SourceState, SourceStatus
from stream.queues import BoundedQueue, ClosedError
from stream.sources.clock import GAP_S, SlowRate, Timeline
from stream.sources.connection import OPEN_S, Connection
from stream.sources.settings import SourceSettings

FIRST_WAIT_S, LONGEST_WAIT_S, JITTER = 0.2, 2.0, 0.25
"""Backoff before a reconnect."""

REFUSED_WAIT_S = 30.0
"""Wait before a retry of a source that was refused for what it is."""

STATUS_S = 1.0
"""How often figures are reported while nothing changes."""

RATE_S = 2.0
"""The time over which frames a second are measured."""

KEYFRAME_S = 30.0
"""Longest wait for a first picture while packets come: a stream joined in the middle cannot be decoded before a keyframe."""

READ_MARGIN_S = 1.0
"""How much longer FFmpeg waits than this module does, so that a stall is reported as one."""

SAMPLE_STEP = 8
"""Every eighth pixel along both axes is compared with the previous picture."""

MAX_ABANDONED = 2
"""Abandoned connections that may still be ending when another is opened."""

JOIN_S = 1.0
"""How long stopping waits for a connection that hangs."""

log = logging.getLogger(__name__)


class Capture(threading.Thread):
    """A thread that reads a source into its queue, which keeps the newest frames of a live source and all of a file.

    report is called with the source's status on each change and about once a second, on this capture's thread. The queue is
    closed when the source has ended. Raises SourceError where the settings name no possible source, ConfigError for a missing
    password. Others may read status, which is replaced as a whole.
    """

    def __init__(self, source: SourceSettings, queue: BoundedQueue[Arrival], report: Callable[[SourceStatus], None]) -> None:
        super().__init__(name=f"capture {source.name}", daemon=True)
        self.address = source.address()
        self._settings, self._queue, self._report = source, queue, report
        self._stopping = threading.Event()
        self._connection: Connection | None = None  # set by the capture's thread, abandoned by any
        self.status = SourceStatus(source.name, self.address.kind, "starting", since=time.time())
        self._abandoned: list[Connection] = []
        self._detail, self._finished = "", False  # why the last connection ended, and whether that is the source's end
        self._timeline = Timeline(follows_wall=self.address.live)
        self._pace = Pace(self._stopping)
        self._backoff = Backoff(FIRST_WAIT_S, LONGEST_WAIT_S, jitter=JITTER)
        self._recent: deque[float] = deque()
        self._last_report = -math.inf
        self._slow_rate = SlowRate()
        self._reconnecting = False
        self._frozen = FrozenPicture()

    def stop(self, timeout: float = 3.0) -> None:
        """End it and close the queue, within timeout seconds; may be called again.

        A connection that hangs is waited for up to a second; its thread then ends by itself, within the source's stall_s.
        """
        until = time.monotonic() + timeout
        self._stopping.set()
        self._queue.close()
        if self._connection is not None:
            self._connection.frames.abandon()
        if self.ident is not None:
            self.join(timeout)
        abandoned, self._abandoned = self._abandoned, []
        for connection in abandoned:
            connection.join(max(0.0, min(JOIN_S, until - time.monotonic())))

    def run(self) -> None:
        """Connect and reconnect until the source has ended or is stopped."""
        try:
            self._set_state("starting")
            while not self._stopping.is_set() and not self._finished:
                self._attempt()
        except ClosedError:
            return
        finally:
            self._queue.close()
            self._set_state("ended", "" if self._stopping.is_set() else self._detail)

    def _attempt(self) -> None:
        """One connection, from opening to end, and the wait before the next; only ClosedError ends the source."""
        stalled = refused = looped = False
        try:
            connection = self._connection = Connection(self.address, read_s=self._settings.stall_s + READ_MARGIN_S)
            try:
                stalled = self._follow(connection)
            finally:
                connection.frames.abandon()
                self._abandoned = [other for other in (*self._abandoned, connection) if other.is_alive()]
            self._detail, refused = connection.detail, connection.refused
            looped = connection.finished and self._settings.loop
            self._finished = connection.finished and not looped
        except ClosedError:
            raise
        except Exception as error:  # a defect in this program must not end a camera for good
            self._detail = f"{self.address.shown} was closed by an unexpected error ({type(error).__name__}); see the log"
            self._finished = not self.address.live  # a recording would report all its events again
            log.exception("%s: unexpected error", self._settings.name)
        if not (self._stopping.is_set() or self._finished or looped):
            self._wait_for_retry(stalled=stalled, refused=refused)

    def _follow(self, connection: Connection) -> bool:
        """Deliver the connection's frames until it ends, stalls or the capture stops; whether it stalled."""
        began, packets, first = time.monotonic(), 0, True
        limit = self._settings.stall_s if self.address.live else None
        while not self._stopping.is_set():
            try:
                arrival = connection.frames.get(limit)
            except TimeoutError:
                before, packets = packets, connection.packets
                if first and _may_still_start(time.monotonic() - began, packets - before, packets):
                    continue
                return True
            if arrival is None:
                return False
            freezes = self.address.live and not connection.paced and self._frozen.detect(arrival, self._settings.stall_s)
            self._deliver(arrival, paced=connection.paced, first=first)
            first = False
            if freezes:
                return True
        return False

    def _deliver(self, arrival: Arrival, *, paced: bool, first: bool) -> None:
        """Give the frame its number and its time, and put it into the queue when it is due."""
        count = self.status.frames
        gap = arrival.frame.gap or (first and count > 0)
        t = self._timeline.place(arrival.frame.t, arrival.arrived, gap=gap)
        frame = replace(arrival.frame, index=count, t=t, gap=gap)
        arrived, at = arrival.arrived, arrival.at
        if paced:
            self._pace.wait(t, gap=gap)
            arrived, at = time.monotonic(), time.time()
        self._queue.put(Arrival(frame, arrived, at))
        self._count(frame, arrived)

    def _count(self, frame: Frame, arrived: float) -> None:
        recent = self._recent
        recent.append(arrived)
        while recent[0] < arrived - RATE_S:
            recent.popleft()
        was, returned, self._reconnecting = self.status, self._reconnecting, False
        self._backoff.reset()
        self.status = replace(
            was, frames=frame.index + 1, width=frame.width, height=frame.height, reconnects=was.reconnects + returned
        )
        state: SourceState = "stalled" if self._frozen.reported else "live"
        if was.state != state or arrived - self._last_report >= STATUS_S:
            self._last_report = arrived
            self._set_state(state, self._stall() if state == "stalled" else "")

    def _stall(self) -> str:
        """Why the source has stalled."""
        problem = "the picture has not changed" if self._frozen.reported else "no picture came"
        return f"{problem} for {self._settings.stall_s:g} s"

    def _wait_for_retry(self, *, stalled: bool, refused: bool) -> None:
        self._reconnecting = self.status.frames > 0
        self._recent.clear()
        if stalled:
            self._detail = self._stall()
        self._set_state("stalled" if stalled else "reconnecting", self._detail)
        self._stopping.wait(REFUSED_WAIT_S if refused else self._backoff.next())
        while len(self._abandoned) >= MAX_ABANDONED and not self._stopping.is_set():
            self._stopping.wait(FIRST_WAIT_S)
            self._abandoned = [connection for connection in self._abandoned if connection.is_alive()]
        if stalled:
            self._set_state("reconnecting", f"{self._detail}; reconnecting")

    def _set_state(self, state: SourceState, detail: str = "") -> None:
        was, recent = self.status, self._recent
        span = recent[-1] - recent[0] if len(recent) > 1 else 0.0
        fps = (len(recent) - 1) / span if span and state == "live" else 0.0
        slow = self._slow_rate(fps if span >= RATE_S / 2 else 0.0)
        self.status = replace(
            was,
            state=state,
            detail=slow if state == "live" and not detail else detail,
            fps=round(fps, 2),
            drops=self._queue.dropped,
            since=was.since if state == was.state else time.time(),
        )
        self._report(self.status)


def _may_still_start(waited: float, new: int, packets: int) -> bool:
    """Whether a connection without a picture so far gets more time: it is being opened, or packets come."""
    return waited < KEYFRAME_S if new else not packets and waited < 3 * OPEN_S


class FrozenPicture:
    """Detects a picture that does not change: no camera sends the very same one twice, unless it or a relay hangs.

    reported is whether that was detected for the current picture.
    """

    def __init__(self) -> None:
        self.reported = False
        self._sample = b""
        self._since = 0.0

    def detect(self, arrival: Arrival, limit_s: float) -> bool:
        """Whether the picture has been the same for limit_s seconds; True once until it changes."""
        sample = arrival.frame.grey[::SAMPLE_STEP, ::SAMPLE_STEP].tobytes()
        if sample != self._sample:
            self.reported, self._sample, self._since = False, sample, arrival.arrived
        if self.reported or arrival.arrived - self._since < limit_s:
            return False
        self.reported = True
        return True


class Pace:
    """Plays frames that are available at once in real time."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._start: float | None = None

    def wait(self, t: float, *, gap: bool) -> None:
        """Return when a frame of the time t, seconds, is due; a hole in time that is marked as a gap is skipped."""
        now = time.monotonic()
        if self._start is None or (gap and self._start + t - now > GAP_S):
            self._start = now - t
        self._stopping.wait(max(0.0, self._start + t - now))
