"""The figures in rows: what was measured, beside what one would otherwise use, and what was aimed at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich import box
from rich.table import Table

from apexstream.bench.service import Latency, Load
from apexstream.bench.stages import Stage
from apexstream.bench.whole import Analysed, same


@dataclass(frozen=True)
class Row:
    """One figure; value and plain are None where there is nothing to measure. best is "most" or "least"."""

    name: str
    unit: str
    value: float | None
    plain: float | None = None
    ratio: float | None = None
    floor: float | None = None
    goal: float | None = None
    best: str = "most"
    note: str = ""

    @property
    def judged(self) -> float | None:
        """The figure that floor and goal are for: the ratio where there is one, else the value."""
        return self.value if self.ratio is None else self.ratio

    @property
    def verdict(self) -> str:
        """What was reached: goal, floor, below, or nothing where nothing was aimed at or measured."""
        if self.judged is None or self.floor is None or self.goal is None:
            return ""
        sign = 1 if self.best == "most" else -1
        for name, aim in (("goal", self.goal), ("floor", self.floor)):
            if sign * self.judged >= sign * aim:
                return name
        return "below"

    def as_dict(self) -> dict[str, Any]:
        """JSON form, with verdict added."""
        return {**{k: round(v, 4) if isinstance(v, float) else v for k, v in vars(self).items()}, "verdict": self.verdict}


AIMS: dict[str, tuple[float, float]] = {"flow (TV-L1)": (12, 50), "network": (3, 6)}
"""Stages for which a ratio is aimed at: at least, and best."""


def stage_row(stage: Stage) -> Row:
    """A stage; the ratio is to what one would write instead."""
    floor, goal = AIMS.get(stage.name, (None, None))
    return Row(stage.name, f"ms/{stage.per}", stage.ms, stage.plain_ms, stage.ratio, floor, goal, "most", stage.plain)


def whole_rows(ours: Analysed, baseline: Analysed) -> list[Row]:
    """The whole analysis, by the clock and by the processor, and whether both found the same."""
    both, finds = same(ours.events, baseline.events), (len(ours.events), len(baseline.events))
    own = f"{ours.own_frames_per_s:.0f} and {baseline.own_frames_per_s:.0f} without the program's start"
    note = f"{own}; {both} events the same, {finds[0]} found here, {finds[1]} there"
    return [
        Row("whole analyze, 640x360", "frames/s", ours.frames_per_s, baseline.frames_per_s, None, 200, 400, note=note),
        Row("against the baseline script", "times", ours.frames_per_s / baseline.frames_per_s, None, None, 3, 8),
        Row("processor's time", "ms/frame", ours.cpu_ms, baseline.cpu_ms, baseline.cpu_ms / ours.cpu_ms, note="all threads"),
        Row("memory at its peak", "MiB", ours.peak_mib, baseline.peak_mib, best="least"),
    ]


def video_rows(name: str, ours: Sequence[Analysed], mesh: Sequence[Analysed]) -> list[Row]:
    """Runs of a user's own video in turns with decoding and the mesh of every picture: the medians."""
    speed, plain = (median(run.frames_per_s for run in runs) for runs in (ours, mesh))
    cost, plain_cost = (median(run.cpu_ms for run in runs) for runs in (ours, mesh))
    note = "beside decoding and MediaPipe's mesh of every picture"
    return [
        Row(f"whole analyze, {name}", "frames/s", speed, plain, speed / plain, 1.2, 2, note=note),
        Row(f"processor's time, {name}", "ms/frame", cost, plain_cost, plain_cost / cost, note="all threads"),
    ]


def held_row(most: int, tried: Sequence[Load]) -> Row:
    """Sources of 30 frames/s held without drops."""
    held = next((load for load in reversed(tried) if load.sources == most), None)
    note = "" if held is None else f"{held.cores:g} cores busy"
    return Row("live sources, 640x480 at 30 fps, held", "sources", float(most), floor=5, goal=10, note=note)


def fast_rows(loads: Iterable[tuple[str, Load]], fps: float) -> list[Row]:
    """One fast source, on all cores and on one: how much of it was kept up with."""
    rows = []
    for where, load in loads:
        rate, held = (min(load.rates) if load.rates else 0.0), load.held(fps)
        note = f"{'held' if held else 'not held'}, {load.drops} drops, {load.cores:g} cores busy"
        rows.append(Row(f"live, 640x480 at {fps:g} fps, {where}", "frames/s", rate, note=note))
    return rows


def latency_rows(found: Latency) -> list[Row]:
    """How soon a client knows, and what the service holds."""
    note = f"{found.events} events, median {found.p50_ms:.1f} ms" if found.p50_ms is not None else "no event was announced"
    return [
        Row("deciding frame to client, p95", "ms", found.p95_ms, floor=40, goal=15, best="least", note=note),
        Row("memory of the service, one source", "MiB", found.memory_mib, floor=600, goal=400, best="least"),
    ]


def table(rows: Iterable[Row], machine: dict[str, Any]) -> Table:
    """All rows for the terminal."""
    load = machine["load"]
    title = f"{machine['processor']}, {machine['cores']} cores, load {'unknown' if load is None else f'{load:g}'} at the start"
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for name in ("", "here", "otherwise", "ratio", "floor", "goal", "reached", ""):
        shown.add_column(name, justify="left" if not name or name == "reached" else "right")
    for row in rows:
        cells = [number(value) for value in (row.ratio, row.floor, row.goal)]
        measured = f"{number(row.value)} {row.unit}" if row.value is not None else "-"
        shown.add_row(row.name, measured, number(row.plain), *cells, row.verdict, row.note)
    return shown


def number(value: float | None) -> str:
    """Three figures that count; nothing for None."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
