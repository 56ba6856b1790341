"""One pass over a recorded video or a part of it: from the file, through `engine.Pipeline`, to what is found.

Decoding, face location and the other stages overlap on three threads, the last of which is the reader's. Frames go through the
same stages as in `Pipeline.feed`, so the events are the same.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from engine.errors import SourceError
from engine.types import F32, U8, Activity, Event, Face, Frame, Observation
from stream.queues import overlapped
from stream.recorded.models import Models
from stream.recorded.parts.plan import WHOLE, Part
from stream.recorded.settings import ReadingSettings
from stream.sources.facts import Reading, VideoFacts
from stream.sources.file import open_video
from stream.sources.voice import Voice

PART_THREADS = 2
"""Threads that decode a part: how far a decoder reads ahead, and so what is counted by a frame, may not depend on the cores."""

QUEUE_BYTES = 64_000_000
"""Limit of the memory of the frames that wait for one stage; two frames may exceed it."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame and what is known of the faces in it; reading and the pipeline's statistics as they were with this frame. looks
    [32, 32] are those that `stream.recorded.parts.looks` adds, by faces."""

    frame: Frame
    faces: Sequence[Face]
    observations: Sequence[Observation]
    reading: Reading
    statistics: Mapping[str, int]
    looks: Mapping[int, F32] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Found:
    """The events, provisional ones among them, and activities that became known with the frame before."""

    events: Sequence[Event]
    activities: Sequence[Activity]


@dataclass(frozen=True, eq=False)
class Ending:
    """How the pass ended. model and backend are those that named expressions, statistics the pipeline's; failure is why reading
    broke off, None where it did not; stopped is whether the user ended it; spent_s is how long the pass took, seconds."""

    reading: Reading
    statistics: Mapping[str, int]
    model: str
    backend: str
    failure: str | None
    spent_s: float
    stopped: bool = False

    @property
    def problem(self) -> str | None:
        """One sentence where not all could be read."""
        return self.failure or self.reading.problem


Step = Seen | Found | Ending
Steps = Generator[Step, None, None]


class Passage:
    """A pass over a part of a video, or all of it. Setting stop ends it after the current frame.

    Raises SourceError where there is nothing to read.
    """

    def __init__(self, video: Path, settings: ReadingSettings, *, stop: threading.Event, part: Part = WHOLE) -> None:
        self._part, self._stop = part, stop
        threads = settings.decode_threads if part is WHOLE else settings.decode_threads or PART_THREADS
        self._source = open_video(video, threads=threads)
        self._capacity = queue_capacity(settings.queued_frames, self._source.facts)
        self._readings: dict[int, Reading] = {}  # by the frames that are under way

    def close(self) -> None:
        """Free the decoder."""
        self._source.close()

    def steps(self, models: Models, stream: str) -> Steps:
        """All steps, the last of which is the `Ending`; stream names the source of events. To be iterated once.

        Raises BackendError or WeightsError where the models cannot run.
        """
        failure, stopped, started = None, False, time.monotonic()
        with closing(models.pipeline(stream)) as pipeline, ExitStack() as opened:
            try:
                frames = opened.enter_context(overlapped(self._frames(), pipeline.locate, capacity=self._capacity))
                for frame, faces in frames:
                    events = pipeline.advance(frame, faces)
                    reading = self._readings.pop(frame.index)
                    yield Seen(frame, faces, pipeline.observations(), reading, pipeline.statistics)
                    yield from _found(events, pipeline.activities())
                    if stopped := self._stop.is_set():
                        break
            except SourceError as error:
                failure = str(error)
            yield from _found(pipeline.flush(), pipeline.activities())
            opened.close()
            spent_s = time.monotonic() - started
            reading, model, backend = self._source.reading, pipeline.model, pipeline.backend
            yield Ending(reading, pipeline.statistics, model, backend, failure, spent_s, stopped)

    def _frames(self) -> Iterator[Frame]:
        """The frames of the part, each with the share of voice in the sound around it."""
        source, part = self._source, self._part
        if math.isfinite(part.first):
            source.seek(part.enter)
        with closing(Voice(source.path, part.first)) as voice:
            for frame in source:
                if frame.t >= part.last:
                    return
                if frame.t >= part.first:
                    self._readings[frame.index] = source.reading
                    yield replace(frame, voice=voice.at(frame.t))
        if math.isfinite(part.end):
            read_to = source.reading.end
            raise SourceError(f"{source.path}: reading broke off" + ("" if read_to is None else f" at {read_to:.1f} s"))


def _found(events: list[Event], activities: list[Activity]) -> Iterator[Found]:
    if events or activities:
        yield Found(events, activities)


def lightened(step: Step, *, faces: bool) -> Step:
    """The step without pixels, which take most of its memory: never with those of the frame, whose size stays, and with those
    of crops and evidence only if faces is set."""
    if isinstance(step, Seen):
        observations = step.observations if faces else [_without_pixels(one) for one in step.observations]
        frame = replace(step.frame, pixels=_blank(step.frame.pixels))
        return replace(step, frame=frame, observations=observations)
    if isinstance(step, Found) and not faces:
        return replace(step, events=[replace(event, evidence=None) for event in step.events])
    return step


def _without_pixels(seen: Observation) -> Observation:
    crop = seen.crop
    return seen if crop is None else replace(seen, crop=replace(crop, pixels=_blank(crop.pixels)))


def _blank(pixels: U8) -> U8:
    """Black pixels in the same shape, in the memory of one."""
    return np.broadcast_to(np.uint8(0), pixels.shape)


def queue_capacity(configured: int, video: VideoFacts) -> int:
    """How many frames may wait for each stage: as configured, fewer where frames are large, two at least."""
    frame_bytes = max(1, video.width * video.height * 3 // 2)
    return min(configured, max(2, QUEUE_BYTES // frame_bytes))
