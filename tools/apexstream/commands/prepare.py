"""`apexstream prepare`: a database's pictures to flow maps that train and evaluate read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import say
from apexstream.commands.fetch import have_face_model
from apexstream.commands.options import ClusterOption, on_cluster
from apexstream.native_output import native_output_hidden

if TYPE_CHECKING:
    from training.datasets.prepare import Outcome, Progress

NAMES = "casme2, samm, smic or casme3"
SHOWN = 10


def prepare(
    ctx: typer.Context,
    *,
    database: Annotated[str, typer.Argument(metavar="DATABASE", help=f"Which one: {NAMES}.", show_default=False)],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder with its pictures, at any depth.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the maps: DIR/<database>/.", show_default=False)
    ],
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", metavar="FILE", help="Its table; default: found in or near ROOT.", show_default=False),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Clips at once, each on one thread.")] = 1,
    cluster: ClusterOption = None,
) -> None:
    """Make flow maps from a database's pictures, by the same stages as live analysis.

    Finished clips are kept: the same command goes on where a stopped one was. Several databases may share one DIR, and train
    and evaluate take it as --data. What is left out is listed in DIR/<database>/skipped.csv with the reason.
    """
    from engine.errors import InputError
    from training.datasets.databases import DATABASES
    from training.datasets.prepare import prepare as run

    chosen = DATABASES.get(database.casefold())
    if chosen is None:
        raise InputError(f"there is no database {database!r}; choose {NAMES}")
    have_face_model()
    try:
        with native_output_hidden(not ctx.obj["debug"]), _bar() as progress:
            outcome = run(chosen, root, out, annotations=annotations, jobs=jobs, progress=progress, **on_cluster(cluster, root))
    except KeyboardInterrupt:
        say(f"stopped; finished clips are kept in {out}, the same command goes on", err=True)
        raise typer.Exit(1) from None
    _show(chosen.title, outcome)
    if not outcome.made:
        raise InputError(f"none of the clips could be used; {outcome.folder / 'skipped.csv'} says why")


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Bar(*columns, console=Console(stderr=True))
    task = bar.add_task("clips", total=None)

    def update(done: int, total: int, newest: str | None) -> None:
        bar.update(task, completed=done, total=total, description=newest or "clips")
        bar.start()

    try:
        yield update
    finally:
        bar.stop()


def _show(title: str, outcome: Outcome) -> None:
    """What was made and what was left out, on stdout."""
    from training.datasets import CLASSES

    counts = Counter(clip.label for clip, _ in outcome.made)
    held = ", ".join(f"{name} {counts[i]}" for i, name in enumerate(CLASSES))
    subjects = len({clip.subject for clip, _ in outcome.made})
    say(f"{title}: {len(outcome.made)} flow maps of {subjects} subjects ({held}): {outcome.folder}")
    unsure = [clip.key for clip, flow in outcome.made if not flow.sure]
    if unsure:
        say(f"  of these, live analysis would call {len(unsure)} uncertain (clips.csv: alike, one_reference)")
    for note in outcome.notes:
        say(f"  note: {note}")
    why = Counter(each.why for each in outcome.left_out)
    parts = f"{why['class']} of other classes, {why['table']} by the table, {why['pictures']} for their pictures"
    say(f"  left out: {parts}; each with its reason in {outcome.folder / 'skipped.csv'}")
    lost = [each for each in outcome.left_out if each.why == "pictures"]
    for each in lost[:SHOWN]:
        say(f"    {each.name}: {each.reason}")
    if len(lost) > SHOWN:
        say(f"    ... and {len(lost) - SHOWN} more")
