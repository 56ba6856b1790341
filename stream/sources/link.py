"""One connection to a source: a thread that opens it and reads until it ends, fails, or nobody takes its frames any more.

FFmpeg cannot be interrupted from outside. Whoever has waited long enough abandons the link, and may open another at once; the
thread left behind notices within the timeouts of `av.open`, closes what it holds, and ends.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import av.error

from engine.errors import SourceError
from engine.types import Frame
from stream.messages import Arrival
from stream.queues import BoundedQueue, ClosedError
from stream.sources.address import Address
from stream.sources.clock import SourceClock
from stream.sources.decoding import LIMITS, TOO_LARGE, Decoding, picture_track, rate_of
from stream.sources.file import open_video
from stream.sources.outbound import MOST_AHEAD, Outbound, guards

_PICTURES = "mjpeg"
"""FFmpeg's name of JPEG pictures one behind the other, whatever lies between them."""

_WITHOUT_CLOCK = {"mpjpeg", "mjpeg", "h264", "hevc"}
"""Formats whose pictures come without times; FFmpeg counts them at a rate that it makes up."""

OPEN_S = 5.0
"""How long a source may take to answer, and as long again to show what it sends."""

_QUEUED = 2

_SAID = {
    errno.ECONNREFUSED: "nothing answers there (connection refused); is it switched on, and the port right?",
    errno.EHOSTUNREACH: "there is no way to that host",
    errno.ENETUNREACH: "there is no way to that network",
    errno.ETIMEDOUT: "it did not answer in time",
    errno.ENOENT: "there is no such device or file",
    errno.ENODEV: "there is no such device",
    errno.EBUSY: "another program is using it",
    errno.EACCES: "it may not be read; check its permissions",
    errno.EPERM: "it may not be read; check its permissions",
}


class Link:
    """A connection being made, then read; `frames` is where its pictures come out, closed when it has ended.

    detail says in one sentence why it ended; over is whether all there is was read, as at the end of a file; paced is whether
    its pictures come faster than they are to be shown. open_s and read_s are how long FFmpeg waits for an answer and for more.
    """

    def __init__(self, address: Address, *, read_s: float, open_s: float = OPEN_S) -> None:
        self.frames: BoundedQueue[Arrival] = BoundedQueue(_QUEUED)
        self.detail = ""
        self.over = False
        self.paced = address.paced
        self._address = address
        self._open_s, self._read_s = open_s, read_s
        self._decoding: Decoding | None = None
        self._outbound: Outbound | None = None
        self._led = ""  # the host it was not to be led to
        self._flooded = False  # it sent and sent, and no picture was in it
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"read {address.shown}", daemon=True)
        self._thread.start()

    @property
    def packets(self) -> int:
        """How many packets came so far."""
        decoding = self._decoding
        return 0 if decoding is None else decoding.read

    @property
    def refused(self) -> bool:
        """Whether it ended because of what the source is, which another attempt will hardly find changed."""
        return bool(self._led) or self._flooded or (self._decoding is not None and self._decoding.too_large)

    @property
    def alive(self) -> bool:
        """Whether the thread still holds the source."""
        return self._thread.is_alive()

    def abandon(self) -> None:
        """Take no more frames from it; its thread ends by itself."""
        self.frames.abandon()

    def join(self, timeout: float) -> None:
        """Wait for the thread, at most timeout seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._read()
        except ClosedError:
            return
        except SourceError as error:
            self.detail = str(error)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is this source's matter, and told as its state
            self.detail = self._told(error)
        finally:
            if self._led:
                led = f"leads to {self._led}, a host of a private network"
                self.over, self.detail = False, f"{self._address.shown} {led}; name that as the source, if it is meant"
            elif self._flooded:
                size = f"{MOST_AHEAD >> 20} MiB"
                self.over, self.detail = False, f"{self._address.shown} sent {size} without a picture in them; is it a camera?"
            self.frames.close()

    def _read(self) -> None:
        """Hand on all there is. What HTTP sends in parts, as cameras do, but not as parts are written (no boundary before the
        first one, no headers), is read once more as pictures with something between them."""
        try:
            self._hand_on()
        except av.error.InvalidDataError:
            ended = self._outbound is not None and (self._outbound.refused or self._outbound.flooded)
            if ended or self._address.kind != "http" or (self._decoding is not None and self._decoding.frames):
                raise
            self._hand_on(_PICTURES)

    def _hand_on(self, form: str | None = None) -> None:
        with self._opened(form) as frames:
            for frame in frames:
                self.frames.put(Arrival(frame, time.monotonic(), time.time()))

    @contextmanager
    def _opened(self, form: str | None) -> Iterator[Iterable[Frame]]:
        if self._address.kind == "file":
            with open_video(Path(self._address.target)) as video:
                yield video
                self.over, self.detail = True, video.problem or ""
            return
        address, limits = self._address, (self._open_s, self._read_s)
        with (
            self._guarded() as options,
            av.open(address.target, format=form or address.format, options=options, timeout=limits) as container,
        ):
            recorded = address.kind == "http" and bool(container.duration)
            self.paced |= recorded or container.format.name == "hls"
            self._decoding = decoding = _decoding(address, container)
            timeless = container.format.name in _WITHOUT_CLOCK
            yield map(_timed_by_arrival, decoding) if timeless else decoding
            if decoding.too_large:
                raise SourceError(f"{address.shown}: {TOO_LARGE}")
            if decoding.failure is not None:
                raise decoding.failure
            if container.format.name == _PICTURES and not decoding.frames:
                raise SourceError(f"{address.shown} sends no pictures that can be read")
            self.over = decoding.frames > 0 and (recorded or address.kind == "pattern")
            self.detail = "" if self.over else f"{address.shown} ended the stream"

    @contextmanager
    def _guarded(self) -> Iterator[dict[str, str]]:
        """The options for FFmpeg; meanwhile what it fetches by HTTP goes where the source may lead, and nowhere else."""
        options, host = {**self._address.options, **LIMITS}, guards(self._address.target)
        if not host:
            yield options
            return
        with Outbound(host, lambda: self.packets) as self._outbound:
            try:
                yield {**options, "http_proxy": self._outbound.address, "http_persistent": "0", "http_multiple": "0"}
            finally:
                self._led = self._led or self._outbound.refused
                self._flooded |= self._outbound.flooded

    def _told(self, error: Exception) -> str:
        """What an error of FFmpeg's means for this source, in a sentence without credentials."""
        shown, outbound = self._address.shown, self._outbound
        error = error if outbound is None else outbound.failure or error
        if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
            return f"{shown} refuses the user name or password"
        if isinstance(error, av.error.HTTPNotFoundError):
            return f"{shown}: there is no such stream at that host"
        if self._decoding is None and time.monotonic() - self._began >= self._open_s:
            return f"{shown} did not answer within {self._open_s:g} s"
        if isinstance(error, av.error.ExitError):
            return f"{shown} sent nothing for {self._read_s:g} s"
        said = _SAID.get(getattr(error, "errno", None) or 0)
        if said is not None:
            return f"{shown}: {said}"
        return f"{shown} cannot be read ({self._address.redact(getattr(error, 'strerror', None) or type(error).__name__)})"


def _decoding(address: Address, container: av.container.InputContainer) -> Decoding:
    track = picture_track(container)
    if track is None:
        raise SourceError(f"{address.shown} has no pictures that can be decoded")
    track.thread_type = "SLICE"  # decoding whole pictures side by side would hold each back for as many
    rate = rate_of(track)
    return Decoding(container, track, SourceClock(1 / rate if rate else None))


def _timed_by_arrival(frame: Frame) -> Frame:
    return replace(frame, t=time.monotonic())
