"""From an open container to frames: decoding, deinterlacing, times, and damage that is counted and skipped.

Recorded files (`file`) and live sources (`ffmpeg`) are read by the same loop.
"""

from __future__ import annotations

import errno
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from engine.types import U8, Frame
from stream.sources.clock import GAP_S, SourceClock
from stream.sources.deinterlace import Deinterlacer
from stream.sources.h264_gaps import FrameNumGaps
from stream.sources.pixels import Orientation, upright_pixels

MAX_AUDIO_LEAD_S = 30.0
"""Sound that starts earlier than this before the first picture has another clock."""

STILL_SHARE = 0.05
"""A video track shorter than this share of another one is a cover or a thumbnail of it."""

MAX_PIXELS = 8192 * 4352
"""The largest picture that is decoded: the limit of level 6.2, the highest of H.264 and of HEVC."""
LIMITS = {"max_pixels": str(MAX_PIXELS)}
"""Options for `av.open`, which decodes pictures to probe them, and for decoders."""
TOO_LARGE = "its pictures are larger than any that are decoded here (8192 x 4352 pixels)"
MAX_REFUSED = 3
"""Consecutive pictures that the decoder refuses for their size before the source is given up; one may just be damaged."""

STROBE_WINDOW, MIN_SWITCHES = 12, 5
"""A light strobes if it goes on or off at least so often within so many pictures."""
DARK = 0.5
"""Pictures below this share of the brightest one's brightness are dark."""
_STEP = 16
"""Pixels from sample to sample."""


class Decoding:
    """The frames of a container's video track, once, in order of presentation, with counts of what was read so far.

    origin is where a player's clock starts. packets counts those read, errors those that could not be decoded, corrupt those
    marked as damaged; damaged the broken pictures skipped after the first good one, resized how often the size changed. failure
    is what ended reading early, None where nothing did; too_large is whether it ended because pictures are larger than
    MAX_PIXELS, none of which is decoded.
    """

    def __init__(self, container: av.container.InputContainer, track: av.VideoStream, clock: SourceClock) -> None:
        self.clock, self.origin = clock, 0.0
        self.start: float | None = None
        self.end: float | None = None
        self.size = (track.codec_context.width, track.codec_context.height)
        self.orientation = Orientation()
        self._rotation: float | None = None  # as PyAV reads it from the matrix
        self.pixel_format = "unknown"
        self.frames = self.errors = self.damaged = self.corrupt = self.resized = self.packets = 0
        self.failure: av.error.FFmpegError | None = None
        self.finished = False
        self.deinterlacer = Deinterlacer()
        self.strobe = StrobeDetector()
        self._container, self._track = container, track
        self._lost = self._gap = self._doubtful = False
        self._gaps = FrameNumGaps(track.codec_context.name, track.codec_context.extradata)
        self._loss: tuple[float, float] | None = None  # times of the first and the last packet that shows a loss
        self._last_stamp = -math.inf
        self.too_large = self.size[0] * self.size[1] > MAX_PIXELS
        self._refused = 0
        track.codec_context.options = LIMITS

    def __iter__(self) -> Iterator[Frame]:
        for picture in self._pictures():
            if picture.is_corrupt:
                self.damaged += self.frames > 0
                self._lost = True
                continue
            for progressive in self.deinterlacer.take(picture):
                yield from self._unless_dark(self._frame(progressive))
        for progressive in self.deinterlacer.flush():
            yield from self._unless_dark(self._frame(progressive))
        self.finished = True

    def _unless_dark(self, frame: Frame) -> Iterator[Frame]:
        """The frame, unless it is a dark one between the flashes of a light."""
        if self.strobe.is_dark(frame.grey):
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
            self.packets += 1
            self.corrupt += packet.is_corrupt
            if packet.size and (self._gaps.missing_before(bytes(packet)) or packet.is_corrupt):
                self._note_loss(packet)
            if packet.size:
                self.clock.read_ahead(_time(packet))
            yield from self._decoded(packet)

    def _decoded(self, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        try:
            pictures = list(self._track.decode(packet))
            self._refused = 0
            return pictures
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.errors += 1
            self._lost = True
            no_size = error.errno == errno.EINVAL and not self._track.codec_context.width  # how a decoder leaves it
            self._refused = self._refused + 1 if no_size else 0
            self.too_large = self._refused >= MAX_REFUSED
            return []

    def _note_loss(self, packet: av.Packet[Any]) -> None:
        stamp = _time(packet)
        t = -math.inf if stamp is None else stamp
        first, last = self._loss or (t, t)
        self._loss = min(first, t), max(last, t)

    def _refers_to_lost(self, stamp: float | None, *, key: bool) -> bool:
        """Whether the picture with that time stamp, seconds, refers to lost ones or comes right after them."""
        t = self._last_stamp if stamp is None else stamp
        if t < self._last_stamp - GAP_S:
            self._loss = None  # the stamps restart
        self._last_stamp = t
        if self._loss is None or t < self._loss[0]:
            return False
        if key:
            last = self._loss[1]
            self._loss = None if t >= last else (last, last)
        return True

    def _origin(self, first: float) -> float:
        """Where a player's clock starts, seconds of the source: at the first sound, or at the first picture."""
        start = self._container.start_time
        if start is None or not first - MAX_AUDIO_LEAD_S <= start / av.time_base <= first:
            return first
        return float(start / av.time_base)

    def _aspect(self) -> float | None:
        """Width over height of a stored pixel as the container declares it, else the stream; None where neither does."""
        aspect = self._track.sample_aspect_ratio or self._track.codec_context.sample_aspect_ratio
        return float(aspect) if aspect else None

    def _frame(self, picture: av.VideoFrame) -> Frame:
        if picture.rotation != self._rotation:  # reading its matrix keeps a picture in memory until garbage is collected
            self._rotation, self.orientation = picture.rotation, Orientation.of(picture)
        layout, pixels = upright_pixels(picture, self.orientation, self._aspect())
        stamp = _time(picture)
        self._lost |= self._refers_to_lost(stamp, key=picture.key_frame)
        t, gap = self.clock.stamp(stamp, lost=self._lost)
        self._doubtful |= self._lost
        frame = Frame(self.frames, t, pixels, layout, doubtful=self._doubtful)
        resized = self.frames > 0 and (frame.width, frame.height) != self.size
        self.resized += resized
        self._doubtful &= not picture.key_frame
        self._lost = False
        self.pixel_format, self.size = picture.format.name, (frame.width, frame.height)
        if self.start is None:
            self.start, self.origin = t, self._origin(t)
        self.end = t
        self.frames += 1
        return replace(frame, gap=gap or resized)


def _time(item: av.Packet[Any] | av.VideoFrame) -> float | None:
    """Presentation time, seconds of the source; None where there is no time stamp."""
    return None if item.pts is None or not item.time_base else float(item.pts * item.time_base)


def picture_track(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video track to read: the default one, else the longest, else the first; None where there is none.

    The cover of a song is none, and neither is a single picture where there are other tracks.
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
    candidates = chosen or moving or tracks
    return max(candidates, key=lambda track: round(seconds_of(track) or 0.0), default=None)


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


class StrobeDetector:
    """Finds pictures that are dark because a light strobes; `unlit` counts them.

    Infrared cameras made for face login light every second picture, so that software can distinguish skin from a screen.
    """

    def __init__(self) -> None:
        self.unlit = 0
        self._levels: deque[float] = deque(maxlen=STROBE_WINDOW)

    def is_dark(self, grey: U8) -> bool:
        """Whether the next picture, [H, W], is one of the dark ones. False while no light strobes."""
        levels = self._levels
        levels.append(float(np.mean(grey[::_STEP, ::_STEP])))
        limit = DARK * max(levels)
        if levels[-1] >= limit:
            return False
        lit = [level >= limit for level in levels]
        strobes = sum(a != b for a, b in pairwise(lit)) >= MIN_SWITCHES
        self.unlit += strobes
        return strobes
