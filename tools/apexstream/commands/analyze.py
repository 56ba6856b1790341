"""`apexstream analyze`: recorded videos to event files."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import say, say_error, unexpected
from apexstream.commands.fetch import have_face_model
from apexstream.commands.options import Network, SensitivityOption, Weights, with_engines, with_network, with_sensitivity
from apexstream.native_output import native_output_hidden
from engine.errors import ApexError
from engine.text import plain

if TYPE_CHECKING:
    from apexstream.video_analysis import AnalysisOptions
    from stream.recorded.analyze import Report


def analyze(
    ctx: typer.Context,
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO", help="Recorded videos.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results, one folder in it per video.")],
    *,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings (TOML).", show_default=False)
    ] = None,
    network: Network = None,
    weights: Weights = None,
    sensitivity: SensitivityOption = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Store faces too: a picture of each event, and overview.png. Off for privacy.")
    ] = False,
    frames: Annotated[
        bool, typer.Option("--frames", help="Write frames.csv too: head, regions, lids, speech of each face in each frame.")
    ] = False,
) -> None:
    """Find and recognize expressions in recorded videos.

    Writes DIR/<name>/events.jsonl, events.csv, events.vtt, activity.jsonl and summary.json for each video. No picture of a face
    is stored unless --pictures asks for it. One video failing does not stop the rest; the exit code is 1 if any did. Ctrl-C
    keeps what was found until then. A name that begins with - is written ./-name.
    """
    from stream.model_trial import try_opening
    from stream.process import load_less
    from stream.recorded.settings import load_analysis_settings

    if network and weights:
        raise typer.BadParameter("--network takes shipped weights and --weights a file: give one of them")
    settings, debug = load_analysis_settings(config), bool(ctx.obj["debug"])
    pipeline = with_sensitivity(with_network(settings.pipeline, network, weights), sensitivity)
    settings = settings.model_copy(update={"pipeline": with_engines(pipeline)})
    have_face_model(settings.pipeline.landmarks.model)
    try_opening(settings.pipeline.recognizer.weights)
    with native_output_hidden(not debug), stopped_by_signals() as stop:
        load_less()
        from apexstream.video_analysis import AnalysisOptions  # after load_less: it loads numba

        options = AnalysisOptions(settings, pictures=pictures, frames=frames)
        failed = False
        for video, name in zip(videos, folder_names(videos, out), strict=True):
            if stop.is_set():
                say_error(f"{video}: not analysed, stopped by the user")
                failed = True
                continue
            if name != video.stem:
                say(f"{video}: another video is called {video.stem} too; its results go to {out / name}")
            try:
                failed |= not _analyze_one(video, out / name, options, stop)
            except Exception as error:  # noqa: BLE001 - reported to the user; the videos after it are analysed
                _report_failure(video, error, debug)
                failed = True
    if failed:
        raise typer.Exit(1)


def _report_failure(video: Path, error: Exception, debug: bool) -> None:
    sentence = str(error) if isinstance(error, ApexError) else unexpected(error)
    say_error(sentence if str(video) in sentence else f"{video}: {sentence}")
    if debug:
        traceback.print_exception(error)


def _analyze_one(video: Path, folder: Path, options: AnalysisOptions, stop: threading.Event) -> bool:
    """Analyse one video and show what came of it; True when all of it was analysed."""
    from apexstream.display import progress_bar
    from apexstream.video_analysis import analyze_video

    with progress_bar(plain(video.name)) as progress:
        report = analyze_video(video, folder, options, stream=folder.name, progress=progress, stop=stop)
    show(report)
    if report.problem is not None:
        say_error(report.problem)
    if options.pictures:
        say(f"  pictures: {folder / 'overview.png'} and {len(report.events)} of events beside it")
    return report.problem is None


def show(report: Report) -> None:
    """One line and a table for an analysed video, on stdout."""
    from apexstream.display import SHOWN_EVENTS, event_table, table_console

    summary = report.summary
    video, count = summary["video"], len(report.events)
    console = table_console()
    duration = video["duration"] or 0.0
    console.print(
        f"{plain(report.path)}: {count} event{'s' * (count != 1)} in {video['frames']} frames ({duration:.1f} s), "
        f"{summary['frames_per_s']:.0f} frames/s; results in {plain(report.folder)}",
        markup=False,
        soft_wrap=True,
    )
    for warning in [*video["warnings"], *summary["notes"]]:
        console.print(f"  note: {plain(warning)}", markup=False, soft_wrap=True)
    if count:
        console.print(event_table(report.events[:SHOWN_EVENTS]))
    if count > SHOWN_EVENTS:
        console.print(
            f"  ... and {count - SHOWN_EVENTS} more in {plain(report.folder / 'events.csv')}", markup=False, soft_wrap=True
        )


def folder_names(videos: list[Path], out: Path) -> list[str]:
    """A name for each video's folder in out: its stem, or stem-2, stem-3 ... where another video took it (whatever the case),
    now or in an earlier run."""
    from stream.recorded.files import analysed_video

    taken: set[str] = set()
    names = []
    for video in videos:
        stem = video.stem.strip(".") or "video"
        name, number = stem, 1
        while name.casefold() in taken or analysed_video(out / name) not in (None, video.resolve()):
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that the first signal sets, so that work can end in order; a second Ctrl-C ends the process at once."""
    from stream.shutdown import GracefulShutdown

    stop = threading.Event()
    with GracefulShutdown(limit_s=None) as shutdown:
        shutdown.on_signal(stop.set)
        yield stop
