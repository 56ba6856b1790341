"""One source, watched over: connected, read, connected again for ever, and its state told.

    starting ──> live ──> stalled ──┐        stalled       no picture for stall_s seconds
        │          │                │        reconnecting  the connection ended or failed, or none came about
        └──────────┴──> reconnecting ──> live              it is tried again for ever
                   └──> ended                ended         a file or a pattern came to its end, or the capture was stopped

A camera that sends the very same picture for stall_s seconds has stalled too, and stays so until its picture changes; it is
connected again for that once.

Two threads serve a source: the link's reads and never waits for anybody else, this one gives each picture its place in time and
in order and hands it on. It alone touches what is below; other threads see `status` and `stop`.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from engine.types import Frame
from stream.messages import Arrival, SourceState, SourceStatus
from stream.queues import BoundedQueue, ClosedError
from stream.settings import SourceSettings
from stream.sources.address import parse_address
from stream.sources.clock import GAP_S, SlowRate, Timeline
from stream.sources.link import OPEN_S, Link

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 2.0
REFUSED_WAIT_S = 30.0
"""Before a source is tried again that was refused for what it is."""

STATUS_S = 1.0
"""How often figures are told while nothing changes."""

RATE_S = 2.0
"""The time over which frames a second are measured."""

KEY_PICTURE_S = 30.0
"""Longest wait for a first picture while packets come: a stream joined in the middle is nothing until its next key picture."""

READ_MARGIN_S = 1.0
"""How much longer FFmpeg waits than this module does, so that a stall is told as one."""

SAMPLE_STEP = 8
"""Every eighth pixel along both sides is compared with the picture before."""

MOST_LEFT_BEHIND = 2
"""Abandoned connections that may be ending while another is tried."""

READER_END_S = 1.0
"""How long stopping waits for a connection that hangs."""


log = logging.getLogger(__name__)


class BackOff:
    """Seconds to wait before each attempt: from 0.2 doubling to 2, each a quarter more or less by chance."""

    def __init__(self) -> None:
        self._next = FIRST_WAIT_S

    def next(self) -> float:
        """The wait before the next attempt."""
        wait = self._next
        self._next = min(2 * wait, LONGEST_WAIT_S)
        return min(wait * random.uniform(0.75, 1.25), LONGEST_WAIT_S)

    def reset(self) -> None:
        """Begin again with the shortest."""
        self._next = FIRST_WAIT_S


class Capture:
    """A source's way into its mailbox, which keeps the newest for a live source and everything for a file.

    told gets the source's status on each change and about once a second, on this capture's thread. The mailbox is closed when
    the source has ended. Raises SourceError where the settings name no possible source, ConfigError for a missing password.
    """

    def __init__(self, source: SourceSettings, mailbox: BoundedQueue[Arrival], told: Callable[[SourceStatus], None]) -> None:
        self.address = parse_address(source.url, transport=source.transport, username=source.username, password=source.secret())
        self._settings = source
        self._mailbox = mailbox
        self._told = told
        self._stopping = threading.Event()
        self._link: Link | None = None  # set by the capture's thread, ended by any
        self._status = SourceStatus(source.name, self.address.kind, "starting", since=time.time())  # replaced as a whole
        self._left: list[Link] = []
        self._ending, self._over = "", False  # what is to be said of the end, and whether the source came to it
        self._timeline = Timeline(follows_wall=self.address.live)
        self._pace = Pace(self._stopping)
        self._back_off = BackOff()
        self._recent: deque[float] = deque()
        self._reported = -math.inf
        self._slow_rate = SlowRate()
        self._away = False
        self._stillness = Stillness()
        self._thread = threading.Thread(target=self._run, name=f"capture {source.name}", daemon=True)

    @property
    def status(self) -> SourceStatus:
        """How the source is doing."""
        return self._status

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self, timeout: float = 3.0) -> None:
        """End it and close the mailbox, within timeout seconds; may be called again.

        A connection that hangs is waited for up to a second; its thread then ends by itself, within the source's stall_s.
        """
        until = time.monotonic() + timeout
        self._stopping.set()
        self._mailbox.close()
        if self._link is not None:
            self._link.abandon()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        left, self._left = self._left, []
        for link in left:
            link.join(max(0.0, min(READER_END_S, until - time.monotonic())))

    def _run(self) -> None:
        try:
            self._tell("starting")
            while not self._stopping.is_set() and not self._over:
                self._attempt()
        except ClosedError:
            return
        finally:
            self._mailbox.close()
            self._tell("ended", "" if self._stopping.is_set() else self._ending)

    def _attempt(self) -> None:
        """One connection, from its making to its end, and the wait for the next; no error but ClosedError ends the source."""
        stalled = False
        try:
            link = self._link = Link(self.address, read_s=self._settings.stall_s + READ_MARGIN_S)
            try:
                stalled = self._follow(link)
            finally:
                link.abandon()
                self._left = [left for left in (*self._left, link) if left.alive]
            self._ending, self._over = link.detail, link.over and not self._settings.loop
            again, refused = link.over, link.refused
        except ClosedError:
            raise
        except Exception as error:  # a defect of ours must not take a camera away for good
            self._ending = f"{self.address.shown} was left after an unforeseen error ({type(error).__name__}); the log has more"
            self._over, again, refused = not self.address.live, False, False  # a recording would tell all its events again
            log.exception("%s: unforeseen error", self._settings.name)
        if not (self._stopping.is_set() or self._over or again):
            self._wait_for_next_attempt(self._ending, stalled=stalled, refused=refused)

    def _follow(self, link: Link) -> bool:
        """Hand on what the link brings until it ends, stalls or the capture stops; whether it stalled."""
        began, packets, first = time.monotonic(), 0, True
        limit = None if self.address.kind == "file" else self._settings.stall_s
        while not self._stopping.is_set():
            try:
                arrival = link.frames.get(limit)
            except TimeoutError:
                before, packets = packets, link.packets
                if first and self._may_yet_come(time.monotonic() - began, packets - before, packets):
                    continue
                return True
            if arrival is None:
                return False
            stalls = self.address.live and not link.paced and self._stillness.stalls(arrival, self._settings.stall_s)
            self._hand_on(arrival, link, first=first)
            first = False
            if stalls:
                return True
        return False

    @staticmethod
    def _may_yet_come(waited: float, new: int, packets: int) -> bool:
        """Whether a connection without a picture so far is given more time: it is being made, or its packets come."""
        return waited < KEY_PICTURE_S if new else not packets and waited < 3 * OPEN_S

    def _hand_on(self, arrival: Arrival, link: Link, *, first: bool) -> None:
        """Give the frame its number and its time, and put it into the mailbox when it is due."""
        count = self._status.frames
        gap = arrival.frame.gap or (first and count > 0)
        t = self._timeline.place(arrival.frame.t, arrival.arrived, gap=gap)
        frame = replace(arrival.frame, index=count, t=t, gap=gap)
        arrived, at = arrival.arrived, arrival.at
        if link.paced:
            self._pace.wait(t, gap=gap)
            arrived, at = time.monotonic(), time.time()
        self._mailbox.put(Arrival(frame, arrived, at))
        self._count(frame, arrived)

    def _count(self, frame: Frame, arrived: float) -> None:
        recent = self._recent
        recent.append(arrived)
        while recent[0] < arrived - RATE_S:
            recent.popleft()
        was, back, self._away = self._status, self._away, False
        self._back_off.reset()
        self._status = replace(
            was, frames=frame.index + 1, width=frame.width, height=frame.height, reconnects=was.reconnects + back
        )
        state: SourceState = "stalled" if self._stillness.known else "live"
        if was.state != state or arrived - self._reported >= STATUS_S:
            self._reported = arrived
            self._tell(state, self._silence if state == "stalled" else "")

    @property
    def _silence(self) -> str:
        """Why the source has stalled."""
        seconds = f"{self._settings.stall_s:g} s"
        return f"the picture has not changed for {seconds}" if self._stillness.known else f"no picture came for {seconds}"

    def _wait_for_next_attempt(self, detail: str, *, stalled: bool, refused: bool) -> None:
        self._away = self._status.frames > 0
        self._recent.clear()
        silence = self._silence
        self._tell("stalled" if stalled else "reconnecting", silence if stalled else detail)
        self._stopping.wait(REFUSED_WAIT_S if refused else self._back_off.next())
        while len(self._left) >= MOST_LEFT_BEHIND and not self._stopping.is_set():
            self._stopping.wait(FIRST_WAIT_S)
            self._left = [left for left in self._left if left.alive]
        if stalled:
            self._tell("reconnecting", f"{silence}; it is connected anew")

    def _tell(self, state: SourceState, detail: str = "") -> None:
        was, recent = self._status, self._recent
        span = recent[-1] - recent[0] if len(recent) > 1 else 0.0
        fps = (len(recent) - 1) / span if span and state == "live" else 0.0
        slow = self._slow_rate(fps if span >= RATE_S / 2 else 0.0)
        self._status = replace(
            was,
            state=state,
            detail=slow if state == "live" and not detail else detail,
            fps=round(fps, 2),
            drops=self._mailbox.dropped,
            since=was.since if state == was.state else time.time(),
        )
        self._told(self._status)


class Stillness:
    """Whether a source's picture stands still: no camera sends the very same one twice, unless it or what lies between hangs.

    known says that it was said already of the picture that still stands.
    """

    def __init__(self) -> None:
        self.known = False
        self._seen = b""
        self._since = 0.0

    def stalls(self, arrival: Arrival, limit_s: float) -> bool:
        """Whether the picture has been the same for so long, said once until it changes."""
        frame = arrival.frame
        seen = frame.grey[::SAMPLE_STEP, ::SAMPLE_STEP].tobytes()
        if seen != self._seen:
            self.known, self._seen, self._since = False, seen, arrival.arrived
        if self.known or arrival.arrived - self._since < limit_s:
            return False
        self.known = True
        return True


class Pace:
    """Plays pictures that are there already in real time, each when its time has come."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._begin: float | None = None

    def wait(self, t: float, *, gap: bool) -> None:
        """Return when a frame of the time t is due; a hole in time, marked as a gap, is not waited out."""
        now = time.monotonic()
        if self._begin is None or (gap and self._begin + t - now > GAP_S):
            self._begin = now - t
        self._stopping.wait(max(0.0, self._begin + t - now))
