"""`apexstream spot-evaluate`: judge spotting on real long videos, subjects held out, beside published figures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import check_target, say
from apexstream.commands.fetch import have_face_model
from apexstream.native_output import native_output_hidden

if TYPE_CHECKING:
    from rich.table import Table

    from training.datasets.long_video import LongVideo, LongVideos
    from training.spot_scores import RowScore

NAMES = "casme2-squared, samm-lv or casme3"
SHOWN = 5


def spot_evaluate(
    ctx: typer.Context,
    *,
    database: Annotated[str, typer.Argument(metavar="DATABASE", help=f"Which one: {NAMES}.", show_default=False)],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder with its pictures, at any depth, or with DATABASE.npz of region flow.",
            show_default=False,
        ),
    ],
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            metavar="FILE",
            help="Its table; default: found in or near DATA; of region flow, its own.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Subjects at once, each on one thread; default: one a CPU.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is fitted.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Record (JSON) with every interval found.", show_default=False),
    ] = None,
) -> None:
    """Judge spotting on real long videos: leave one subject out, IoU of at least .5, F1 pooled over all videos.

    Pictures go frame by frame through the live pipeline, which fits nothing here. Region flow (published for casme2-squared and
    samm-lv) is spotted by the judge of live analysis, fitted to the other subjects, and first to the other database where that
    lies in DATA too. A prediction is micro up to half a second, else macro.
    """
    from rich.console import Console

    from apexstream.display import stages_bar
    from training.datasets.long_video import load
    from training.spot_flow import spotter
    from training.spot_loso import live, spot_unseen
    from training.spot_scores import record, score_rows, write_record

    if out is not None:
        check_target(out, "--out")
    videos = load(database, data, annotations)
    _show_data(videos)
    if videos.has_pictures:
        have_face_model()
    hidden = native_output_hidden(not ctx.obj["debug"]) if videos.has_pictures else nullcontext()
    with hidden:
        bar = stages_bar(Console(stderr=True))
        spot = live if videos.has_pictures else spotter(_others(videos, data), seed, bar)
        found = spot_unseen(videos.videos, spot, seed=seed, jobs=jobs or os.cpu_count() or 1, progress=bar)
    rows = score_rows(videos.videos, found)
    if out is not None:
        command = f"apexstream spot-evaluate {videos.database.name} DATA --seed {seed}"
        write_record(out, record(videos, found, rows, command=command, seed=seed))
    _show(videos, rows)


def _show_data(videos: LongVideos) -> None:
    """What is judged, and what is not."""
    say(videos.summary)
    for title, lost in (("named by the table but absent", videos.absent), ("rows left out", videos.left_out)):
        if lost:
            more = " ..." if len(lost) > SHOWN else ""
            say(f"  {title}: {len(lost)} ({'; '.join(lost[:SHOWN])}{more})")


def _others(videos: LongVideos, data: Path) -> Sequence[LongVideo]:
    """The videos of other databases beside those judged, which are fitted to first."""
    from training.spot_flow import other_videos

    others = other_videos(videos.database.name, data)
    if others:
        say(f"fitted first to {len(others)} videos of {', '.join(sorted({video.database for video in others}))}")
    return others


def _show(videos: LongVideos, rows: Mapping[str, RowScore]) -> None:
    from apexstream.display import table_console

    console = table_console()
    for table in _tables(videos.database.name, rows):
        console.print(table)
    for sentence in _notes(videos, rows):
        say(sentence)
    say(f"overall F1 {_short(rows['overall'].pooled.f1)}")


def _tables(database: str, rows: Mapping[str, RowScore]) -> Iterator[Table]:
    from rich import box
    from rich.table import Table

    from training.published import SPOTTING

    scores = Table("", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("TP", "FP", "FN", "P", "R", "F1", "F1 a subject"):
        scores.add_column(name, justify="right", no_wrap=True)
    for name, judged in rows.items():
        pooled = judged.pooled
        counts = (str(pooled.tp), str(pooled.fp), str(pooled.fn))
        ratios = (_short(value) for value in (pooled.precision, pooled.recall, pooled.f1))
        scores.add_row(name, *counts, *ratios, f"{_short(judged.mean)} ± {_short(judged.spread)}")
    yield scores
    others = [each for each in SPOTTING if each.database == database]
    if others:
        published = Table("published", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("micro", "macro", "micro + macro"):
            published.add_column(name, justify="right")
        published.add_column("how")
        for each in others:
            published.add_row(each.name, *(f"{v:.4f}".lstrip("0") for v in (each.micro, each.macro, each.overall)), each.how)
        yield published


def _notes(videos: LongVideos, rows: Mapping[str, RowScore]) -> Sequence[str]:
    from training.spot_scores import strs_missing

    missing = strs_missing(videos, rows)
    if missing:
        return [missing]
    overall = rows["overall"].pooled
    recognition = f"recognition F1 {_short(overall.recognition_f1)} over {sum(overall.confusion.values())} spotted"
    strs = f"STRS {_short(overall.strs)} = F1 {_short(overall.f1)} x {recognition}, {overall.abstained} of them uncertain"
    seen = ["the shipped networks were fitted to SAMM: its faces are not new to them, so this STRS is no fair figure"]
    return [strs, *(seen if videos.database.name == "samm-lv" else [])]


def _short(value: float) -> str:
    """.123 for 0.123, as the field writes it."""
    return "-" if math.isnan(value) else f"{value:.3f}".removeprefix("0")
