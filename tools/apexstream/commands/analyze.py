"""`apexstream analyze`: recorded videos to event files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands.fetch import have_face_model
from apexstream.commands.options import (
    ClusterOption,
    Formats,
    Network,
    SensitivityOption,
    Weights,
    number_of_jobs,
    with_engines,
    with_network,
    with_sensitivity,
)
from apexstream.native_output import native_output_hidden

if TYPE_CHECKING:
    from stream.recorded.folders.store import Store
    from stream.recorded.folders.workers import StopRequest


def analyze(
    ctx: typer.Context,
    videos: Annotated[
        list[Path], typer.Argument(metavar="VIDEO|FOLDER", help="Recorded videos, or folders of them.", show_default=False)
    ],
    out: Annotated[
        str,
        typer.Option("--out", metavar="DIR|URL", help="Folder for the results, one folder in it per video; or s3://BUCKET/..."),
    ],
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search folders in the folders, too.")] = False,
    jobs: Annotated[
        str, typer.Option("--jobs", metavar="auto|N", callback=number_of_jobs, help="Videos that are analysed at once.")
    ] = "auto",
    again: Annotated[bool, typer.Option("--again", help="Analyse what is finished and unchanged, too.")] = False,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings (TOML).", show_default=False)
    ] = None,
    network: Network = None,
    weights: Weights = None,
    sensitivity: SensitivityOption = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Store faces too: a picture of each event, and overview.png. Off for privacy.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html, a page with what was found and what could be seen.")
    ] = True,
    frames: Annotated[
        bool, typer.Option("--frames", help="Write frames.csv too: head, regions, lids, speech of each face in each frame.")
    ] = False,
    annotate: Annotated[
        bool,
        typer.Option("--annotate", help="Write annotated.mp4 too: the video with regions, motion, labels and time on it."),
    ] = False,
    formats: Formats = None,
    cluster: ClusterOption = None,
) -> None:
    """Find and recognize expressions in recorded videos.

    Writes DIR/<name>/report.html, a page to look at, and events.jsonl, events.csv, events.vtt, activity.jsonl and summary.json
    for each video. No picture of a face is stored unless --pictures or --annotate asks for it. One video failing does not stop
    the rest; the exit code is 1 if any did. Ctrl-C keeps what was found until then. A name that begins with - is written
    ./-name.

    The folders in DIR mirror those of the videos. What is finished is skipped, unless the video, the settings or the program
    have changed: after an interruption the same command goes on where it was.
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
    with native_output_hidden(not debug), stopped_by_signals() as stop, _opened(out) as (folder, store):
        load_less()  # before the imports below, which load numba
        from apexstream.commands.analysis_run import AnalysisRun
        from apexstream.video_analysis import AnalysisOptions

        options = AnalysisOptions(
            settings,
            pictures=pictures,
            frames=frames,
            annotate=annotate,
            report=report,
            formats=tuple(formats or ()),
            unlinked=store is not None,
        )
        complete = AnalysisRun(options, folder, stop, debug=debug, store=store).analyze(
            videos, recursive=recursive, again=again, jobs=None if jobs == "auto" else int(jobs), cluster=cluster
        )
    if not complete:
        raise typer.Exit(1)


@contextmanager
def _opened(out: str) -> Iterator[tuple[Path, Store | None]]:
    """The folder for results, or a mirror of the store for them and the store."""
    from stream.recorded.folders.store import Store, is_url

    if not is_url(out):
        yield Path(out), None
        return
    store = Store(out)
    store.check()
    with store.mirror() as folder:
        yield folder, store


@contextmanager
def stopped_by_signals() -> Iterator[StopRequest]:
    """An event that the first signal sets, so that work can end in order; a second Ctrl-C ends the process at once."""
    from stream.recorded.folders.workers import StopRequest
    from stream.shutdown import GracefulShutdown

    stop = StopRequest()
    with GracefulShutdown(limit_s=None) as shutdown:
        shutdown.on_signal(stop.set)
        yield stop
