"""What is known of a video: what the file declares, and what was counted while its frames were read.

The counts of two passes over different parts of a video can be added, so that the parts give the facts of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from stream.sources.clock import Restart

EARLY_END_S = 0.5
"""A file whose pictures end earlier than this before its declared end was cut off."""

MAX_LISTED_RESTARTS = 3
"""Restarts of the clock that are listed one by one."""

UNEVEN_SHARE = 0.01
"""Share of the pictures that a steady rate has in addition from which the rate is reported as uneven."""


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


@dataclass(frozen=True)
class ReadCounts:
    """What was counted while frames were read, by the names in `stream.sources.decoding` and `clock`; covered in seconds."""

    frames: int = 0
    errors: int = 0
    damaged: int = 0
    corrupt: int = 0
    resized: int = 0
    unlit: int = 0
    interlaced: int = 0
    unflagged: int = 0
    gaps: int = 0
    missing: int = 0
    holes: int = 0
    short_holes: int = 0
    uneven: int = 0
    invented: int = 0
    covered: float = 0.0

    def __add__(self, other: ReadCounts) -> ReadCounts:
        return ReadCounts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def __sub__(self, other: ReadCounts) -> ReadCounts:
        return ReadCounts(*(getattr(self, one.name) - getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True)
class Declared:
    """What a file says about itself; end, step and seconds are in seconds, warnings about what is unusual."""

    path: str
    codec: str
    fps: float | None
    frames: int
    seconds: float | None
    end: float | None
    step_s: float
    sound: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """How reading a file went so far: what it declares, what the pictures are like, and the counts; times in seconds.

    finished says that it was read to its end; not_deinterlaced is why interlaced pictures were left so, None where they were
    not.
    """

    declared: Declared
    pixel_format: str
    size: tuple[int, int]
    rotation: int
    mirrored: bool
    start: float | None
    end: float | None
    origin: float
    restarts: tuple[Restart, ...]
    disordered: bool
    not_deinterlaced: str | None
    finished: bool
    counts: ReadCounts

    @property
    def expected_frames(self) -> int | None:
        """How many frames the file declares, roughly; None where it does not."""
        declared = self.declared
        if declared.frames:
            return declared.frames
        if self.restarts or not declared.seconds or not declared.fps:
            return None
        return round(declared.seconds * declared.fps)

    @property
    def facts(self) -> VideoFacts:
        """What is known so far."""
        declared, counts = self.declared, self.counts
        covered, steps = round(counts.covered, 6), counts.frames - 1 - counts.gaps
        return VideoFacts(
            path=declared.path,
            codec=declared.codec,
            pixel_format=self.pixel_format,
            width=self.size[0],
            height=self.size[1],
            rotation=self.rotation,
            fps=declared.fps,
            start=self.start,
            end=self.end,
            origin=round(self.origin, 6),
            covered=covered,
            clock_restarts=self.restarts,
            frames=counts.frames,
            expected_frames=self.expected_frames,
            gaps=counts.gaps + counts.resized + counts.short_holes,
            lost_frames=counts.missing,
            unlit_frames=counts.unlit,
            decode_errors=counts.errors,
            damaged_frames=counts.damaged,
            warnings=(*self._packet_warnings(), *declared.warnings, *self._picture_warnings()),
            duration=None if self.start is None or self.end is None else round(self.end - self.start, 6),
            measured_fps=round(steps / covered, 3) if covered > 0 and steps > 0 else None,
            sound=declared.sound,
        )

    @property
    def problem(self) -> str | None:
        """One sentence when less was read than the file should hold, else None; final once all frames were read."""
        counts, path, damage = self.counts, self.declared.path, ""
        if counts.errors or counts.damaged:
            damage = f"{_count(counts.errors, 'packet')} and {_count(counts.damaged, 'picture')} are damaged and were skipped; "
        rest = f"the rest was read ({_count(counts.frames, 'frame')})"
        end, last = self.declared.end, self.end
        slack = max(EARLY_END_S, 3 * self.declared.step_s)
        whole = not self.finished or self.restarts or 0 < self.declared.frames <= counts.frames
        if not whole and end is not None and last is not None and last < end - slack:
            stated = f"its pictures end at {last:.1f} s and should at {end:.1f} s"
            return f"{path}: the file is cut off: {stated}; {damage}{rest}"
        return f"{path}: {damage}{rest}" if damage else None

    def _packet_warnings(self) -> Iterator[str]:
        counts, restarts = self.counts, self.restarts
        if counts.invented and counts.invented == counts.frames:
            yield f"the file has no time stamps; {1 / self.declared.step_s:.5g} frames/s assumed"
        elif counts.invented:
            yield f"{counts.invented} frames have no time stamp; it was filled in from the frame rate"
        for restart in restarts[:MAX_LISTED_RESTARTS]:
            yield (
                f"time stamps restart at frame {restart.frame}: {restart.stamp:.3f} s follows {restart.t:.3f} s; "
                "times continue from there, and nothing is compared across the restart"
            )
        if len(restarts) > MAX_LISTED_RESTARTS:
            yield f"time stamps restart {len(restarts) - MAX_LISTED_RESTARTS} times more"
        if self.disordered:
            yield "time stamps are out of order; they were sorted"
        if counts.missing:
            yield (
                f"{_count(counts.missing, 'picture')} missing in {_count(counts.holes, 'place')}, lost before recording; "
                "nothing is compared across places where that is visible"
            )
        if counts.uneven > UNEVEN_SHARE * counts.frames:
            yield (
                f"the rate is uneven: {_count(counts.uneven, 'picture')} fewer than a steady one gives; nothing shows that "
                "they were lost (cameras skip some in the dark)"
            )
        if counts.corrupt:
            yield f"{_count(counts.corrupt, 'packet')} came damaged"

    def _picture_warnings(self) -> Iterator[str]:
        counts = self.counts
        if counts.resized:
            yield f"the size of the pictures changes {_count(counts.resized, 'time')}; nothing is compared across a change"
        interlaced = counts.interlaced + counts.unflagged
        flag = "" if counts.interlaced else ", though not flagged as such"
        if self.not_deinterlaced is not None:
            yield f"{_count(interlaced, 'picture')} interlaced{flag} and left so, yadif is missing ({self.not_deinterlaced})"
        elif interlaced:
            yield f"{_count(interlaced, 'picture')} interlaced{flag}; they were deinterlaced (yadif)"
        if self.mirrored:
            yield "the file declares its pictures as mirrored; they were analysed mirrored"
        if counts.unlit:
            yield (
                f"{_count(counts.unlit, 'picture')} of {counts.frames} dark between the flashes of a light (an infrared "
                "camera?); the lit ones were analysed"
            )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
