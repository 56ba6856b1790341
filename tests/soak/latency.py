"""Measures the delay of events: from the frame that decides an event to the client's receipt, and how long apexes take.

A rendered clip (640 x 480, 30 frames/s) is played in real time by the live service in a process of its own; this one is its
client. Reported beside the latency is how much source time an apex needs, for nobody can know of one before the motion has gone
down again, in three ways:

    spotted apex to confirmation    from the apex as the event has it to the frame that confirms it, upon which the event is
                                    announced: what the spotter itself waits, and what is judged
    true apex to confirmation       from the apex as it was rendered, so the spotter's error in placing it is in it
    spotted apex to first message   as the first, with those events too that are too weak to be announced before they are over
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from apexstream.bench.live_process import LiveProcess
from apexstream.bench.service import FPS, Received, messages_until_ended, received
from tests.soak.command import Record, command_line, finish, spread, unmet

if TYPE_CHECKING:
    from apexstream.clips import Truth

MAX_P95_MS = 50.0
MAX_APEX_MS = 150.0
"""The median source time that an apex needs to be confirmed: from the spotted apex to the frame upon which it is announced."""

JUDGED = "spotted_apex_to_confirmation_ms"

NEAR_S = 0.25
"""An event belongs to the true expression whose apex is no further away."""


def measure(video: Path) -> tuple[list[Received], float]:
    """Play a video through the service, follow it to its end; what came, and the seconds that ending took."""
    with LiveProcess([str(video)]) as service:
        messages, _ = asyncio.run(messages_until_ended(service))
        ended_s = service.end()
    return received(messages), ended_s


def figures(events: Sequence[Received], truth: Truth) -> dict[str, Any]:
    """What is judged and recorded; an apex is known with the first message of its event."""
    first: dict[str, Received] = {}
    for event in events:
        first.setdefault(event.id, event)
    announced = [event for event in first.values() if event.state == "provisional"]
    near = [(event, _true_apex(event, truth)) for event in announced]
    return {
        "expressions": len(truth.events),
        "latency_ms": {state: spread([e.latency_ms for e in events if state in ("all", e.state)], 1) for state in STATES},
        JUDGED: spread([1000 * (event.decided_t - event.apex_t) for event in announced], 1),
        "true_apex_to_confirmation_ms": spread([1000 * (event.decided_t - t) for event, t in near if t is not None], 1),
        "spotted_apex_to_first_message_ms": spread([1000 * (event.decided_t - event.apex_t) for event in first.values()], 1),
    }


def _true_apex(event: Received, truth: Truth) -> float | None:
    """The apex of the true expression that the event belongs to."""
    near = [true.apex_t for true in truth.events if abs(true.apex_t - event.apex_t) <= NEAR_S]
    return min(near, key=lambda t: abs(t - event.apex_t), default=None)


STATES = ("provisional", "final", "all")


def violations(found: dict[str, Any]) -> list[str]:
    """What is not within the limits, in sentences."""
    latency, apex = found["latency_ms"]["all"], found[JUDGED]
    if not latency["count"] or not apex["count"]:
        return ["no event came, or none was announced"]
    checks = {
        f"95 of 100 events came within {latency['p95']:g} ms": latency["p95"] <= MAX_P95_MS,
        f"half of the apexes were confirmed only {apex['p50']:g} ms of source time after them": apex["p50"] <= MAX_APEX_MS,
    }
    return unmet(checks)


def _table(found: dict[str, Any]) -> Table:
    table = Table("ms", "events", "p50", "p95", "worst")
    rows = {f"arrival to receipt, {state}": row for state, row in found["latency_ms"].items()}
    rows |= {name.removesuffix("_ms").replace("_", " "): row for name, row in found.items() if "apex" in name}
    bounds = {"arrival to receipt, all": f"p95 at most {MAX_P95_MS:g}"}
    bounds[JUDGED.removesuffix("_ms").replace("_", " ")] = f"p50 at most {MAX_APEX_MS:g}"
    for name, row in rows.items():
        shown = f"{name} (judged: {bounds[name]})" if name in bounds else name
        table.add_row(shown, *(f"{row.get(key, float('nan')):g}" for key in ("count", "p50", "p95", "worst")))
    return table


def main(
    *,
    seconds: Annotated[float, typer.Option(help="Length of the clip.")] = 180.0,
    seed: Annotated[int, typer.Option(help="Another number is another clip.")] = 0,
    nice: Annotated[int, typer.Option(help="Priority of service and client on a machine with other work.")] = 0,
    json: Record = None,
) -> None:
    """Render a clip, play it, and compare the delays with their limits."""
    from apexstream.clips import preset, write_clip

    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="apexstream-soak-") as folder:
        spec = preset("benchmark", "hopper", FPS, seed=seed, duration_s=seconds, size=(640, 480))
        console.print(f"rendering {seconds:g} s")
        truth = write_clip(spec, Path(folder) / "clip.mp4")
        load = os.getloadavg()[0]
        os.nice(nice)  # after rendering; the service inherits it
        console.print("playing it")
        events, ended_s = measure(Path(folder) / "clip.mp4")
    found = figures(events, truth)
    console.print(_table(found))
    console.print(f"load of the machine {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end; {os.cpu_count()} cores")
    record = {
        "command": f"python -m tests.soak.latency --seconds {seconds:g} --seed {seed} --nice {nice}",
        "cores": os.cpu_count(),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "judged": {"latency_ms.all.p95": MAX_P95_MS, f"{JUDGED}.p50": MAX_APEX_MS},
        **found,
        "ended_s": round(ended_s, 2),
    }
    finish(record, violations(found), json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
