"""Live sources read by FFmpeg: webcams, network streams and test patterns."""

from __future__ import annotations

import errno
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import av
import av.error

from engine.errors import SourceError
from engine.types import Frame
from stream.sources.address import Address, RefusedError, Timeouts
from stream.sources.clock import SourceClock
from stream.sources.decoding import LIMITS, TOO_LARGE, Decoding, picture_track, rate_of
from stream.sources.egress import MAX_AHEAD, EgressProxy, proxied_host

_JPEGS = "mjpeg"
"""FFmpeg's demuxer for consecutive JPEG pictures with anything between them."""

_WITHOUT_CLOCK = {"mpjpeg", "mjpeg", "h264", "hevc"}
"""Formats without time stamps; FFmpeg makes them up from a default rate."""

_REASONS = {
    errno.ECONNREFUSED: "nothing answers there (connection refused); is it switched on, and is the port right?",
    errno.EHOSTUNREACH: "there is no route to that host",
    errno.ENETUNREACH: "there is no route to that network",
    errno.ETIMEDOUT: "it did not answer in time",
    errno.ENOENT: "there is no such device or file",
    errno.ENODEV: "there is no such device",
    errno.EBUSY: "another program is using it",
    errno.EACCES: "it may not be read; check its permissions",
    errno.EPERM: "it may not be read; check its permissions",
}


class FfmpegSource:
    """The frames of a live source, see `stream.sources.address.Source`. It is opened when its first frame is asked for."""

    def __init__(self, address: Address, timeouts: Timeouts) -> None:
        self.paced = address.paced
        self.finished = False
        self.problem: str | None = None
        self._address, self._timeouts = address, timeouts
        self._decoding: Decoding | None = None
        self._proxy: EgressProxy | None = None
        self._began = time.monotonic()
        self._frames = self._read()

    @property
    def packets(self) -> int:
        """How many packets were read so far."""
        return 0 if self._decoding is None else self._decoding.packets

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def close(self) -> None:
        """End the connection."""
        self._frames.close()

    def _read(self) -> Generator[Frame]:
        """All frames. Multipart HTTP as some cameras write it (no boundary before the first part, no headers) is invalid to
        FFmpeg; it is read again as consecutive pictures."""
        try:
            try:
                yield from self._read_as(self._address.format)
            except av.error.InvalidDataError:
                if self._address.kind != "http" or self._refusal() or (self._decoding is not None and self._decoding.frames):
                    raise
                yield from self._read_as(_JPEGS)
        except Exception as error:
            if self._refusal():
                raise RefusedError(self._refusal()) from error
            if isinstance(error, SourceError):
                raise
            raise SourceError(self._explain(error)) from error
        if self._refusal():
            raise RefusedError(self._refusal())

    def _read_as(self, form: str | None) -> Iterator[Frame]:
        address = self._address
        with (
            self._options() as options,
            av.open(address.target, format=form, options=options, timeout=self._timeouts) as container,
        ):
            track = picture_track(container)
            if track is None:
                raise SourceError(f"{address.shown} has no pictures that can be decoded")
            track.thread_type = "SLICE"  # frame threads would delay each picture by as many
            recorded = address.kind == "http" and bool(container.duration)
            self.paced |= recorded or container.format.name == "hls"
            rate = rate_of(track)
            decoding = self._decoding = Decoding(container, track, SourceClock(1 / rate if rate else None))
            without_clock = container.format.name in _WITHOUT_CLOCK
            yield from (replace(frame, t=time.monotonic()) for frame in decoding) if without_clock else decoding
            if decoding.too_large:
                raise RefusedError(f"{address.shown}: {TOO_LARGE}")
            if decoding.failure is not None:
                raise decoding.failure
            if container.format.name == _JPEGS and not decoding.frames:
                raise SourceError(f"{address.shown} sends no pictures that can be read")
            self.finished = decoding.frames > 0 and (recorded or address.paced)
            self.problem = None if self.finished else f"{address.shown} ended the stream"

    @contextmanager
    def _options(self) -> Iterator[dict[str, str]]:
        """The options for FFmpeg; within the block, HTTP goes through the proxy."""
        options, host = {**self._address.options, **LIMITS}, proxied_host(self._address.target)
        if not host:
            yield options
            return
        with closing(EgressProxy(host, lambda: self.packets)) as self._proxy:
            yield {**options, "http_proxy": self._proxy.address, "http_persistent": "0", "http_multiple": "0"}

    def _refusal(self) -> str:
        """Why the proxy ended the connection, in one sentence; "" where it did not."""
        shown, proxy = self._address.shown, self._proxy
        if proxy is not None and proxy.refused:
            return f"{shown} leads to {proxy.refused}, a host of a private network; use that as the source if it is intended"
        if proxy is not None and proxy.flooded:
            return f"{shown} sent {MAX_AHEAD >> 20} MiB without a picture in them; is it a camera?"
        return ""

    def _explain(self, error: Exception) -> str:
        """What an error of FFmpeg's means for this source, in a sentence without credentials."""
        shown, proxy = self._address.shown, self._proxy
        error = error if proxy is None else proxy.failure or error
        if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
            return f"{shown} refuses the user name or password"
        if isinstance(error, av.error.HTTPNotFoundError):
            return f"{shown}: there is no such stream at that host"
        if self._decoding is None and time.monotonic() - self._began >= self._timeouts.open_s:
            return f"{shown} did not answer within {self._timeouts.open_s:g} s"
        if isinstance(error, av.error.ExitError):
            return f"{shown} sent nothing for {self._timeouts.read_s:g} s"
        reason = _REASONS.get(getattr(error, "errno", None) or 0)
        if reason is not None:
            return f"{shown}: {reason}"
        return f"{shown} cannot be read ({self._address.redact(getattr(error, 'strerror', None) or type(error).__name__)})"
