"""Recorded video, frame by frame, through PyAV.

Every frame is upright (rotation in the file is applied), carries the file's own time (see `clock`), and comes in the cheapest
layout that holds it: planes as they are decoded ("i420", "grey"), or RGB where planes do not fit. Damaged pictures are skipped
and counted; whatever can be read is delivered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.error

from engine.errors import SourceError
from engine.types import Frame
from stream.sources.clock import Restart, SourceClock
from stream.sources.decoding import LIMITS, TOO_LARGE, Decoding, picture_track, rate_of, seconds_of
from stream.sources.pixels import square_size

EARLY_END_S = 0.5
"""A file whose pictures end earlier than this before its declared end was cut off."""

MAX_LISTED_RESTARTS = 3
"""Restarts of the clock that are listed one by one."""

UNEVEN_SHARE = 0.01
"""Share of the pictures that a steady rate has in addition from which the rate is reported as uneven."""

_NO_VIDEO_FORMATS = {"tty", "concat", "hls"}
"""FFmpeg would draw text files as pictures, and follow playlists to other files; neither is a recorded video."""

_INDEXED = {"mp4", "matroska", "avi", "asf"}
"""Formats that state their length; that of others is estimated by FFmpeg."""


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a video so far: width and height in pixels as delivered (upright), fps as declared, times in seconds.

    origin is where a player's clock starts; covered is how long the pictures last, without gaps, duration from the first frame
    to the last; clock_restarts is where the file's stamps restart; sound says that it has a sound track.
    """

    path: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int
    fps: float | None
    start: float | None
    end: float | None
    origin: float
    covered: float
    clock_restarts: tuple[Restart, ...]
    frames: int
    expected_frames: int | None
    gaps: int
    lost_frames: int
    unlit_frames: int
    decode_errors: int
    damaged_frames: int
    warnings: tuple[str, ...]
    duration: float | None
    measured_fps: float | None
    sound: bool


class VideoSource:
    """The frames of one file, once, in order; `facts` and `problem` describe how reading went so far.

    Raises SourceError where there is nothing to read: no such file, no video, no picture that can be decoded.
    """

    paced = True

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        self.path = path
        self._container = _open(path)
        track = picture_track(self._container)
        if track is None:
            self.close()
            raise SourceError(f"{path} has no pictures (sound alone?); a video is expected")
        context, format_names = track.codec_context, self._container.format.name
        track.thread_type = "AUTO"
        context.thread_count = threads or decoder_threads(context.width * context.height)
        self._codec, self._fps = context.name, rate_of(track)
        self._declared_frames, self._declared_s = int(track.frames), seconds_of(track)
        self._declared_end: float | None = None
        if self._declared_s and _INDEXED & set(format_names.split(",")):
            self._declared_end = (track.start_time or 0) * float(track.time_base or 0) + self._declared_s
        self._sound = bool(self._container.streams.audio)
        self._track_warnings = list(_track_warnings(track, format_names))
        self._track, self._sorted = track, format_names == "avi"
        self._decoding = self._new_decoding()

    def _new_decoding(self) -> Decoding:
        clock = SourceClock(1 / self._fps if self._fps else None, sort=self._sorted, recorded=True)
        return Decoding(self._container, self._track, clock)

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder; frames already delivered stay valid."""
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        yield from self._decoding
        if self._decoding.too_large:
            raise SourceError(f"{self.path}: {TOO_LARGE}")
        if not self._decoding.frames:
            raise SourceError(f"{self.path}: no picture in this file can be decoded; it is damaged or cut off")

    def seek(self, t: float) -> None:
        """Go on at a key picture at or before t, seconds of the file's own stamps; not far from it where the file has no index.

        Frames are then those from there on, numbered from 0 and with the file's stamps, and so are `facts` and `problem`; start
        another iteration. Raises SourceError where the file allows no seeking, or would get other stamps then.
        """
        if self._sorted and self._track.codec_context.has_b_frames:
            raise SourceError(f"{self.path} allows no seeking: its stamps are in the order of storage")
        try:
            self._container.seek(math.floor(t / float(self._track.time_base or 1)), stream=self._track)
        except (av.error.FFmpegError, OverflowError) as error:
            raise SourceError(f"{self.path} allows no seeking ({error})") from error
        self._decoding = self._new_decoding()

    @property
    def packets(self) -> int:
        """How many packets were read so far."""
        return self._decoding.packets

    @property
    def finished(self) -> bool:
        """Whether the file was read to its end."""
        return self._decoding.finished

    @property
    def disordered(self) -> bool:
        """Whether stamps were found to be in the order of storage, and sorted."""
        return self._decoding.clock.disordered

    @property
    def expected_frames(self) -> int | None:
        """How many frames the file declares, roughly; None where it does not."""
        if self._declared_frames:
            return self._declared_frames
        if self._decoding.clock.restarts or not self._declared_s or not self._fps:
            return None
        return round(self._declared_s * self._fps)

    @property
    def origin(self) -> float:
        """Where a player's clock starts, seconds of the frames' time; known once the first frame was read."""
        return self._decoding.origin

    @property
    def facts(self) -> VideoFacts:
        """What is known so far."""
        read = self._decoding
        covered, steps = round(read.clock.covered, 6), read.frames - 1 - read.clock.gaps
        return VideoFacts(
            path=str(self.path),
            codec=self._codec,
            pixel_format=read.pixel_format,
            width=read.size[0],
            height=read.size[1],
            rotation=read.orientation.rotation,
            fps=self._fps,
            start=read.start,
            end=read.end,
            origin=round(read.origin, 6),
            covered=covered,
            clock_restarts=tuple(read.clock.restarts),
            frames=read.frames,
            expected_frames=self.expected_frames,
            gaps=read.clock.gaps + read.resized + read.clock.short_holes,
            lost_frames=read.clock.missing,
            unlit_frames=read.strobe.unlit,
            decode_errors=read.errors,
            damaged_frames=read.damaged,
            warnings=(*self._packet_warnings(), *self._track_warnings, *self._picture_warnings()),
            duration=None if read.start is None or read.end is None else round(read.end - read.start, 6),
            measured_fps=round(steps / covered, 3) if covered > 0 and steps > 0 else None,
            sound=self._sound,
        )

    @property
    def problem(self) -> str | None:
        """One sentence when less was read than the file should hold, else None; final once all frames were read."""
        read, damage = self._decoding, ""
        if read.errors or read.damaged:
            damage = f"{_count(read.errors, 'packet')} and {_count(read.damaged, 'picture')} are damaged and were skipped; "
        rest = f"the rest was read ({_count(read.frames, 'frame')})"
        end, last = self._declared_end, read.end
        slack = max(EARLY_END_S, 3 * read.clock.nominal_s)
        whole = not read.finished or read.clock.restarts or 0 < self._declared_frames <= read.frames
        if not whole and end is not None and last is not None and last < end - slack:
            stated = f"its pictures end at {last:.1f} s and should at {end:.1f} s"
            return f"{self.path}: the file is cut off: {stated}; {damage}{rest}"
        return f"{self.path}: {damage}{rest}" if damage else None

    def _packet_warnings(self) -> Iterator[str]:
        read, clock = self._decoding, self._decoding.clock
        if clock.invented and clock.invented == read.frames:
            yield f"the file has no time stamps; {1 / clock.nominal_s:.5g} frames/s assumed"
        elif clock.invented:
            yield f"{clock.invented} frames have no time stamp; it was filled in from the frame rate"
        for restart in clock.restarts[:MAX_LISTED_RESTARTS]:
            yield (
                f"time stamps restart at frame {restart.frame}: {restart.stamp:.3f} s follows {restart.t:.3f} s; "
                "times continue from there, and nothing is compared across the restart"
            )
        if len(clock.restarts) > MAX_LISTED_RESTARTS:
            yield f"time stamps restart {len(clock.restarts) - MAX_LISTED_RESTARTS} times more"
        if clock.disordered:
            yield "time stamps are out of order; they were sorted"
        if clock.missing:
            yield (
                f"{_count(clock.missing, 'picture')} missing in {_count(clock.holes, 'place')}, lost before recording; "
                "nothing is compared across places where that is visible"
            )
        if clock.uneven > UNEVEN_SHARE * read.frames:
            yield (
                f"the rate is uneven: {_count(clock.uneven, 'picture')} fewer than a steady one gives; nothing shows that "
                "they were lost (cameras skip some in the dark)"
            )
        if read.corrupt:
            yield f"{_count(read.corrupt, 'packet')} came damaged"

    def _picture_warnings(self) -> Iterator[str]:
        read, deinterlacer = self._decoding, self._decoding.deinterlacer
        if read.resized:
            yield f"the size of the pictures changes {_count(read.resized, 'time')}; nothing is compared across a change"
        interlaced = deinterlacer.interlaced + deinterlacer.unflagged
        flag = "" if deinterlacer.interlaced else ", though not flagged as such"
        if deinterlacer.failure is not None:
            yield f"{_count(interlaced, 'picture')} interlaced{flag} and left so, yadif is missing ({deinterlacer.failure})"
        elif interlaced:
            yield f"{_count(interlaced, 'picture')} interlaced{flag}; they were deinterlaced (yadif)"
        if read.orientation.mirrored:
            yield "the file declares its pictures as mirrored; they were analysed mirrored"
        if read.strobe.unlit:
            yield (
                f"{_count(read.strobe.unlit, 'picture')} of {read.frames} dark between the flashes of a light (an infrared "
                "camera?); the lit ones were analysed"
            )


def decoder_threads(pixels: int) -> int:
    """How many threads decode pictures of so many pixels, 0 for one per core.

    Up to 1280 x 720 one keeps up with the analysis; two would take half as much CPU time again from it.
    """
    return 1 if pixels <= 1280 * 720 else 0


def open_video(path: str | Path, *, threads: int = 0) -> VideoSource:
    """A recorded video as a context manager that iterates frames; threads is the decoder's, 0 for `decoder_threads`.

    Raises SourceError in one sentence for no such file, a folder, an empty file, what is no video, and sound alone.
    """
    return VideoSource(Path(path), threads=threads)


def _track_warnings(track: av.VideoStream, format_names: str) -> Iterator[str]:
    """What is unusual about the track as declared; not for later, as its memory is freed with the container."""
    if format_names == "avi" and len(track.index_entries) < track.frames // 2:
        yield "the file has no index (its recorder was switched off?); it was read to its end nevertheless"
    tracks = track.container.streams.video
    if len(tracks) > 1:
        yield f"the file has {len(tracks)} video tracks; number {1 + tracks.index(track)} was read"
    aspect = track.sample_aspect_ratio or track.codec_context.sample_aspect_ratio
    if aspect and square_size(1000, 1000, float(aspect)) != (1000, 1000):
        shape = f"{aspect.numerator}:{aspect.denominator}"
        yield f"pixels are not square ({shape}); the pictures were stretched until they are"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _open(path: Path) -> av.container.InputContainer:
    """The container at path. Raises SourceError that names what is there instead."""
    try:
        if path.is_dir():
            raise SourceError(f"{path} is a folder; a video file is expected")
        if path.is_file() and not path.stat().st_size:
            raise SourceError(f"{path} is empty (0 bytes); a video file is expected")
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file", **LIMITS})
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such file or folder") from None
    except PermissionError:
        raise SourceError(f"{path} may not be read; check its permissions") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{path} cannot be read as a video ({reason}): it is damaged, cut off, or no video at all") from None
    if _NO_VIDEO_FORMATS & set(container.format.name.split(",")):
        container.close()
        raise SourceError(f"{path} is text, not a video")
    return container
