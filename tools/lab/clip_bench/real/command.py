"""The command `real`: what the pipeline finds in a folder of real clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from apexstream.display import table_console
from engine.errors import OutputError
from lab.clip_bench.jobs import PIPELINE, code_version
from lab.clip_bench.real.folder import read_clips
from lab.clip_bench.real.score import RealResult, real_summary
from lab.clip_bench.real.tables import real_tables, result_line
from lab.clip_bench.real.watch import RealJob, watch
from lab.clip_bench.terminal import end, run_all, write_figures

JUDGED = (*PIPELINE, "tools/lab/clip_bench/real/watch.py")


def real(
    *,
    clips: Annotated[Path, typer.Option(metavar="DIR", help="Folder of videos; its subfolders count too.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the record, the figures and the page of pictures here.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "--jobs", min=0, help="Worker processes; 0 is one a core.")] = 0,
    only: Annotated[
        str | None, typer.Option(metavar="PATTERN,...", help="Only videos of such names, as in 'anna_*,ben_*'.")
    ] = None,
    split: Annotated[
        Literal["tune", "test"] | None, typer.Option(help="Only videos with this word in the column split of the manifest.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Settings, as for apexstream analyze.")] = None,
) -> None:
    """What is found in real videos: events by the minute, known expressions that are found, and an HTML page.

    DIR may hold manifest.csv (columns file, person, kind, note, label, split; kind is speech, quiet, posing, blinks, gestures,
    crowd or other; label the class of the whole clip: negative, positive, surprise or neutral; split tune or test), labels.csv
    (file, onset, apex, offset, label: expressions timed by hand, in seconds), and beside a video with injected expressions the
    renderer's NAME.truth.json. FOLDER gets clips.jsonl (a run that was stopped goes on from there), figures.json, index.html
    and pictures/. The page and its pictures show the people in the videos: they stay on this machine.

    Example: python -m lab.clip_bench real --clips my-clips --out runs/real --only 'anna_*' --workers 1
    """
    from apexstream.commands.analyze import with_engines
    from apexstream.commands.fetch import have_face_model
    from stream.settings import load_analysis_settings

    chosen = read_clips(clips, only=only, split=split)
    settings = with_engines(load_analysis_settings(config).pipeline)
    have_face_model(settings.landmarks.model)
    pictures = None if out is None else _made(out / "pictures")
    by_name = {clip.name: clip for clip in chosen}

    def line(record: dict[str, Any]) -> str:
        return result_line(RealResult(by_name[record["file"]], record))

    results = run_all(
        [RealJob.of(clip, settings, pictures) for clip in chosen],
        watch,
        line,
        workers=workers,
        out=None if out is None else out / "clips.jsonl",
        version=code_version(JUDGED),
    )
    found = [RealResult(by_name[record["file"]], record) for record in results.records]
    summary = real_summary(found)
    _show(summary)
    if out is not None:
        from lab.clip_bench.real.page import write_page

        write_figures(out / "figures.json", results, {"benchmark": "real", **summary})
        page = write_page(out, found, summary)
        Console(stderr=True).print(f"page: {page} (it shows people; keep it here)", highlight=False, markup=False)
    end(results)


def _show(summary: dict[str, Any]) -> None:
    console = table_console()
    for table in real_tables(summary):
        console.print(table)
    labelled = summary["labelled"]
    if labelled and labelled["uar"] is not None:
        console.print(
            f"unweighted mean of the recalls of {labelled['clips'] - labelled['neutral']} clips: {labelled['uar']:.3f}"
        )
    if labelled and labelled["neutral"]:
        console.print(f"neutral clips with a named event: {labelled['neutral_named']} of {labelled['neutral']}")
    console.print(f"frames/s of a worker: {summary['pipeline_fps_of_a_worker']:.0f}; model {', '.join(summary['model'])}")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror or error}; choose another --out") from error
    return folder
