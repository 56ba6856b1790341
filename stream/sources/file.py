"""Recorded video, frame by frame, through PyAV.

Every frame is upright (rotation in the file is applied), carries the file's own time (see `clock`), and comes in the cheapest
layout that holds it: planes as they are decoded ("i420", "grey"), or RGB where planes do not fit. Damaged pictures are skipped
and counted; whatever can be read is delivered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import av
import av.error

from engine.errors import SourceError
from engine.types import Frame
from stream.sources.clock import SourceClock
from stream.sources.decoding import LIMITS, TOO_LARGE, Decoding, picture_track, rate_of, seconds_of
from stream.sources.facts import Declared, ReadCounts, Reading, VideoFacts
from stream.sources.pixels import square_size

_NO_VIDEO_FORMATS = {"tty", "concat", "hls"}
"""FFmpeg would draw text files as pictures, and follow playlists to other files; neither is a recorded video."""

_INDEXED = {"mp4", "matroska", "avi", "asf"}
"""Formats that state their length; that of others is estimated by FFmpeg."""


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
        self._fps, seconds = rate_of(track), seconds_of(track)
        self._track, self._sorted = track, format_names == "avi"
        self._decoding = self._new_decoding()
        indexed = seconds and _INDEXED & set(format_names.split(","))
        self._declared = Declared(
            path=str(path),
            codec=context.name,
            fps=self._fps,
            frames=int(track.frames),
            seconds=seconds,
            end=(track.start_time or 0) * float(track.time_base or 0) + (seconds or 0.0) if indexed else None,
            step_s=self._decoding.clock.nominal_s,
            sound=bool(self._container.streams.audio),
            warnings=tuple(_track_warnings(track, format_names)),
        )

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
        return self.reading.expected_frames

    @property
    def origin(self) -> float:
        """Where a player's clock starts, seconds of the frames' time; known once the first frame was read."""
        return self._decoding.origin

    @property
    def counts(self) -> ReadCounts:
        """What was counted so far."""
        read, clock = self._decoding, self._decoding.clock
        return ReadCounts(
            frames=read.frames,
            errors=read.errors,
            damaged=read.damaged,
            corrupt=read.corrupt,
            resized=read.resized,
            unlit=read.strobe.unlit,
            interlaced=read.deinterlacer.interlaced,
            unflagged=read.deinterlacer.unflagged,
            gaps=clock.gaps,
            missing=clock.missing,
            holes=clock.holes,
            short_holes=clock.short_holes,
            uneven=clock.uneven,
            invented=clock.invented,
            covered=clock.covered,
        )

    @property
    def reading(self) -> Reading:
        """How reading went so far."""
        read = self._decoding
        return Reading(
            declared=self._declared,
            pixel_format=read.pixel_format,
            size=read.size,
            rotation=read.orientation.rotation,
            mirrored=read.orientation.mirrored,
            start=read.start,
            end=read.end,
            origin=read.origin,
            restarts=tuple(read.clock.restarts),
            disordered=read.clock.disordered,
            not_deinterlaced=read.deinterlacer.failure,
            finished=read.finished,
            counts=self.counts,
        )

    @property
    def facts(self) -> VideoFacts:
        """What is known so far."""
        return self.reading.facts

    @property
    def problem(self) -> str | None:
        """One sentence when less was read than the file should hold, else None; final once all frames were read."""
        return self.reading.problem


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
