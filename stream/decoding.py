"""From an open container to frames: decoding, fields, times, and damage that is counted and passed over.

Recorded files (`source`) and connections to live sources (`link`) read through the same loop.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import av
import av.error
from av.stream import Disposition

from engine.types import Frame
from stream.clock import SourceClock
from stream.fields import Deinterlacer
from stream.pixels import upright_pixels

MOST_PIXELS = 8192 * 4352
"""The largest picture that is decoded: that of level 6.2, the highest of H.264 and of HEVC."""
LIMITS = {"max_pixels": str(MOST_PIXELS)}
"""For `av.open`, which decodes pictures to see what they are, and for decoders."""
TOO_LARGE = "its pictures are larger than any that are decoded here (8192 x 4352 pixels)"
REFUSED_AT_MOST = 3
"""Pictures in a row that the decoder refuses for their size before the source is given up; one may just be damaged."""


class Decoding:
    """The frames of a container's picture track, once, in order of presentation; its attributes tell how it went so far.

    errors counts packets that could not be decoded, damaged the broken pictures left out after the first good one; failure is
    what ended the reading before its end, None where nothing did; read counts packets; too_large says that it ended because its
    pictures are larger than MOST_PIXELS, none of which is decoded.
    """

    def __init__(self, container: av.container.InputContainer, track: av.VideoStream, clock: SourceClock) -> None:
        self.clock = clock
        self.start: float | None = None
        self.end: float | None = None
        self.size = (track.codec_context.width, track.codec_context.height)
        self.rotation = 0
        self.pixel_format = "unknown"
        self.frames = self.errors = self.damaged = self.read = 0
        self.failure: av.error.FFmpegError | None = None
        self.finished = False
        self.fields = Deinterlacer()
        self._container = container
        self._track = track
        self._lost = False
        self.too_large = self.size[0] * self.size[1] > MOST_PIXELS
        self._refused = 0
        track.codec_context.options = LIMITS

    def __iter__(self) -> Iterator[Frame]:
        for picture in self._pictures():
            if picture.is_corrupt:
                self.damaged += self.frames > 0
                self._lost = True
                continue
            for whole in self.fields.take(picture):
                yield self._frame(whole)
        for whole in self.fields.flush():
            yield self._frame(whole)
        self.finished = True

    def _pictures(self) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(self._track)
        while not self.too_large:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self.errors += 1
                self.failure = error
                yield from self._decoded(None)
                return
            self.read += 1
            if packet.size and packet.pts is not None and packet.time_base:
                self.clock.read_ahead(float(packet.pts * packet.time_base))
            yield from self._decoded(packet)

    def _decoded(self, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        try:
            pictures = list(self._track.decode(packet))
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.errors += 1
            self._lost = True
            sizeless = error.errno == errno.EINVAL and not self._track.codec_context.width  # as a decoder leaves it
            self._refused = self._refused + 1 if sizeless else 0
            self.too_large = self._refused >= REFUSED_AT_MOST
            return []
        self._refused = 0
        return pictures

    def _frame(self, picture: av.VideoFrame) -> Frame:
        layout, pixels = upright_pixels(picture)
        own = None if picture.pts is None or not picture.time_base else float(picture.pts * picture.time_base)
        t, gap = self.clock.stamp(own, lost=self._lost)
        frame = Frame(index=self.frames, t=t, pixels=pixels, layout=layout, gap=gap)
        self._lost = False
        self.rotation = picture.rotation
        self.pixel_format = picture.format.name
        self.size = (frame.width, frame.height)
        self.start = t if self.start is None else self.start
        self.end = t
        self.frames += 1
        return frame


def picture_track(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first track of moving pictures that can be decoded (the cover of a song is none); None where there is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    return None


def rate_of(track: av.VideoStream) -> float | None:
    """Pictures a second as declared; None where nothing is."""
    rate = track.average_rate or track.guessed_rate
    return float(rate) if rate else None
