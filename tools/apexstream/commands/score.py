"""`apexstream score`: what was found in a video against the codes of a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import left_out_sentence, say
from apexstream.commands.options import one_of
from engine.errors import InputError
from engine.text import plain

if TYPE_CHECKING:
    from apexstream.scoring import Comparison
    from stream.annotations.timed_label import TimedLabel, Wanted

KINDS = ("micro", "macro")
LATE_S = 1.0
"""What begins later than so long after the end of the video cannot be of it."""


def score(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="The folder that `analyze` wrote for the video.")],
    truth: Annotated[
        Path,
        typer.Argument(metavar="TRUTH", help="A person's codes: .eaf, .TextGrid, .boris, .tsv, .csv, or a reviewed folder."),
    ],
    *,
    reviewed: Annotated[bool, typer.Option("--reviewed", help="Judge the events as --coder left them, not as found.")] = False,
    coder: Annotated[str | None, typer.Option("--coder", metavar="NAME", help="Whose review.", show_default=False)] = None,
    truth_coder: Annotated[
        str | None,
        typer.Option(
            "--truth-coder", metavar="NAME", help="Whose review is the truth, in a folder.", show_default="the only one"
        ),
    ] = None,
    tiers: Annotated[
        list[str] | None,
        typer.Option(
            "--tier",
            metavar="NAME",
            help="Only this tier (ELAN, Praat), behaviour or category (BORIS); repeatable.",
            show_default="those of an export, or the only one",
        ),
    ] = None,
    observation: Annotated[
        str | None,
        typer.Option("--observation", metavar="NAME", help="Which of a BORIS project.", show_default="that of the video"),
    ] = None,
    mapped: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="LABEL=CLASS", help="The class of a label of the coder's; repeatable.", show_default=False
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", metavar="micro|macro", callback=one_of(KINDS), help="Only these, by length.", show_default="both"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the figures as JSON too.", show_default=False)
    ] = None,
) -> None:
    """Compare what was found in a video with the codes of a person.

    An event is right where it overlaps a code by half or more, each with one other at most (the rule of the Micro-Expression
    Grand Challenge). Prints precision, recall and F1, how far onsets, apexes and offsets differ, the confusion of the classes
    and Cohen's kappa. Emotions and action units are mapped to classes: happiness and AU12 to positive, anger and AU4 to
    negative, AU1+AU2 to surprise; --map LABEL=CLASS maps others.

    apexstream score results/interview anna.eaf --map smirk=negative
    """
    from apexstream.scoring import compare, labels_of, of_kind
    from stream.annotations.classes import own_mapping
    from stream.annotations.timed_label import Wanted
    from stream.recorded.results import read_results
    from stream.review.entries import reviewed_entries

    if reviewed != (coder is not None):
        raise typer.BadParameter("--reviewed and --coder NAME belong together")
    if results.is_file():
        raise InputError(f"{results} is a file; the folder of results goes first: apexstream score RESULTS {truth}")
    found = read_results(results)
    fps = found.recording().fps
    if not fps:
        raise InputError(f"{results}: the summary does not say how many frames a second the video has; analyse it again")
    video = None if found.video is None else found.video.name
    truth_coder = _truth_coder(truth, truth_coder)
    coded = _truth(truth, Wanted(tuple(tiers or ()), observation, video, fps), truth_coder)
    labels = labels_of(found.entries if coder is None else reviewed_entries(results, coder))
    left_out: dict[str, int] = {}
    if truth_coder is not None:
        labels = _without_undecided(labels, _folder(truth), truth_coder, fps, left_out)
    if coder is not None:
        coded = _without_undecided(coded, results, coder, fps, left_out)
    length_s = found.recording().length_s
    coded = _within(coded, length_s)
    if kind is not None:
        labels, coded = (of_kind(side, "micro" if kind == "micro" else "macro") for side in (labels, coded))
    comparison = compare(labels, coded, fps=fps, length_s=length_s or 0.0, own=own_mapping(mapped or ()))
    found_by, coded_by = (f" as {plain(name)} left it" if name else "" for name in (coder, truth_coder))
    _show(comparison, f"{plain(results)}{found_by} against {plain(truth)}{coded_by}")
    if out is not None:
        from stream.files import write_atomically
        from stream.recorded.files import as_json

        write_atomically(out, [as_json({**comparison.as_dict(), "undecided": left_out})])


def _folder(truth: Path) -> Path:
    return truth if truth.is_dir() else truth.parent


def _truth_coder(truth: Path, coder: str | None) -> str | None:
    """Whose review is the truth: the one that is named, or the only one; None where the truth is a file."""
    from stream.review.database import FILE, ReviewDatabase

    if not truth.is_dir() and truth.name != FILE:
        if coder is not None:
            raise typer.BadParameter("--truth-coder is for a reviewed folder; a file has one coder")
        return None
    if coder is None:
        folder = _folder(truth)
        with ReviewDatabase.open_existing(folder) as database:
            coders = list(database.coders())
        if len(coders) != 1:
            raise InputError(f"{folder} was reviewed by {', '.join(coders) or 'nobody'}; choose one by --truth-coder")
        (coder,) = coders
    return coder


def _truth(path: Path, wanted: Wanted, coder: str | None) -> list[TimedLabel]:
    """What a file holds, or what a coder of a reviewed folder left."""
    from apexstream.scoring import labels_of
    from stream.annotations.reading import read_annotations
    from stream.review.entries import reviewed_entries

    if coder is not None:
        return labels_of(reviewed_entries(_folder(path), coder))
    coded = read_annotations(path, wanted)
    if not coded:
        raise InputError(f"{path} holds no codes to compare with")
    return coded


def _without_undecided(
    labels: list[TimedLabel], folder: Path, coder: str, fps: float, left_out: dict[str, int]
) -> list[TimedLabel]:
    """The labels of the other side without events of the machine about which a coder has not decided; these are counted."""
    from apexstream.scoring import labels_of, without
    from stream.review.entries import undecided

    if open_ones := labels_of(undecided(folder, coder)):
        left_out[coder] = len(open_ones)
        say(f"{folder}: {left_out_sentence(coder, len(open_ones))}", err=True)
    return without(labels, open_ones, fps)


def _within(coded: list[TimedLabel], length_s: float | None) -> list[TimedLabel]:
    """The codes of the video, which lasts so long; others are named and left out."""
    if length_s is None:
        return coded
    kept = [one for one in coded if one.start <= length_s + LATE_S]
    if late := len(coded) - len(kept):
        lie = "code lies" if late == 1 else "codes lie"
        reason = "is this the same video, and are its times in seconds?"
        say(f"{late} {lie} after the end of the video at {length_s:.1f} s, left out: {reason}", err=True)
    return kept


def _show(comparison: Comparison, title: str) -> None:
    from apexstream.display import table_console

    score, console = comparison.score, table_console()
    say(f"{title}: {score.tp + score.fp} found, {score.tp + score.fn} coded")
    say(f"  spotting: precision {score.precision:.3f}, recall {score.recall:.3f}, F1 {score.f1:.3f}")
    say(f"  {score.tp} matched, {score.fp} found but not coded, {score.fn} coded but missed")
    if unmapped := comparison.unmapped:
        names = ", ".join(f"{plain(label) or 'no label'} ({count})" for label, count in sorted(unmapped.items()))
        say(f"  compared in time only, as they have no class: {names}; --map LABEL=CLASS gives them one")
    if not score.tp:
        return
    console.print(_table(["mark", "pairs", "median error", "", "mean, later > 0", ""], _error_rows(comparison)))
    if score.confusion:
        truths, guesses = (sorted({pair[side] for pair in score.confusion}) for side in (0, 1))
        rows = [[label, *(str(score.confusion.get((label, guess), 0)) for guess in guesses)] for label in truths]
        console.print(_table(["coded as \\ found as", *guesses], rows))
    kappa, frames = (("not defined" if k is None else f"{k:.3f}") for k in (comparison.kappa, comparison.frame_kappa))
    say(f"  Cohen's kappa: {kappa} of the classes of matched pairs, {frames} frame by frame")


def _error_rows(comparison: Comparison) -> list[list[str]]:
    rows = []
    for name, error in comparison.as_dict()["errors"].items():
        cells = [name, str(error["count"] if error else 0)]
        for which, form in (("median", ".{}f"), ("mean", "+.{}f")) if error else ():
            ms, frames = (round(error[f"{which}_{unit}"], digits) + 0.0 for unit, digits in (("ms", 0), ("frames", 1)))
            cells += [f"{ms:{form.format(0)}} ms", f"{frames:{form.format(1)}} frames"]
        rows.append(cells)
    return rows


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(plain(name), justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(plain, row))
    return table
