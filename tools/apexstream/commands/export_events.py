"""`apexstream export-events`: the events of analysed videos, raw or reviewed, as files of other programs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import left_out_sentence, say
from apexstream.commands.options import all_of
from engine.errors import OutputError
from stream.events.formats import FORMATS, Entry, Recording, file_name

if TYPE_CHECKING:
    from stream.events.formats import Format


def export_events(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="Folders that `analyze` wrote, one a video.")],
    *,
    formats: Annotated[
        list[str],
        typer.Option("--format", metavar="|".join(FORMATS), callback=all_of(tuple(FORMATS)), help="Of the files; repeatable."),
    ],
    reviewed: Annotated[bool, typer.Option("--reviewed", help="The events as --coder left them, not as found.")] = False,
    coder: Annotated[str | None, typer.Option("--coder", metavar="NAME", help="Whose review.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Another file, of one folder in one format.", show_default="RESULTS/events.<ending>"
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace files that are there.")] = False,
) -> None:
    """Export the events of analysed videos to other programs.

    eaf: ELAN, with the video linked. textgrid: Praat. boris: a BORIS project. csv, jsonl, vtt, parquet: tables, JSON and
    subtitles. The files lie beside the results, as events.eaf, or reviewed-NAME.eaf with --reviewed. Nothing that is there is
    replaced unless --replace says so: you may have worked on it.

    apexstream export-events results/interview --format eaf --reviewed --coder anna
    """
    if reviewed != (coder is not None):
        raise typer.BadParameter("--reviewed and --coder NAME belong together")
    if out is not None and len(results) * len(formats) > 1:
        raise typer.BadParameter("--out names one file: give one folder and one --format")
    for name in formats:
        FORMATS[name].check()
    for folder in results:
        entries, recording = _events(folder, coder)
        for name in formats:
            path = out or folder / _file_name(name, coder)
            _write(path, FORMATS[name], entries, recording, replace=replace)


def _events(folder: Path, coder: str | None) -> tuple[Sequence[Entry], Recording]:
    from stream.recorded.results import read_results

    found = read_results(folder)
    if coder is None:
        return found.entries, found.recording()
    from stream.review.entries import reviewed_entries, undecided

    entries = reviewed_entries(folder, coder)
    if left_out := undecided(folder, coder):
        say(f"{folder}: {left_out_sentence(coder, len(left_out))}", err=True)
    return entries, found.recording(coder)


def _file_name(name: str, coder: str | None) -> str:
    if coder is None:
        return file_name(name)
    by = re.sub(r"[^\w-]+", "_", coder)
    return f"reviewed-{by}.{FORMATS[name].ending or name}"


def _write(path: Path, format_: Format, entries: Sequence[Entry], recording: Recording, *, replace: bool) -> None:
    from stream.files import write_atomically

    if path.exists() and not replace:
        raise OutputError(f"{path} is there already; --replace replaces it, --out FILE writes another")
    write_atomically(path, format_.export(entries, dataclasses.replace(recording, folder=path.parent)))
    say(f"{path}: {len(entries)} event{'s' * (len(entries) != 1)}")
