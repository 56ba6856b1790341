"""What the soaks' command lines share: how they are made, and how a run ends."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NoReturn

import typer

Record = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the record here.", show_default=False)]
"""The option that every soak has."""


def command_line(main: Callable[..., None], description: str | None) -> typer.Typer:
    """The command line of one command; description is its --help, whose indented blocks keep their lines."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=re.sub(r"\n\n(?= )", "\n\n\b\n", description or ""))(main)
    return app


def unmet(checks: Mapping[str, bool]) -> list[str]:
    """The sentences whose condition is not met."""
    return [sentence for sentence, met in checks.items() if not met]


def growth(early: Sequence[float], late: Sequence[float]) -> dict[str, float]:
    """The median of what was measured after warming up and at the end, and by what share it grew."""
    warm, end = median(early), median(late)
    return {"warm": warm, "end": end, "growth": round(end / warm - 1, 4)}


def spread(values: Sequence[float], digits: int) -> dict[str, float]:
    """How many values there are; of them the median, the 95th percentile and the worst."""
    if not values:
        return {"count": 0}
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {
        "count": len(ordered),
        **{name: round(value, digits) for name, value in (("p50", median(ordered)), ("p95", p95), ("worst", ordered[-1]))},
    }


def finish(record: dict[str, Any], problems: Sequence[str], path: Path | None) -> NoReturn:
    """Write record and problems to path, where one is given; print the problems to stderr; exit with 1 where there are any."""
    if path is not None:
        write_record({**record, "problems": list(problems)}, path)
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(1 if problems else 0)


def write_record(record: dict[str, Any], path: Path) -> None:
    """Write a record as JSON, its folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
