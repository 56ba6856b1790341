"""`apexstream agreement`: how far coders of a reviewed video agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import say
from engine.text import plain

if TYPE_CHECKING:
    from rich.table import Table

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
    than two. Onset, apex and offset are compared where two coders' expressions overlap by half or more. What a coder has not
    decided about is left out of that coder's figures, and counted. A third person decides about the disagreements with
    `apexstream review RESULTS --adjudicate --coder NAME`; of one coder the differences from the machine are listed.
    """
    from stream.recorded.results import read_results
    from stream.review.agreement import MACHINE, agreement_of, disagreements, undecided, units_of
    from stream.review.database import ReviewDatabase

    found = read_results(results)
    with ReviewDatabase.open_existing(results) as database:
        database.require_same_events(found.entries)
        codes, people = database.codes(), list(dict.fromkeys(coders)) if coders else database.people()
        hidden = {coder: database.blind_of(coder) for coder in people}
    units = units_of(found, codes, hidden)
    judges = people if len(people) > 1 else [*people, MACHINE]
    figures, open_ones, left = agreement_of(units, people), disagreements(units, judges), undecided(units, people)
    _show(figures, f"{plain(results)}: {len(units)} events and additions, judged by {', '.join(map(plain, people))}")
    _list(open_ones, judges, found.origin)
    for person, count in left.items():
        say(f"{count} event{'s' * (count != 1)} undecided by {plain(person)}, left out of {plain(person)}'s figures")
    if out is not None:
        from stream.files import write_atomically
        from stream.recorded.files import as_json

        listed = [{"id": unit.id, "t": unit.start, "labels": _labels(unit, judges)} for unit in open_ones]
        write_atomically(out, [as_json({**figures.as_dict(), "disagreements": listed, "undecided": left})])


def _show(figures: Agreement, title: str) -> None:
    from apexstream.display import table_console

    console = table_console()
    say(title)
    say("\nCohen's kappa over all classes, and of each class against all others\n(none: no expression)")
    console.print(_table(("coders", "class"), ("kappa",), [row for pair in figures.pairs for row in _kappas(pair)]))
    say("Expressions that both saw, those of them that overlap by half or more, and the")
    say("median absolute differences of their marks in seconds")
    numbers = ("judged", "both saw", "overlap", "onset s", "apex s", "offset s")
    console.print(_table(("coders",), numbers, map(_expressions, figures.pairs)))
    if figures.people > 2:
        say(f"Krippendorff's alpha of {figures.people} coders")
        rows = [("all classes", figures.alpha), *figures.alpha_by_class.items()]
        console.print(_table(("class",), ("alpha",), [(label, _number(alpha)) for label, alpha in rows]))


def _table(words: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Columns of words, which are wrapped where there is little room, and of numbers, which are not."""
    from rich.text import Text

    from apexstream.display import shaped_table

    table = shaped_table()
    for name in words:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    return table


def _kappas(pair: PairAgreement) -> Iterator[tuple[str, str, str]]:
    yield f"{pair.first}, {pair.second}", "all classes", _number(pair.kappa)
    for label, kappa in pair.by_class.items():
        yield "", label, _number(kappa)


def _expressions(pair: PairAgreement) -> list[str]:
    counts = [f"{pair.first}, {pair.second}", str(pair.units), str(pair.both), str(pair.matched)]
    return counts + [_number(pair.differences[mark]) for mark in ("onset", "apex", "offset")]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _labels(unit: Unit, judges: list[str]) -> dict[str, str | None]:
    return {judge: unit.label(judge) for judge in judges}


def _list(units: list[Unit], judges: list[str], origin: float) -> None:
    from stream.review.agreement import MACHINE

    what, of = ("difference", " from the machine") if judges[-1] == MACHINE else ("disagreement", "")
    say(f"{len(units)} {what}{'s' * (len(units) != 1)}{of}{':' if units else ''}")
    for unit in units[:SHOWN]:
        given = ", ".join(f"{plain(judge)} {plain(label or 'not decided')}" for judge, label in _labels(unit, judges).items())
        say(f"  {unit.start - origin:9.3f} s  face {unit.face}  {given}")
    if len(units) > SHOWN:
        say(f"  ... and {len(units) - SHOWN} more; --out FILE writes all")
