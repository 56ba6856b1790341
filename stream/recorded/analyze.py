"""A recorded video, from file to event files: the driver around `engine.Pipeline`.

Decoding, finding faces and the rest of the way overlap on three threads (the caller's is the last of them); what happens to a
frame is the pipeline's alone, so the events are those of `Pipeline.feed`, frame by frame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine import Pipeline
from engine.config import PipelineSettings
from engine.errors import OutputError, SourceError
from engine.faces.landmarks import FaceLocator
from engine.recognition.recognizer import Recognizer
from engine.types import Event, Face, Frame
from stream.process import opencv_on_one_thread
from stream.queues import overlapped
from stream.recorded.files import EventFiles
from stream.recorded.settings import AnalysisSettings
from stream.recorded.summary import summarize
from stream.sources.file import VideoFacts, VideoSource, open_video
from stream.sources.voice import Voice

Progress = Callable[[int, int | None, int], None]
"""Called after each frame: frames done, frames expected (None where the file does not say), events so far."""

Seen = Callable[[Frame, list[Face]], None]
"""Called with each frame, in order, and the faces found in it."""

QUEUE_BYTES = 64_000_000
"""Frames waiting for one stage take no more memory than this (two frames may)."""


@dataclass(frozen=True)
class Report:
    """What came of one video; problem is None when all of it was analysed, else one sentence saying what is missing."""

    path: Path
    folder: Path
    events: tuple[Event, ...]
    summary: dict[str, Any]
    problem: str | None


def analyze(
    path: Path,
    folder: Path,
    settings: AnalysisSettings | None = None,
    *,
    stream: str | None = None,
    progress: Progress | None = None,
    seen: Seen | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Analyse the video at path and write its events and summary into folder.

    stream names the events' source (default: the file's stem). Setting stop ends the analysis after the frame at hand; like a
    file that breaks off, it leaves what was found until then. Raises SourceError when nothing can be read, OutputError when
    nothing can be written, and BackendError, WeightsError when the pipeline cannot be built.
    """
    settings = settings or AnalysisSettings()
    with opencv_on_one_thread(), open_video(path, threads=settings.reading.decode_threads) as source:
        files = EventFiles(folder, stream or path.stem, path)
        try:
            return _Analysis(source, files, settings, files.stream, stop or threading.Event()).run(progress, seen)
        finally:
            files.close()


def queue_capacity(asked: int, video: VideoFacts) -> int:
    """How many frames may wait for each stage: as many as asked for, fewer where pictures are large, two at least."""
    frame_bytes = max(1, video.width * video.height * 3 // 2)
    return min(asked, max(2, QUEUE_BYTES // frame_bytes))


def loaded(settings: PipelineSettings, stream: str) -> Pipeline:
    """A pipeline whose models were loaded side by side; its flow is made ready meanwhile, and waited for by the first
    expression, should that come sooner. Raises BackendError or WeightsError."""
    pool = ThreadPoolExecutor(1, "load")
    locator = pool.submit(_locator, settings)
    try:
        recognizer = Recognizer(settings.recognizer, prepared=False)
        pipeline = Pipeline(settings, stream=stream, recognizer=recognizer, locator=locator.result())
        pool.submit(recognizer.prepare)  # what goes wrong there goes wrong again with the first expression, and is told there
        return pipeline
    except BaseException:
        locator.result().close()
        raise
    finally:
        pool.shutdown(wait=False)


def _locator(settings: PipelineSettings) -> FaceLocator:
    locator = FaceLocator(settings.landmarks)
    locator.prepare()
    return locator


class _Analysis:
    """One run: the pipeline between an open source and open files."""

    def __init__(
        self, source: VideoSource, files: EventFiles, settings: AnalysisSettings, stream: str, stop: threading.Event
    ) -> None:
        self.source, self.files, self.settings, self.stream, self.stop = source, files, settings, stream, stop
        self.started_at = datetime.now(UTC)
        self._started = time.perf_counter()
        self.pipeline = loaded(settings.pipeline, stream)

    def run(self, progress: Progress | None, seen: Seen | None) -> Report:
        try:
            problem = self._recognize(progress, seen)
        except BaseException as error:
            self._leave_summary(error)
            raise
        finally:
            self.pipeline.close()
        summary = self._summary(problem)
        self.files.finish(summary)
        return Report(self.source.path, self.files.folder, tuple(self.files.events), summary, problem)

    def _recognize(self, progress: Progress | None, seen: Seen | None) -> str | None:
        """Write each event as it comes; returns what kept the video from being read to its end, if something did."""
        failure: SourceError | None = None
        try:
            self._read(progress, seen)
        except SourceError as error:
            failure = error
        self._keep(self.pipeline.flush())
        if self.stop.is_set():
            kept = len(self.files.events)
            return f"{self.source.path}: stopped by the user; {kept} event{'s' * (kept != 1)} kept in {self.files.folder}"
        return str(failure) if failure else self.source.problem

    def _read(self, progress: Progress | None, seen: Seen | None) -> None:
        capacity = queue_capacity(self.settings.reading.queued_frames, self.source.facts)
        with overlapped(self._heard(), self.pipeline.locate, capacity=capacity) as located:
            for frame, faces in located:
                if seen is not None:
                    seen(frame, faces)
                self._keep(self.pipeline.advance(frame, faces))
                if progress is not None:
                    progress(frame.index + 1, self.source.expected_frames, len(self.files.events))
                if self.stop.is_set():
                    return

    def _heard(self) -> Iterator[Frame]:
        """The frames, with what is heard meanwhile."""
        with Voice(self.source.path) as voice:
            for frame in self.source:
                yield replace(frame, voice=voice.at(frame.t))

    def _keep(self, events: list[Event]) -> None:
        for event in events:
            if event.state == "final":
                self.files.write(event, self.source.origin)
        for activity in self.pipeline.activities():
            self.files.write_activity(activity, self.source.origin)

    def _leave_summary(self, error: BaseException) -> None:
        """After a failure: the summary so far, if it still can be written; the failure itself is what the user hears of."""
        try:
            self.files.finish(self._summary(str(error) or type(error).__name__))
        except OutputError:
            return

    def _summary(self, problem: str | None) -> dict[str, Any]:
        return summarize(
            stream=self.stream,
            video=self.source.facts,
            events=self.files.events,
            activities=self.files.activities,
            statistics=self.pipeline.statistics,
            model=self.pipeline.model,
            backend=self.pipeline.backend,
            settings=self.settings,
            problem=problem,
            started_at=self.started_at,
            wall_s=time.perf_counter() - self._started,
        )
