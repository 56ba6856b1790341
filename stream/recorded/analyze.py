"""Analysis of a recorded video: from its passes (`stream.recorded.passage`) to the event files.

A long video is analysed in parts (`stream.recorded.parts`), here one after the other; parts that were analysed elsewhere give
the same results.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.errors import OutputError
from engine.types import Event
from stream.process import opencv_on_one_thread
from stream.recorded.files import ALWAYS, EventFiles
from stream.recorded.models import Models
from stream.recorded.output import Output
from stream.recorded.parts.join import joined
from stream.recorded.parts.looks import Looks
from stream.recorded.parts.plan import Part, plan_parts
from stream.recorded.passage import Ending, Found, Passage, Seen, Step, lightened
from stream.recorded.settings import AnalysisSettings
from stream.recorded.summary import summarize, timing

Progress = Callable[[int, int | None, int], None]
"""Called after each frame: frames done, frames expected (None where the file does not say), events so far."""


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
    models: Models | None = None,
    steps: Iterable[Step] | None = None,
) -> Report:
    """Analyse the video at path and write its events and summary into folder.

    stream names the events' source (default: the file's stem). outputs take what is found, besides these files; they are closed
    at the end. formats names those of `stream.events.formats` in which events are written besides the usual ones. Setting stop
    ends the analysis after the current frame; what was found until then is kept, as for a truncated file. models are loaded
    ones for these settings; steps are those of the video that were found elsewhere. Raises SourceError where nothing can be
    read, OutputError where nothing can be written, and BackendError or WeightsError where the pipeline cannot be created or a
    package for a format is missing.
    """
    settings, stream, stop = settings or AnalysisSettings(), stream or path.stem, stop or threading.Event()
    with ExitStack() as opened:
        for output in outputs:
            opened.enter_context(closing(output))
        elsewhere = steps is not None
        if steps is None:
            faces = any(output.needs_faces for output in outputs)
            steps = opened.enter_context(found_in(path, settings, stream, stop=stop, faces=faces, models=models))
        files = opened.enter_context(closing(EventFiles(folder, stream, path, (*ALWAYS, *formats))))
        return _Analysis(path, files, outputs, settings, stop, elsewhere=elsewhere).run(steps, progress)


@contextmanager
def found_in(
    path: Path,
    settings: AnalysisSettings,
    stream: str,
    *,
    stop: threading.Event,
    faces: bool,
    models: Models | None = None,
) -> Iterator[Iterator[Step]]:
    """What is found in a video, part after part, while it is asked for; faces as in `stream.recorded.passage.lightened`.

    Raises SourceError where there is nothing to read; the steps raise what those of a `Passage` do.
    """
    with ExitStack() as opened:
        opened.enter_context(opencv_on_one_thread())
        parts = plan_parts(path, settings.part_s)
        loaded = models or opened.enter_context(closing(Models(settings.pipeline)))
        if len(parts) == 1:
            passage = opened.enter_context(closing(Passage(path, settings.reading, stop=stop)))
            yield opened.enter_context(closing(passage.steps(loaded, stream)))
            return

        def passages() -> Iterator[Iterator[Step]]:
            for part in parts:
                with found_in_part(path, part, settings, stream, stop=stop, faces=faces, models=loaded) as steps:
                    yield steps

        yield opened.enter_context(closing(joined([part.start for part in parts[1:]], passages(), stream=stream)))


@contextmanager
def found_in_part(
    path: Path,
    part: Part,
    settings: AnalysisSettings,
    stream: str,
    *,
    stop: threading.Event,
    faces: bool,
    models: Models,
) -> Iterator[Iterator[Step]]:
    """What is found in one of several parts of a video, as in `found_in`."""
    with (
        opencv_on_one_thread(),
        closing(Passage(path, settings.reading, stop=stop, part=part)) as passage,
        closing(passage.steps(models, stream)) as steps,
    ):
        looks = Looks()
        yield (lightened(looks.added(step), faces=faces) for step in steps)


class _Analysis:
    """Writes what is found in a video to files and outputs."""

    def __init__(
        self,
        path: Path,
        files: EventFiles,
        outputs: Sequence[Output],
        settings: AnalysisSettings,
        stop: threading.Event,
        *,
        elsewhere: bool,
    ) -> None:
        self._path, self._files, self._outputs, self._settings, self._stop = path, files, outputs, settings, stop
        self._elsewhere = elsewhere
        self._started_at, self._started = datetime.now(UTC), time.perf_counter()
        self._state: Seen | Ending | None = None
        self._origin = 0.0

    def run(self, steps: Iterable[Step], progress: Progress | None) -> Report:
        """Take all steps; the result."""
        try:
            for step in steps:
                self._take(step, progress)
                if self._elsewhere and self._stop.is_set():
                    raise OutputError(f"{self._path}: stopped by the user")
            assert isinstance(self._state, Ending)  # the last step is one
            problem = self._problem(self._state)
            summary = self._summary(self._state, problem)
            for output in self._outputs:
                output.finish(summary)
        except BaseException as error:
            if self._state is not None:
                with suppress(OutputError):  # the failure itself is raised
                    self._files.finish(self._summary(self._state, str(error) or type(error).__name__))
            raise
        self._files.finish(summary)
        wall_s = time.perf_counter() - self._started + (self._state.spent_s if self._elsewhere else 0.0)
        taken = timing(self._state.reading.facts, self._started_at, wall_s)
        return Report(self._path, self._files.folder, tuple(self._files.events), summary, taken, problem)

    def _take(self, step: Step, progress: Progress | None) -> None:
        """Hand a step over; each event is written when it is final."""
        if isinstance(step, Found):
            outputs = (self._files, *self._outputs)
            for output in outputs:
                for event in step.events:
                    if event.state == "final":
                        output.event(event, self._origin)
                for activity in step.activities:
                    output.activity(activity, self._origin)
            return
        self._state = step
        if isinstance(step, Seen):
            self._origin = step.reading.origin
            for output in self._outputs:
                output.frame(step.frame, step.faces, step.observations, self._origin)
            if progress is not None:
                progress(step.frame.index + 1, step.reading.expected_frames, len(self._files.events))

    def _problem(self, ending: Ending) -> str | None:
        """Why the video was not read to its end, None where it was."""
        if ending.stopped or self._stop.is_set():
            kept = len(self._files.events)
            return f"{self._path}: stopped by the user; {kept} event{'s' * (kept != 1)} kept in {self._files.folder}"
        return ending.problem

    def _summary(self, state: Seen | Ending, problem: str | None) -> dict[str, Any]:
        ending = state if isinstance(state, Ending) else None
        return summarize(
            stream=self._files.stream,
            video=state.reading.facts,
            events=self._files.events,
            activities=self._files.activities,
            statistics=state.statistics,
            model=None if ending is None else ending.model,
            backend=None if ending is None else ending.backend,
            settings=self._settings,
            problem=problem,
        )
