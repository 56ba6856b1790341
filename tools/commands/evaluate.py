"""`apexstream evaluate`: judge a recipe leave-one-subject-out, and go on where a stopped run was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from training.loso import FoldResult, Progress


def evaluate(
    config: Annotated[Path, typer.Option(help="The recipe, a TOML file such as configs/train/ahmsa-3db.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of the flow maps (the layout of htnet-3db).")],
    out: Annotated[Path, typer.Option(help="Folder for folds.jsonl, which a later call goes on with, and summary.json.")],
    seeds: Annotated[
        int, typer.Option(min=1, help="How many times, each with a seed of its own: the recipe's, then upwards.")
    ] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Folds at once, each on one thread.")] = 1,
) -> None:
    """Judge a recipe leave-one-subject-out: UF1 and UAR from one pooled confusion matrix, at the fixed last epoch."""
    from rich.console import Console

    from training import loso, report
    from training.datasets import htnet_3db
    from training.recipe import read_recipe

    recipe, maps = read_recipe(config), htnet_3db.load(data)
    console = Console(stderr=True)
    console.print(maps.told(), highlight=False)
    record = out / "folds.jsonl"
    chosen = range(recipe.seed, recipe.seed + seeds)
    try:
        results = loso.evaluate(recipe, maps, record, seeds=chosen, jobs=jobs, progress=_bar(console))
    except KeyboardInterrupt:
        typer.echo(f"stopped; finished folds are kept, the same command goes on from {record}", err=True)
        raise typer.Exit(1) from None
    header, _ = loso.read_record(record)
    summary = report.summarize(header, results)
    report.write_summary(summary, out / "summary.json")
    for table in _tables(summary):
        Console().print(table)
    typer.echo(f"summary: {out / 'summary.json'}")


def _bar(console: Any) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Bar(*columns, console=console)
    task = bar.add_task("subjects")

    def told(done: int, total: int, result: FoldResult | None) -> None:
        bar.update(task, completed=done, total=total, description=result.subject if result else "subjects")
        if result is None:
            bar.start()
        if done == total:
            bar.stop()

    return told


def _tables(summary: dict[str, Any]) -> Iterator[Table]:
    from rich.table import Table

    names = summary["classes"]
    for seed, parts in summary["seeds"].items():
        table = Table(
            "maps of", "UF1", "UAR", *(f"recall {name}" for name in names), title=f"leave one subject out, seed {seed}"
        )
        for part, s in parts.items():
            table.add_row(part, f"{s['uf1']:.4f}", f"{s['uar']:.4f}", *(f"{s['recall'][name]:.3f}" for name in names))
        yield table
        pooled = Table("truth \\ answer", *names, title=f"pooled confusion matrix, seed {seed}")
        for name, row in zip(names, parts["all"]["confusion"], strict=True):
            pooled.add_row(name, *map(str, row))
        yield pooled
