"""Analysis of a recorded video: from the file, through `engine.Pipeline`, to the event files.

Decoding, face location and the other stages overlap on three threads, the last of which is the caller's. Frames go through the
same stages as in `Pipeline.feed`, so the events are the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
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
from stream.recorded.files import ALWAYS, EventFiles
from stream.recorded.output import Output
from stream.recorded.settings import AnalysisSettings
from stream.recorded.summary import summarize, timing
from stream.sources.file import VideoFacts, VideoSource, open_video
from stream.sources.voice import Voice

Progress = Callable[[int, int | None, int], None]
"""Called after each frame: frames done, frames expected (None where the file does not say), events so far."""

QUEUE_BYTES = 64_000_000
"""Limit of the memory of the frames that wait for one stage; two frames may exceed it."""


@dataclass(frozen=True)
class Report:
    """The result of one video; problem is None where all of it was analysed, else one sentence saying what is missing.

    timing says when the analysis ran and how fast, which summary, the content of summary.json, does not.
    """

    path: Path
    folder: Path
    events: tuple[Event, ...]
    summary: dict[str, Any]
    timing: dict[str, Any]
    problem: str | None


def analyze(
    path: Path,
    folder: Path,
    settings: AnalysisSettings | None = None,
    *,
    stream: str | None = None,
    progress: Progress | None = None,
    outputs: Sequence[Output] = (),
    formats: Sequence[str] = (),
    stop: threading.Event | None = None,
) -> Report:
    """Analyse the video at path and write its events and summary into folder.

    stream names the events' source (default: the file's stem). outputs take what is found, besides these files; they are closed
    at the end. formats names those of `stream.events.formats` in which events are written besides the usual ones. Setting stop
    ends the analysis after the current frame; what was found until then is kept, as for a truncated file. Raises SourceError
    where nothing can be read, OutputError where nothing can be written, and BackendError or WeightsError where the pipeline
    cannot be created or a package for a format is missing.
    """
    settings = settings or AnalysisSettings()
    with ExitStack() as opened:
        for output in outputs:
            opened.enter_context(closing(output))
        opened.enter_context(opencv_on_one_thread())
        source = opened.enter_context(open_video(path, threads=settings.reading.decode_threads))
        files = opened.enter_context(closing(EventFiles(folder, stream or path.stem, path, (*ALWAYS, *formats))))
        return _Analysis(source, files, outputs, settings, stop or threading.Event()).run(progress)


def queue_capacity(configured: int, video: VideoFacts) -> int:
    """How many frames may wait for each stage: as configured, fewer where frames are large, two at least."""
    frame_bytes = max(1, video.width * video.height * 3 // 2)
    return min(configured, max(2, QUEUE_BYTES // frame_bytes))


def load_pipeline(settings: PipelineSettings, stream: str) -> Pipeline:
    """A pipeline whose models were loaded in parallel. The code of the flow is still being loaded; the first expression waits
    for it. Raises BackendError or WeightsError."""
    pool = ThreadPoolExecutor(1, "load")
    locator = pool.submit(_locator, settings)
    try:
        recognizer = Recognizer(settings.recognizer, prepared=False)
        pipeline = Pipeline(settings, stream=stream, recognizer=recognizer, locator=locator.result())
        pool.submit(recognizer.prepare)  # an error is raised again by the first expression
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
        self,
        source: VideoSource,
        files: EventFiles,
        outputs: Sequence[Output],
        settings: AnalysisSettings,
        stop: threading.Event,
    ) -> None:
        self.source, self.files, self.outputs, self.settings, self.stop = source, files, outputs, settings, stop
        self.started_at = datetime.now(UTC)
        self._started = time.perf_counter()
        self.pipeline = load_pipeline(settings.pipeline, files.stream)

    def run(self, progress: Progress | None) -> Report:
        try:
            problem = self._recognize(progress)
            summary = self._summary(problem)
            for output in self.outputs:
                output.finish(summary)
        except BaseException as error:
            with suppress(OutputError):  # the failure itself is raised
                self.files.finish(self._summary(str(error) or type(error).__name__))
            raise
        finally:
            self.pipeline.close()
        self.files.finish(summary)
        taken = timing(self.source.facts, self.started_at, time.perf_counter() - self._started)
        return Report(self.source.path, self.files.folder, tuple(self.files.events), summary, taken, problem)

    def _recognize(self, progress: Progress | None) -> str | None:
        """Write each event when it is final; returns why the video was not read to its end, None where it was."""
        failure = ""
        try:
            self._read(progress)
        except SourceError as error:
            failure = str(error)
        self._write(self.pipeline.flush())
        if self.stop.is_set():
            kept = len(self.files.events)
            return f"{self.source.path}: stopped by the user; {kept} event{'s' * (kept != 1)} kept in {self.files.folder}"
        return failure or self.source.problem

    def _read(self, progress: Progress | None) -> None:
        capacity = queue_capacity(self.settings.reading.queued_frames, self.source.facts)
        with overlapped(self._frames_with_voice(), self.pipeline.locate, capacity=capacity) as located:
            for frame, faces in located:
                events = self.pipeline.advance(frame, faces)
                if self.outputs:
                    self._show(frame, faces)
                self._write(events)
                if progress is not None:
                    progress(frame.index + 1, self.source.expected_frames, len(self.files.events))
                if self.stop.is_set():
                    return

    def _frames_with_voice(self) -> Iterator[Frame]:
        """The frames, each with the share of voice in the sound around it."""
        with closing(Voice(self.source.path)) as voice:
            for frame in self.source:
                yield replace(frame, voice=voice.at(frame.t))

    def _show(self, frame: Frame, faces: list[Face]) -> None:
        observations = self.pipeline.observations()
        for output in self.outputs:
            output.frame(frame, faces, observations, self.source.origin)

    def _write(self, events: list[Event]) -> None:
        origin, outputs = self.source.origin, (self.files, *self.outputs)
        for event in events:
            if event.state == "final":
                for output in outputs:
                    output.event(event, origin)
        for activity in self.pipeline.activities():
            for output in outputs:
                output.activity(activity, origin)

    def _summary(self, problem: str | None) -> dict[str, Any]:
        return summarize(
            stream=self.files.stream,
            video=self.source.facts,
            events=self.files.events,
            activities=self.files.activities,
            statistics=self.pipeline.statistics,
            model=self.pipeline.model,
            backend=self.pipeline.backend,
            settings=self.settings,
            problem=problem,
        )
