"""From an open container to frames: decoding, fields, times, and damage that is counted and passed over.

Recorded files (`source`) and connections to live sources (`link`) read through the same loop.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import av
import av.error
from av.stream import Disposition

from engine.types import Frame
from stream.sources.clock import GAP_S, SourceClock
from stream.sources.fields import Deinterlacer
from stream.sources.lighting import Flashing
from stream.sources.pixels import Orientation, upright_pixels
from stream.sources.references import References

LATE_PICTURE_S = 30.0
"""Sound that begins this much before the first picture has another clock."""

STILL_SHARE = 0.05
"""A track of pictures that is this much shorter than another one is a cover or a thumbnail of it."""

MOST_PIXELS = 8192 * 4352
"""The largest picture that is decoded: that of level 6.2, the highest of H.264 and of HEVC."""
LIMITS = {"max_pixels": str(MOST_PIXELS)}
"""For `av.open`, which decodes pictures to see what they are, and for decoders."""
TOO_LARGE = "its pictures are larger than any that are decoded here (8192 x 4352 pixels)"
REFUSED_AT_MOST = 3
"""Pictures in a row that the decoder refuses for their size before the source is given up; one may just be damaged."""


class Decoding:
    """The frames of a container's picture track, once, in order of presentation; its attributes tell how it went so far.

    origin is where a player's clock begins. errors counts packets that could not be decoded, corrupt those that came damaged,
    damaged the broken pictures left out after the first good one, resized how often the pictures changed their size; failure is
    what ended the reading before its end, None where nothing did; read counts packets; too_large says that it ended because its
    pictures are larger than MOST_PIXELS, none of which is decoded.
    """

    def __init__(self, container: av.container.InputContainer, track: av.VideoStream, clock: SourceClock) -> None:
        self.clock = clock
        self.start: float | None = None
        self.origin = 0.0
        self.end: float | None = None
        self.size = (track.codec_context.width, track.codec_context.height)
        self.orientation = Orientation()
        self._rotation: float | None = None  # as PyAV reads it from the matrix
        self.pixel_format = "unknown"
        self.frames = self.errors = self.damaged = self.corrupt = self.resized = self.read = 0
        self.failure: av.error.FFmpegError | None = None
        self.finished = False
        self.fields = Deinterlacer()
        self.flashing = Flashing()
        self._container = container
        self._track = track
        self._lost = self._gap = False
        self._doubtful = False
        self._references = References(track.codec_context.name, track.codec_context.extradata)
        self._broken: tuple[float, float] | None = None  # times of the first and the last packet that shows a loss
        self._own = -math.inf
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
                yield from self._lit(self._frame(whole))
        for whole in self.fields.flush():
            yield from self._lit(self._frame(whole))
        self.finished = True

    def _lit(self, frame: Frame) -> Iterator[Frame]:
        """The frame, unless it is one of those between the flashes of a light."""
        if self.flashing.is_dark(frame.grey):
            self._gap |= frame.gap
        else:
            yield replace(frame, gap=True) if self._gap else frame
            self._gap = False

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
            self.corrupt += packet.is_corrupt
            if packet.size and (self._references.broken(bytes(packet)) or packet.is_corrupt):
                self._note_loss(packet)
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

    def _note_loss(self, packet: av.Packet[Any]) -> None:
        t = -math.inf if packet.pts is None or not packet.time_base else float(packet.pts * packet.time_base)
        first, last = self._broken or (t, t)
        self._broken = min(first, t), max(last, t)

    def _leans_on_lost(self, own: float | None, *, key: bool) -> bool:
        """Whether the picture shown at own, seconds of the stream, refers to lost ones or comes just behind them."""
        t = self._own if own is None else own
        if t < self._own - GAP_S:
            self._broken = None  # the stamps restart
        self._own = t
        if self._broken is None or t < self._broken[0]:
            return False
        if key:
            last = self._broken[1]
            self._broken = None if t >= last else (last, last)
        return True

    def _begins(self, first: float) -> float:
        """Where a player's clock begins, seconds of the source: with the first sound, or with the first picture."""
        begins = self._container.start_time
        if begins is None or not first - LATE_PICTURE_S <= begins / av.time_base <= first:
            return first
        return float(begins / av.time_base)

    def _aspect(self) -> float | None:
        """Width over height of a pixel as stored, as the container says or else the stream; None where neither does."""
        aspect = self._track.sample_aspect_ratio or self._track.codec_context.sample_aspect_ratio
        return float(aspect) if aspect else None

    def _frame(self, picture: av.VideoFrame) -> Frame:
        if picture.rotation != self._rotation:  # a picture asked for its matrix stays in memory until garbage is collected
            self._rotation, self.orientation = picture.rotation, Orientation.of(picture)
        layout, pixels = upright_pixels(picture, self.orientation, self._aspect())
        own = None if picture.pts is None or not picture.time_base else float(picture.pts * picture.time_base)
        self._lost |= self._leans_on_lost(own, key=picture.key_frame)
        t, gap = self.clock.stamp(own, lost=self._lost)
        self._doubtful |= self._lost
        frame = Frame(self.frames, t, pixels, layout, doubtful=self._doubtful)
        resized = self.frames > 0 and (frame.width, frame.height) != self.size
        frame = replace(frame, gap=gap or resized)
        self.resized += resized
        self._doubtful &= not picture.key_frame
        self._lost = False
        self.pixel_format = picture.format.name
        self.size = (frame.width, frame.height)
        if self.start is None:
            self.start = t
            self.origin = self._begins(t)
        self.end = t
        self.frames += 1
        return frame


def picture_track(container: av.container.InputContainer) -> av.VideoStream | None:
    """The track of moving pictures to read: the default one, else the longest, else the first; None where there is none.

    The cover of a song is no such track, and a single picture is none where there are more.
    """
    tracks = [
        track
        for track in container.streams.video
        if not track.disposition & Disposition.attached_pic and track.codec_context is not None
    ]
    lengths = [seconds_of(track) or 0.0 for track in tracks]
    longest = max(lengths, default=0.0)
    moving = [
        track
        for track, length in zip(tracks, lengths, strict=True)
        if track.frames != 1 and rate_of(track) and not (0 < length < STILL_SHARE * longest)
    ]
    chosen = [track for track in moving if track.disposition & Disposition.default]
    rivals = chosen or moving or tracks
    return max(rivals, key=lambda track: round(seconds_of(track) or 0.0), default=None)


def seconds_of(track: av.VideoStream) -> float | None:
    """The length of the track as the container states it; None where it states none."""
    parts = track.metadata.get("DURATION", "").split(":")  # Matroska: hours:minutes:seconds
    base = float(track.time_base or 0)
    try:
        seconds = sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        return track.duration * base if track.duration and base else None
    if "NUMBER_OF_FRAMES" not in track.metadata:
        seconds -= (track.start_time or 0) * base  # FFmpeg writes the end there, mkvmerge the length
    return seconds if seconds > 0 else None


def rate_of(track: av.VideoStream) -> float | None:
    """Pictures a second as declared; None where nothing is."""
    rate = track.average_rate or track.guessed_rate
    return float(rate) if rate else None
