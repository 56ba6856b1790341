"""`apexstream agreement`: how far coders of a reviewed video agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import say
from engine.text import plain

if TYPE_CHECKING:
    from stream.review.agreement import Agreement, PairAgreement, Unit

SHOWN = 20


def agreement(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="The folder of one video's results.", show_default=False)],
    *,
    coders: Annotated[
        list[str] | None, typer.Option("--coder", metavar="NAME", help="Only these; repeatable.", show_default="all")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the figures as JSON too.", show_default=False)
    ] = None,
) -> None:
    """Say how far the coders of a reviewed video agree with each other and with the machine, and where they do not.

    Each event of the machine and each expression that was added is judged by every coder: a class, or none. Cohen's kappa is
    over all classes, and of each class against all others; Krippendorff's alpha is of all coders at once, where they are more
    than two. Onset, apex and offset are compared where two coders' expressions overlap by half or more. A third person decides
    about the disagreements with `apexstream review RESULTS --adjudicate --coder NAME`.
    """
    from stream.recorded.results import read_results
    from stream.review.agreement import agreement_of, disagreements, units_of
    from stream.review.database import ReviewDatabase

    found = read_results(results)
    with ReviewDatabase.open_existing(results) as database:
        database.require_same_events(found.entries)
        codes, people = database.codes(), list(dict.fromkeys(coders)) if coders else database.people()
        hidden = {coder: database.blind_of(coder) for coder in people}
    units = units_of(found, codes, hidden)
    figures, open_ones = agreement_of(units, people), disagreements(units, people)
    _show(figures, f"{plain(results)}: {len(units)} events and additions, judged by {', '.join(map(plain, people))}")
    if len(people) > 1:
        _list(open_ones, people, found.origin)
    if out is not None:
        from stream.files import write_atomically
        from stream.recorded.files import as_json

        listed = [{"id": unit.id, "t": unit.start, "labels": _labels(unit, people)} for unit in open_ones]
        write_atomically(out, [as_json({**figures.as_dict(), "disagreements": listed if len(people) > 1 else []})])


def _show(figures: Agreement, title: str) -> None:
    from rich.table import Table

    from apexstream.display import table_console

    say(title)
    labels = list(dict.fromkeys(label for pair in figures.pairs for label in pair.by_class))
    table = Table("coders", "judged", "both saw", "overlap", "kappa", *labels, "onset s", "apex s", "offset s")
    for pair in figures.pairs:
        table.add_row(*_row(pair, labels))
    table_console().print(table)
    if figures.people > 2:
        classes = ", ".join(f"{label} {_number(alpha)}" for label, alpha in figures.alpha_by_class.items())
        say(f"Krippendorff's alpha of {figures.people} coders: {_number(figures.alpha)} ({classes})")


def _row(pair: PairAgreement, labels: list[str]) -> list[str]:
    cells = [f"{plain(pair.first)}, {plain(pair.second)}", str(pair.units), str(pair.both), str(pair.matched)]
    cells += [_number(pair.kappa), *(_number(pair.by_class.get(label)) for label in labels)]
    return cells + [_number(pair.differences[mark]) for mark in ("onset", "apex", "offset")]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _labels(unit: Unit, people: list[str]) -> dict[str, str | None]:
    return {person: unit.label(person) for person in people}


def _list(units: list[Unit], people: list[str], origin: float) -> None:
    say(f"{len(units)} disagreement{'s' * (len(units) != 1)}{':' if units else ''}")
    for unit in units[:SHOWN]:
        given = ", ".join(f"{plain(person)} {plain(label or 'not decided')}" for person, label in _labels(unit, people).items())
        say(f"  {unit.start - origin:9.3f} s  face {unit.face}  {given}")
    if len(units) > SHOWN:
        say(f"  ... and {len(units) - SHOWN} more; --out FILE writes all")
