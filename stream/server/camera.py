"""The camera of a browser: pictures that a page sends over a websocket become a source like any other.

page: consent, then pictures -> Feed.offer (event loop: checks, no decoding) -> queue -> Feed.get (worker thread: decodes)

A picture is 8 bytes, its media time in seconds (float64, big-endian), and a JPEG. An invalid one is counted and answered with
an error, one beyond the rate limit is dropped. The stream ends with the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from engine.errors import ApexError, InputError
from engine.types import U8, Frame
from stream import protocol
from stream.analysis.session import Session
from stream.messages import Arrival, SourceState, SourceStatus
from stream.queues import BoundedQueue, ClosedError
from stream.server.access import RateLimit
from stream.server.connection import Connection
from stream.sources.clock import SlowRate

MAX_BYTES = 512 * 1024
MAX_SIDE = 1280
MAX_SCANS = 16
"""Scans of a progressive JPEG, which usually has ten. Each costs 1.2 ms at the largest size, however few bytes it takes."""
MAX_PER_S = 60.0
WAITING = 2
"""Pictures that may wait for the worker; the oldest is dropped."""
CONSENT_S = 10.0
STATUS_S = 1.0
MEASURED_S = 0.5
"""The shortest time over which the frame rate is measured."""
STALLED_S = 5.0
_TIME = struct.Struct(">d")
_LATEST = 1e9
_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_DECODED = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive, all Huffman-coded; browsers produce nothing else."""
_SCAN = b"\xff\xda"
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True, eq=False)
class _Picture:
    t: float
    jpeg: bytes
    arrived: float
    at: float


class Feed:
    """The pictures of one browser: `offer` on the event loop, `get` on the worker's thread, as from a queue of arrivals.

    count is called with the outcome of each picture: taken, dropped or broken. clock is in seconds, as `time.monotonic`.
    """

    def __init__(
        self, name: str, *, count: Callable[[str], None] = lambda _: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._count, self._clock = count, clock
        self._queue: BoundedQueue[_Picture] = BoundedQueue(WAITING, drop_oldest=True)
        self._rate = RateLimit(MAX_PER_S, clock=clock)
        self._t = -math.inf
        self._index = 0
        self._taken = self._too_many = self._broken = self._unreadable = 0
        self._size = (0, 0)
        self._since = time.time()
        self._newest = self._status_at = clock()
        self._taken_before = 0
        self._slow_rate = SlowRate()

    def offer(self, message: bytes) -> None:
        """Accept a picture as received. Raises InputError where it is invalid, ClosedError where none is read any more."""
        if not self._rate.take():
            self._too_many += 1
            self._count("dropped")
            return
        try:
            picture, self._size = self._read(message)
        except InputError:
            self._broken += 1
            self._count("broken")
            raise
        self._t, self._newest = picture.t, picture.arrived
        self._taken += 1
        self._count("taken")
        self._queue.put(picture)

    def get(self, timeout: float | None = None) -> Arrival | None:
        """The next picture, decoded; None at the end. Raises TimeoutError where none came in time."""
        while (picture := self._queue.get(timeout)) is not None:
            pixels = _decoded(picture.jpeg)
            if pixels is None:
                self._unreadable += 1
                self._count("broken")
                continue
            decoded = Frame(self._index, picture.t, pixels, layout="rgb")
            self._index += 1
            return Arrival(decoded, picture.arrived, picture.at)
        return None

    def close(self) -> None:
        """No more pictures come; those that wait can still be read."""
        self._queue.close()

    def abandon(self) -> None:
        """No more pictures are read."""
        self._queue.abandon()

    @property
    def dropped(self) -> int:
        """Pictures beyond the rate limit, and those replaced by newer ones."""
        return self._too_many + self._queue.dropped

    def __len__(self) -> int:
        return len(self._queue)

    def status(self, state: SourceState | None = None) -> SourceStatus:
        """The camera's status; fps is measured since the last one. To be called on the event loop."""
        now = self._clock()
        passed, taken = now - self._status_at, self._taken - self._taken_before
        self._status_at, self._taken_before = now, self._taken
        unusable, fps = self._broken + self._unreadable, taken / passed if passed > 0 else 0.0
        slow = self._slow_rate(fps if passed >= MEASURED_S else 0.0)
        waiting: SourceState = "live" if now - self._newest < STALLED_S else "stalled"
        return SourceStatus(
            stream=self.name,
            kind="browser",
            state=state or (waiting if self._taken else "starting"),
            detail=f"{unusable} pictures could not be used" if unusable else slow,
            fps=fps,
            frames=self._taken,
            drops=self.dropped,
            width=self._size[0],
            height=self._size[1],
            since=self._since,
        )

    def _read(self, message: bytes) -> tuple[_Picture, tuple[int, int]]:
        if not _TIME.size < len(message) <= MAX_BYTES + _TIME.size:
            raise InputError(f"a picture is 8 bytes of time and a JPEG of up to {MAX_BYTES // 1024} KiB")
        (t,) = _TIME.unpack_from(message)
        if not (0 <= t < _LATEST and t > self._t):
            raise InputError("the time of a picture is in seconds and later than that of the one before")
        jpeg = message[_TIME.size :]
        size = jpeg_size(jpeg)
        if size is None or not 0 < max(size) <= MAX_SIDE or not min(size):
            raise InputError(f"a picture is a JPEG of at most {MAX_SIDE} x {MAX_SIDE} pixels")
        if jpeg.count(_SCAN) > MAX_SCANS:  # every scan starts with these two bytes
            raise InputError(f"a picture is a JPEG of at most {MAX_SCANS} scans")
        return _Picture(t, jpeg, self._clock(), time.time()), size


def _decoded(jpeg: bytes) -> U8 | None:
    """RGB [H, W, 3], or None where the JPEG is damaged beyond reading."""
    try:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG's frame header (ITU-T T.81, B.2.2) claims, without decoding.

    None where there is none, or one of a coding (lossless, arithmetic) that is not decoded here.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return (int(width), int(height)) if marker in _DECODED else None
        if marker == 0xFF:
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return None


async def serve_camera(connection: Connection, session: Session, *, count: Callable[[str], None] = lambda _: None) -> None:
    """Serve a page that shows its camera, until either side closes; count is called with the outcome of each picture.

    Adding a stream may load a network and removing it joins a thread: both run off the event loop.
    """
    try:
        async with asyncio.timeout(CONSENT_S):
            offer = protocol.read_camera(await connection.recv())
        feed = Feed(offer.name, count=count)
        await asyncio.to_thread(session.add_browser, offer.name, feed)
    except ConnectionClosed:
        return
    except TimeoutError:
        connection.fail("message", CloseCode.POLICY_VIOLATION, "no consent received")
        return
    except ApexError as error:
        connection.write(protocol.error("camera", error).encoded)
        await connection.close(CloseCode.POLICY_VIOLATION, "the camera was not accepted")
        return
    statuses = asyncio.create_task(_send_statuses(connection, feed, session))
    try:
        await _receive_pictures(connection, feed)
    finally:
        feed.close()
        statuses.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await statuses
        await asyncio.shield(asyncio.to_thread(session.remove_browser, offer.name))


async def _receive_pictures(connection: Connection, feed: Feed) -> None:
    with contextlib.suppress(ConnectionClosed, ClosedError):
        async for message in connection:
            try:
                feed.offer(message if isinstance(message, bytes) else b"")
            except InputError as error:
                connection.write(protocol.error("picture", error).encoded)


async def _send_statuses(connection: Connection, feed: Feed, session: Session) -> None:
    while True:
        status = feed.status()
        session.report(status)
        connection.write(protocol.status(status).encoded)
        await asyncio.sleep(STATUS_S)
