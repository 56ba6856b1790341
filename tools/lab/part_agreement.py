"""How much the expressions found in parts of a video are those found in one pass over it.

    python -m lab.part_agreement VIDEO... [--minutes N] [--json]

Each video is analysed in one pass, in parts, and in one pass that starts a second later: no pass is right, and what a later
start changes is the measure of what parts change. Compared are the expressions that begin after the first place where parts
meet. They are the same if they overlap by half, and alike if they also have the same label.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from engine.intervals import Interval, match
from engine.types import Event
from lab.command import run
from stream.recorded.analyze import found_in
from stream.recorded.models import Models
from stream.recorded.parts.plan import JOIN_S, WARM_S, Part, plan_parts
from stream.recorded.passage import Found, Passage, Step
from stream.recorded.settings import AnalysisSettings, ReadingSettings

LATER_S = 1.0


@dataclass(frozen=True)
class Agreement:
    """Expressions found in one pass and in another way; how many are the same, and how many of these have the same label."""

    once: int
    other: int
    same: int
    alike: int

    def __add__(self, more: Agreement) -> Agreement:
        return Agreement(*(a + b for a, b in zip(asdict(self).values(), asdict(more).values(), strict=True)))


def agreement(once: Sequence[Event], other: Sequence[Event]) -> Agreement:
    """Compare two lists of final events of one face."""
    pairs = match([_interval(one) for one in other], [_interval(one) for one in once])
    alike = sum(other[found].label == once[known].label for found, known in pairs)
    return Agreement(len(once), len(other), len(pairs), alike)


def _interval(event: Event) -> Interval:
    assert event.offset is not None  # it is final
    return Interval(event.onset.t, event.offset.t)


def measure(video: Path, minutes: float, models: Models) -> dict[str, Agreement]:
    """One pass against parts of about so many minutes, and against a later start; nothing where the video is too short."""
    seams = [part.start for part in plan_parts(video, minutes * 60)[1:]]
    if not seams:
        return {}
    stop = threading.Event()

    def found(part_minutes: float) -> list[Event]:
        settings = AnalysisSettings(reading=ReadingSettings(part_minutes=part_minutes))
        with found_in(video, settings, "v", stop=stop, faces=False, models=models) as steps:
            return _after(seams[0] + JOIN_S, steps)

    once = found(0.0)
    late = Part(start=LATER_S + JOIN_S + WARM_S)
    with closing(Passage(video, ReadingSettings(), stop=stop, part=late)) as passage:
        later = _after(seams[0] + JOIN_S, passage.steps(models, "v"))
    return {"parts": agreement(once, found(minutes)), "a second later": agreement(once, later)}


def _after(t: float, steps: Iterable[Step]) -> list[Event]:
    """The final events in the steps that begin after t, seconds of the source."""
    events = [event for step in steps if isinstance(step, Found) for event in step.events]
    return [event for event in events if event.state == "final" and event.onset.t > t]


def main(
    videos: Annotated[list[Path], typer.Argument(help="Videos that are long enough for two parts.")],
    minutes: Annotated[float, typer.Option(min=1, help="Length of the parts.")] = ReadingSettings().part_minutes,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Compare, video by video, then all together."""
    console, total = Console(stderr=True), dict[str, Agreement]()
    with closing(Models(AnalysisSettings().pipeline)) as models:
        for video in videos:
            found = measure(video, minutes, models)
            if not found:
                console.print(f"{video}: too short for two parts, or it cannot be cut", soft_wrap=True)
            for name, one in found.items():
                console.print(f"{video.name}: {_line(name, one)}", soft_wrap=True)
                total[name] = total.get(name, Agreement(0, 0, 0, 0)) + one
    if as_json:
        typer.echo(json.dumps({name: asdict(one) for name, one in total.items()}, indent=2))
        return
    for name, one in total.items():
        typer.echo(_line(name, one))


def _line(name: str, one: Agreement) -> str:
    return f"{name}: {one.same} of {one.once} found again, {one.alike} with the same label; {one.other - one.same} others"


if __name__ == "__main__":
    run(main)
