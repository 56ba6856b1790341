"""How far apexstream scales: measure what its parts cost, and simulate many machines on those figures.

python -m lab.scaling measure --json docs/records/scaling-inputs.json
python -m lab.scaling hub --json docs/records/scaling-hub.json
python -m lab.scaling simulate --json docs/records/scaling.json --picture docs/pictures/scaling.png
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lab.command import run
from lab.scaling.figures import Figures
from lab.scaling.study import Assumptions, study

RECORDS = Path("docs/records")
TABLES = ("one_machine", "fleets", "live", "archives", "capacity")

app = typer.Typer(add_completion=False, rich_markup_mode=None, help=__doc__)
JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the record here.", show_default=False)]


@app.command()
def measure(
    videos: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[VIDEO]...", help="Recordings whose bytes a frame are noted too.", show_default=False),
    ] = None,
    *,
    seconds: Annotated[float, typer.Option(min=5, help="Length of the rendered clip.")] = 60.0,
    json_file: JsonOption = None,
) -> None:
    """Measure frames, storing, Redis, the hub and bytes on this machine."""
    from lab.scaling.measure import measure as measured

    found = {"command": f"python -m lab.scaling measure --seconds {seconds:g}", **measured(videos or [], seconds)}
    _finish(found, json_file)


@app.command()
def hub(*, json_file: JsonOption = None) -> None:
    """Measure a real hub of 1, 100 and 1,000 made-up nodes."""
    from lab.scaling.measure import measure_hub

    _finish({"command": "python -m lab.scaling hub", "load": round(os.getloadavg()[0], 1), **measure_hub()}, json_file)


@app.command()
def simulate(
    *,
    records: Annotated[Path, typer.Option(metavar="DIR", help="Where the measured figures are.")] = RECORDS,
    seconds: Annotated[float, typer.Option(min=1, help="Simulated length for fleets.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Another number is another run.")] = 0,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the fleets here.", show_default=False)] = None,
    json_file: JsonOption = None,
) -> None:
    """Simulate one machine and fleets of up to a thousand, ten thousand cameras; compute what they move and cost."""
    found = study(Figures(records), Assumptions(), seconds=seconds, seed=seed)
    console = Console()
    for name in TABLES:
        console.print(_table(name.replace("_", " "), found[name]))
    for name in ("thousand_subscribers", "three_nodes", "thousand_nodes"):
        console.print(f"{name.replace('_', ' ')}:", found[name])
    if picture is not None:
        from lab.scaling.picture import draw

        draw(found, picture)
    _finish({"command": f"python -m lab.scaling simulate --seconds {seconds:g} --seed {seed}", **found}, json_file)


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*(name.replace("_", " ") for name in columns), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_shown(row.get(name)) for name in columns))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " / ".join(_shown(part) for part in value.values())
    return "" if value is None else f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _finish(found: dict[str, Any], path: Path | None) -> None:
    text = json.dumps(found, indent=1)
    if path is None:
        typer.echo(text)
    else:
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(app)
