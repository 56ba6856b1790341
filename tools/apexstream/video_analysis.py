"""One recorded video from file to results, with everything that options of `apexstream analyze` add to the event files."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from apexstream.overview import write_report_pictures
from apexstream.pictures import FaceTrail, check_drawing
from stream.recorded.analyze import Progress, Report, analyze
from stream.recorded.frames import FrameTable
from stream.recorded.output import Output
from stream.recorded.settings import AnalysisSettings


@dataclass(frozen=True)
class AnalysisOptions:
    """How each video of a run is analysed and what is written besides the events; can be sent to another process."""

    settings: AnalysisSettings = field(default_factory=AnalysisSettings)
    pictures: bool = False
    """Store overview.png and a picture of each event."""
    frames: bool = False
    """Write frames.csv, measurements of each face in each frame."""


def analyze_video(
    video: Path,
    folder: Path,
    options: AnalysisOptions,
    *,
    stream: str | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Analyse a video as the options say; everything is written into folder.

    Parameters and errors are those of `stream.recorded.analyze.analyze`; OutputError and InputError also where pictures are
    wanted and cannot be made.
    """
    trail = _trail(video) if options.pictures else None
    outputs: list[Output] = [] if trail is None else [trail]
    if options.frames:
        outputs.append(FrameTable(folder))
    report = analyze(video, folder, options.settings, stream=stream, progress=progress, outputs=outputs, stop=stop)
    if trail is not None:
        write_report_pictures(report, trail)
    return report


def _trail(video: Path) -> FaceTrail:
    check_drawing(video)
    return FaceTrail()
