"""One recorded video from file to results, with everything that options of `apexstream analyze` add to the event files."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from apexstream.overview import write_report_pictures
from apexstream.pictures import FaceTrail, check_drawing
from engine.config import PipelineSettings
from engine.weights import JUDGE, default_weights, load_card, sha256_of, weights_for
from stream.recorded.analyze import Progress, Report, analyze, found_in_part
from stream.recorded.annotated.output import AnnotatedVideo
from stream.recorded.face_places import FacePlaces
from stream.recorded.folders.records import Wanted
from stream.recorded.frames import FrameTable
from stream.recorded.models import Models
from stream.recorded.output import Output
from stream.recorded.parts.plan import Part
from stream.recorded.passage import Step
from stream.recorded.report.output import ReportPage
from stream.recorded.settings import AnalysisSettings
from stream.recorded.summary import package_versions

WITHOUT_EFFECT = {"landmarks.model", "recognizer.weights", "recognizer.network", "recognizer.engine_cache"}
"""Settings that do not decide what is found: paths, of files whose content does, and how these are named."""


@dataclass(frozen=True)
class AnalysisOptions:
    """How each video of a run is analysed and what is written besides the events; can be sent to another process."""

    settings: AnalysisSettings = field(default_factory=AnalysisSettings)
    pictures: bool = False
    """Store overview.png and a picture of each event, and put pictures into the report."""
    report: bool = True
    """Write report.html."""
    frames: bool = False
    """Write frames.csv, measurements of each face in each frame."""
    annotate: bool = False
    """Write annotated.mp4, the video with what was found drawn over it."""
    formats: tuple[str, ...] = ()
    """Formats of `stream.events.formats` in which events are written besides the usual ones."""
    unlinked: bool = False
    """Results are moved after they were made, so the report has no link to the video."""

    def wanted(self) -> Wanted:
        """What the results are to be. Raises WeightsError where the network is missing or damaged."""
        pipeline = self.settings.pipeline
        network = pipeline.recognizer.weights or weights_for(pipeline.recognizer.network)
        found: dict[str, Any] = {
            "version": package_versions()["apexstream"],
            "network": f"{load_card(network).name}@{sha256_of(network.with_suffix('.json'))[:12]}",
            "judge": sha256_of(default_weights().with_name(f"{JUDGE}.json"))[:12],
        }
        settings = flat(pipeline.model_dump(mode="json"))
        found |= {name: value for name, value in settings if name not in WITHOUT_EFFECT}
        found["reading.part_minutes"] = self.settings.reading.part_minutes
        return Wanted(found, sorted(self._extras()))

    def _extras(self) -> Iterator[str]:
        """Options that are switched on, and the values of those that have several."""
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, tuple):
                yield from map(str, value)
            elif value is True:
                yield option.name


def flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in a table of tables, each with the names on its way joined by dots."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def analyze_video(
    video: Path,
    folder: Path,
    /,
    options: AnalysisOptions,
    *,
    stream: str,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    steps: Iterable[Step] | None = None,
) -> Report:
    """Analyse a video as the options say; everything is written into folder.

    Parameters and errors are those of `stream.recorded.analyze.analyze`; OutputError and InputError also where pictures or an
    annotated video are wanted and cannot be made.
    """
    trail = _trail(video) if options.pictures else None
    outputs: list[Output] = [FacePlaces(folder)] if trail is None else [FacePlaces(folder), trail]
    if options.report:
        outputs.append(ReportPage(folder, video, pictures=options.pictures, linked=not options.unlinked))
    if options.frames:
        outputs.append(FrameTable(folder))
    if options.annotate:
        passes = _TwoPasses(progress)
        progress = passes.analyzed
        outputs.append(AnnotatedVideo(video, folder, stop=stop, progress=passes.drawn))
    report = analyze(
        video,
        folder,
        options.settings,
        stream=stream,
        progress=progress,
        outputs=outputs,
        formats=options.formats,
        stop=stop,
        models=_models(options.settings.pipeline),
        steps=steps,
    )
    if trail is not None:
        write_report_pictures(report, trail)
    return report


def analyzed_part(
    video: Path, part: Part, options: AnalysisOptions, *, stream: str, stop: threading.Event
) -> AbstractContextManager[Iterator[Step]]:
    """What is found in a part of a video, for `analyze_video` with the same options. Errors are those of
    `stream.recorded.analyze.found_in_part`."""
    return found_in_part(
        video,
        part,
        options.settings,
        stream,
        stop=stop,
        faces=options.report and options.pictures,
        models=_models(options.settings.pipeline),
    )


class _TwoPasses:
    """The progress of an analysis and of the second pass over the video, for its annotation, as that of one work."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._events = progress, 0

    def analyzed(self, done: int, expected: int | None, events: int) -> None:
        """Frames that were analysed."""
        self._events = events
        if self._progress is not None:
            self._progress(done, None if expected is None else 2 * expected, events)

    def drawn(self, done: int, count: int) -> None:
        """Pictures that were drawn, of all."""
        if self._progress is not None:
            self._progress(count + done, 2 * count, self._events)


@lru_cache(maxsize=1)
def _models(settings: PipelineSettings) -> Models:
    """The models of the videos that this process analyses, one after the other."""
    return Models(settings)


def _trail(video: Path) -> FaceTrail:
    check_drawing(video)
    return FaceTrail()
