"""The command `real`: what the pipeline finds in a folder of real clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from apexstream.display import table_console
from lab.clip_bench.jobs import PIPELINE, code_version
from lab.clip_bench.real.folder import read_clips
from lab.clip_bench.real.score import RealResult, real_summary
from lab.clip_bench.real.watch import RealJob, watch
from lab.clip_bench.tables import confusion_table, new_table, share
from lab.clip_bench.terminal import end, make_folder, run_all, write_figures

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
    from apexstream.commands.fetch import have_face_model
    from apexstream.commands.options import with_engines
    from stream.recorded.settings import load_analysis_settings

    chosen = read_clips(clips, only=only, split=split)
    settings = with_engines(load_analysis_settings(config).pipeline)
    have_face_model(settings.landmarks.model)
    pictures = None if out is None else make_folder(out / "pictures", "--out")
    by_name = {clip.name: clip for clip in chosen}

    def result(record: dict[str, Any]) -> RealResult:
        return RealResult(by_name[record["file"]], record)

    results = run_all(
        [RealJob.of(clip, settings, pictures) for clip in chosen],
        watch,
        lambda record: result_line(result(record)),
        workers=workers,
        out=None if out is None else out / "clips.jsonl",
        version=code_version(JUDGED),
    )
    found = [result(record) for record in results.records]
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
        clips = labelled["clips"] - labelled["neutral"]
        console.print(f"unweighted mean of the recalls of {clips} clips: {labelled['uar']:.3f}")
    if labelled and labelled["neutral"]:
        console.print(f"neutral clips with a named event: {labelled['neutral_named']} of {labelled['neutral']}")
    console.print(f"frames/s of a worker: {summary['pipeline_fps_of_a_worker']:.0f}; model {', '.join(summary['model'])}")


def real_tables(summary: Mapping[str, Any]) -> list[Table]:
    """All tables that there is something for."""
    tables = [_rates("events by kind of clip (others match no known expression)", summary["kinds"])]
    if summary["people"]:
        tables.append(_rates("events by person", summary["people"]))
    if summary["truths"]:
        tables += [
            _found("known expressions found: overlap of at least one half", summary["truths"], "overlap"),
            _found("known expressions found: apex inside", summary["truths"], "apex"),
        ]
    if summary["labelled"]:
        title = "surest named event of a clip: class of the clip down, event across"
        tables.append(confusion_table(summary["labelled"]["answers"], title))
    return tables


def result_line(result: RealResult) -> str:
    """A clip done, in a sentence's length."""
    record, events = result.record, result.events
    problem = f"; {record['problem']}" if record["problem"] else ""
    hits = f", {len(result.by_overlap)} of {len(result.clip.truths)} known found" if result.clip.truths else ""
    counts = f"{len(events)} events, {sum(e.named for e in events)} named, {record['blinks']} blinks{hits}"
    return (
        f"{result.clip.name} ({result.clip.kind}): {counts} in {record['seconds']:.1f} s; {record['pipeline_s']:.0f} s{problem}"
    )


def _rates(title: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("clips", "minutes", "events", "named", "events/min", "named/min", "others/min", "named", "blinks/min")
    table = new_table(*columns, "face", title=title)
    for g in groups:
        counts = (str(g["clips"]), f"{g['minutes']:.2f}", str(g["events"]), str(g["named"]))
        per_minute = [g[f"{name}_per_min"] for name in ("events", "named", "others", "others_named", "blinks")]
        rates = ["" if rate is None else f"{rate:.1f}" for rate in per_minute]
        table.add_row(g["group"], *counts, *rates, share(g["frames_with_face"] / g["frames"] if g["frames"] else None))
    return table


def _found(title: str, groups: Sequence[Mapping[str, Any]], way: str) -> Table:
    table = new_table("truths", "found", "hits", "recall", "precision", "F1", "named", "class right", title=title)
    for g in groups:
        f = g[way]
        found = "" if g["found"] is None else str(g["found"])
        right = f"{share(f['class_accuracy'])} ({f['right']}/{f['judged']})" if f["judged"] else ""
        scores = (share(f["recall"]), share(f["precision"]), share(f["f1"]))
        table.add_row(g["group"], str(g["truths"]), found, str(f["hits"]), *scores, str(f["named"]), right)
    return table
