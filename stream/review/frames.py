"""The frames of an analysed video by number: the times of all of them, and any of them decoded.

Frames are decoded by the code that decodes them for the analysis, so their numbers and times are the same, whatever the format.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from engine.errors import SourceError
from engine.types import F64, Frame, Mark
from stream.recorded.results import Results
from stream.review.database import ReviewDatabase
from stream.sources.file import VideoSource, open_video
from stream.sources.packets import SAME_S, packet_times

ABOUT = 0.01
"""By which share numbers of frames may differ: another version of a decoder may leave out other damaged ones."""
BACK_S = (0.0, 3.0, 20.0)
"""How far before a frame decoding starts: where that does not get to the frame, it starts earlier."""
AHEAD = 90
"""Frames up to so far ahead are reached by decoding on."""

Progress = Callable[[float], None]
"""Called with the share of the work that is done, 0 to 1."""


def frame_times(video: Path, results: Results, database: ReviewDatabase, progress: Progress) -> F64:
    """[N] the time of each frame, seconds of the source, as the analysis numbered them.

    They are read from the packets where those agree with the results, else found by decoding the whole video; and kept in the
    database. Raises SourceError where the video cannot be read, or is not the one that was analysed.
    """
    try:
        stat = video.stat()
    except OSError as error:
        raise SourceError(f"{video}: {(error.strerror or str(error)).lower()}; --video names the file") from error
    _require_same_size(video, results)
    state = f"{stat.st_size} {stat.st_mtime_ns}"
    marks = _marks(results)
    if database.fact("frames_of") == state:
        return np.frombuffer(zlib.decompress(database.fact("frame_times")), np.float64)
    packets = packet_times(video, progress)
    times = None if packets is None else packets.all
    if times is None or not _as_in_summary(times, results) or not _agree(times, marks):
        times = _decoded_times(video, results, progress)
    if not _agree(times, marks):
        raise SourceError(f"{video} is not the video that was analysed: its frames have other times than the events'")
    analysed = 0 if _as_in_summary(times, results) else _frames_in_summary(results)
    if analysed and abs(len(times) - analysed) > 2 + ABOUT * analysed:
        raise SourceError(f"{video} is not the video that was analysed: it has {len(times)} frames instead of {analysed}")
    database.note_fact("frame_times", zlib.compress(times.tobytes(), 1))
    database.note_fact("frames_of", state)
    return times


def _require_same_size(video: Path, results: Results) -> None:
    """Raises SourceError where the pictures have not the size of those that were analysed, or cannot be read."""
    analysed = results.summary.get("video")
    if not isinstance(analysed, dict) or not (analysed.get("width") and analysed.get("height")):
        return
    with open_video(video) as source:
        facts = source.facts
    if (facts.width, facts.height) != (analysed["width"], analysed["height"]):
        sizes = f"{facts.width} x {facts.height} pixels instead of {analysed['width']} x {analysed['height']}"
        raise SourceError(f"{video} is not the video that was analysed: its pictures have {sizes}")


def _marks(results: Results) -> list[Mark]:
    return [mark for entry in results.entries for mark in entry.marks.values() if mark is not None]


def _agree(times: F64, marks: Iterable[Mark]) -> bool:
    """Whether the marks are frames of these times."""
    return all(mark.frame < len(times) and abs(times[mark.frame] - mark.t) < SAME_S for mark in marks)


def _as_in_summary(times: F64, results: Results) -> bool:
    """Whether these are the times of the video that the summary describes; what was cut off or damaged is not compared."""
    facts = results.summary.get("video")
    if not isinstance(facts, dict) or not results.summary.get("complete") or "frames" not in facts:
        return False
    ends = len(times) > 0 and abs(times[0] - facts["start"]) < SAME_S and abs(times[-1] - facts["end"]) < SAME_S
    return bool(ends and len(times) == facts["frames"])


def _frames_in_summary(results: Results) -> int:
    """How many frames the video has; 0 where that is unknown or not all were analysed."""
    facts = results.summary.get("video")
    if not isinstance(facts, dict) or not results.summary.get("complete"):
        return 0
    return int(facts.get("frames") or 0)


def _decoded_times(video: Path, results: Results, progress: Progress) -> F64:
    expected = max(1, int((results.summary.get("video") or {}).get("frames") or 1))
    times: list[float] = []
    with open_video(video) as source:
        for frame in source:
            dark = frame.index - len(times)  # those between flashes of a light, which the analysis left out
            times += np.linspace(times[-1] if times else frame.t, frame.t, dark + 2)[1:-1].tolist()
            times.append(frame.t)
            if len(times) % 100 == 0:
                progress(min(len(times) / expected, 1.0))
    return np.array(times, np.float64)


class FrameReader:
    """Decodes frames by number; used on one thread at a time. times [N] are those of all frames.

    Where a file cannot be entered in the middle in such a way that its frames come out with their times, it is read from its
    start: forward as quickly as it is decoded, backward slowly.
    """

    def __init__(self, video: Path, times: F64) -> None:
        self._video, self._times = video, times
        self._source: VideoSource | None = None
        self._frames: Iterator[Frame] = iter(())
        self._next: int | None = None  # number of the frame that comes next
        self.seekable = True

    def read(self, first: int, last: int) -> Iterator[Frame]:
        """The frames first to last, both included, those of them that exist; for one that the analysis left out, as it is dark
        between flashes of a light, the picture after it. Raises SourceError."""
        wanted, last = max(first, 0), min(last, len(self._times) - 1)
        if wanted <= last and not (self._next is not None and self._next <= wanted <= self._next + AHEAD):
            self._enter(wanted)
        while wanted <= last:
            frame = next(self._frames, None)
            if frame is not None:
                if frame.index > last:  # those before it were left out
                    self._frames, self._next = chain([frame], self._frames), frame.index
                else:
                    self._next = frame.index + 1
                for number in range(wanted, min(frame.index, last) + 1):
                    yield frame if number == frame.index else replace(frame, index=number, t=float(self._times[number]))
                    wanted = number + 1
            elif self.seekable:
                self.seekable, self._next = False, None
                self._enter(wanted)
            else:
                self._next = None  # read again the next time: it may have been out of reach
                raise SourceError(f"{self._video} ends before frame {wanted}: it has changed since it was analysed")

    def _enter(self, wanted: int) -> None:
        """Have a frame up to the wanted one come next."""
        self.seekable = self.seekable and any(self._enter_at(self._times[wanted] - back, wanted) for back in BACK_S)
        if not self.seekable and (self._next is None or self._next > wanted):
            self._frames, self._next = iter(self._opened()), 0

    def _enter_at(self, t: float, wanted: int) -> bool:
        source = self._opened()  # again: a decoder that was used before shows old pictures in new ones after seeking
        try:
            source.seek(t)
        except SourceError:
            return False
        frames = self._numbered(source)
        first = next(frames, None)
        if first is None or first.index > wanted:
            self._next = None
            return False
        self._frames, self._next = chain([first], frames), first.index
        return True

    def _numbered(self, source: VideoSource) -> Iterator[Frame]:
        """The frames with their numbers in the video, as long as none is missing; those that the analysis skipped left out."""
        before = None
        with suppress(SourceError):  # nothing more can be decoded
            for frame in source:
                if source.disordered:
                    return
                number = int(np.searchsorted(self._times, frame.t - SAME_S))
                if number < len(self._times) and abs(self._times[number] - frame.t) < SAME_S:
                    if before is not None and number != before + 1:
                        return
                    before = number
                    yield replace(frame, index=number)

    def _opened(self) -> VideoSource:
        self.close()
        self._source = open_video(self._video)
        return self._source

    def close(self) -> None:
        """Free the decoder."""
        if self._source is not None:
            self._source.close()
        self._source, self._next = None, None
