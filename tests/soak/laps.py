"""Analyses one clip for hours, lap after lap in one file, and reports what grows, slows down or changes.

A rendered face, its packets repeated until they last as long as asked for: time goes on, the face jumps where a lap begins.
Measured at the end of each lap: resident memory, frames for each second of CPU time (the machine may have other work), and the
events of the lap, from its start. The first lap warms up; the others are compared.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console

from engine.types import Event
from stream.recorded.analyze import analyze
from tests.soak.command import Record, command_line, finish, growth, unmet
from tests.soak.endurance import long_video

LAP_S = 60.0
SMALL: dict[str, Any] = {"size": (320, 240), "eye_px": 64.0}
"""The clip's pictures: more of them can be analysed in the same time."""
FPS = 30
MAX_GROWTH = 0.05
"""Of memory, from the second lap to the last ones."""
LEAST_SPEED = 0.9
"""Of frames for each second of CPU time, likewise."""
MOST_OTHER = 0.1
"""Of the laps may have an event more or less than the others: where the face jumps back, another picture of it may become the
reference, and what is measured against it differs by some hundredths of a pixel."""


@dataclass(frozen=True)
class Lap:
    """What one lap took and gave: MiB of resident memory at its end, frames for each second of CPU time, and label, onset and
    offset (seconds from the lap's start) of each of its events."""

    memory_mib: float
    frames_per_cpu_s: float
    events: tuple[tuple[str, float, float], ...] = ()


def run(minutes: float, progress: Callable[[int, Lap], None], *, lap_s: float = LAP_S) -> list[Lap]:
    """Analyse so many minutes; progress is called with each lap as it ends, without its events."""
    laps: list[Lap] = []
    lap_started = time.process_time()
    frames = round(lap_s * FPS)

    def frame_done(done: int, expected: int | None, events: int) -> None:
        nonlocal lap_started
        if done % frames:
            return
        now = time.process_time()
        memory = psutil.Process().memory_info().rss / (1 << 20)
        laps.append(Lap(round(memory, 1), round(frames / (now - lap_started), 1)))
        lap_started = now
        progress(len(laps), laps[-1])

    with tempfile.TemporaryDirectory(prefix="apexstream-soak-") as folder:
        video = long_video(Path(folder) / "laps.mp4", "hopper", 60 * minutes, clip_s=lap_s, **SMALL)
        report = analyze(video, Path(folder) / "results", progress=frame_done)
    if report.problem is not None:
        raise RuntimeError(report.problem)
    return [Lap(lap.memory_mib, lap.frames_per_cpu_s, _within(report.events, n, lap_s)) for n, lap in enumerate(laps)]


def _within(events: Sequence[Event], lap: int, lap_s: float) -> tuple[tuple[str, float, float], ...]:
    mine = sorted((one for one in events if lap <= one.onset.t / lap_s < lap + 1), key=lambda one: one.onset.t)
    begin = lap * lap_s
    return tuple((one.label, round(one.onset.t - begin, 3), round((one.offset or one.apex).t - begin, 3)) for one in mine)


def figures(laps: Sequence[Lap]) -> dict[str, Any]:
    """What is judged and recorded; laps from the second on."""
    warm = laps[1:]
    some = max(1, len(warm) // 4)
    usual = max(warm, key=lambda lap: sum(_same(lap, other) for other in warm))
    speed = [median(lap.frames_per_cpu_s for lap in part) for part in (warm[:some], warm[-some:])]
    return {
        "laps": len(laps),
        "memory_mib": growth([lap.memory_mib for lap in warm[:some]], [lap.memory_mib for lap in warm[-some:]]),
        "frames_per_cpu_s": {"warm": speed[0], "end": speed[1], "ratio": round(speed[1] / speed[0], 3)},
        "events_a_lap": len(usual.events),
        "other_laps": [number for number, lap in enumerate(laps) if number and not _same(lap, usual)],
    }


def _same(one: Lap, other: Lap) -> bool:
    """Whether two laps have the same events: as many, of the same labels, each overlapping its like."""
    pairs = zip(one.events, other.events, strict=False)
    return len(one.events) == len(other.events) and all(a[0] == b[0] and a[1] <= b[2] and b[1] <= a[2] for a, b in pairs)


def violations(found: dict[str, Any]) -> list[str]:
    """What is not within the limits, in sentences."""
    memory, speed = found["memory_mib"], found["frames_per_cpu_s"]
    checks = {
        f"memory grew by {memory['growth']:.1%}": memory["growth"] < MAX_GROWTH,
        f"it ended at {speed['ratio']:.0%} of its speed": speed["ratio"] > LEAST_SPEED,
        "no event was found": found["events_a_lap"] > 0,
        f"laps {found['other_laps']} have other events": len(found["other_laps"]) <= MOST_OTHER * found["laps"],
    }
    return unmet(checks)


def main(*, minutes: Annotated[float, typer.Option(help="How much video.")] = 180.0, json: Record = None) -> None:
    """Analyse the laps of a long video and compare them."""
    console = Console(stderr=True)

    def progress(number: int, lap: Lap) -> None:
        console.print(f"lap {number}: {lap.memory_mib} MiB, {lap.frames_per_cpu_s} frames for each second of CPU time")

    laps = run(minutes, progress)
    found = figures(laps)
    console.print(found)
    record = {
        "command": f"python -m tests.soak.laps --minutes {minutes:g}",
        **found,
        "samples": [asdict(lap) for lap in laps],
    }
    finish(record, violations(found), json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
