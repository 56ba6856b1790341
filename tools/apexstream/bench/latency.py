"""Measures how soon a client knows: from the frame that decides an event to the client's receipt, and how long apexes take.

A rendered clip (640 x 480, 30 frames/s) is played in real time by the live service in a process of its own; this one is its
client. Reported beside the latency is how much source time an apex needs, for nobody can know of one before the motion has gone
down again, in three ways:

    spotted apex to confirmation    from the apex as the event has it to the frame that confirms it, upon which the event is
                                    announced: what the spotter itself waits, and what is judged
    true apex to confirmation       from the apex as it was rendered, so the spotter's error in placing it is in it
    spotted apex to first message   as the first, with those events too that are too weak to be announced before they are over
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from apexstream.bench.live_process import LiveProcess, conclude

if TYPE_CHECKING:
    from apexstream.clips import Truth

MOST_P95_MS = 50.0
MOST_APEX_MS = 150.0
"""The median source time that an apex needs to be confirmed: from the spotted apex to the frame upon which it is announced."""

JUDGED = "spotted_apex_to_confirmation_ms"

FPS = 30
NEAR_S = 0.25
"""An event belongs to the true expression whose apex is no further away."""


@dataclass(frozen=True)
class Received:
    """An event as it reached the client.

    latency_ms runs from the arrival of the frame that decided to the receipt; decided_t is that frame's source time.
    """

    id: str
    state: str
    apex_t: float
    latency_ms: float
    decided_t: float


def measure(video: Path) -> tuple[list[Received], float]:
    """Play a video through the service, follow it to its end; what came, and the seconds that ending took."""
    with LiveProcess([str(video)]) as service:
        messages = asyncio.run(_followed(service))
        ended_s = service.end()
    return received(messages), ended_s


async def _followed(service: LiveProcess) -> list[dict[str, Any]]:
    """All messages until the source has ended, and those that its end lets loose."""
    kept = []
    async with aclosing(service.messages()) as messages:
        async for message in messages:
            kept.append(message)
            if message["type"] == "heartbeat" and any(m["type"] == "status" and m["state"] == "ended" for m in kept):
                break
    return kept


def received(messages: Sequence[dict[str, Any]]) -> list[Received]:
    """The events among the messages, timed."""
    signals = [(m["at"], m["t"]) for m in messages if m["type"] == "signal"]
    return [_timed(m, signals) for m in messages if m["type"] == "expression" and not m.get("truncated")]


def _timed(event: dict[str, Any], signals: Sequence[tuple[float, float]]) -> Received:
    """When the frame that decided arrived is known from the message; which frame it was, from the signal nearest to it."""
    emitted = datetime.fromisoformat(event["emitted_at"]).timestamp()
    arrived = emitted - event["latency_ms"] / 1000
    after = bisect_left(signals, (arrived, 0.0))
    at, t = min(signals[max(0, after - 1) : after + 1], key=lambda signal: abs(signal[0] - arrived))
    decided = round((t + arrived - at) * FPS) / FPS
    latency_ms = 1000 * (event["received"] - arrived)
    return Received(event["id"], event["state"], event["apex"]["t"], round(latency_ms, 1), decided)


def figures(events: Sequence[Received], truth: Truth) -> dict[str, Any]:
    """What is judged and recorded; an apex is known with the first message of its event."""
    first: dict[str, Received] = {}
    for event in events:
        first.setdefault(event.id, event)
    announced = [event for event in first.values() if event.state == "provisional"]
    near = [(event, _true_apex(event, truth)) for event in announced]
    return {
        "expressions": len(truth.events),
        "latency_ms": {state: _spread([e.latency_ms for e in events if state in ("all", e.state)]) for state in STATES},
        JUDGED: _spread([1000 * (event.decided_t - event.apex_t) for event in announced]),
        "true_apex_to_confirmation_ms": _spread([1000 * (event.decided_t - t) for event, t in near if t is not None]),
        "spotted_apex_to_first_message_ms": _spread([1000 * (event.decided_t - event.apex_t) for event in first.values()]),
    }


def _true_apex(event: Received, truth: Truth) -> float | None:
    """The apex of the true expression that the event belongs to."""
    near = [true.apex_t for true in truth.events if abs(true.apex_t - event.apex_t) <= NEAR_S]
    return min(near, key=lambda t: abs(t - event.apex_t), default=None)


STATES = ("provisional", "final", "all")


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"count": len(ordered), "p50": round(median(ordered), 1), "p95": round(p95, 1), "worst": round(ordered[-1], 1)}


def judged(found: dict[str, Any]) -> list[str]:
    """What is not as it must be, in sentences."""
    latency, apex = found["latency_ms"]["all"], found[JUDGED]
    if not latency["count"] or not apex["count"]:
        return ["no event came, or none was announced"]
    checks = {
        f"95 of 100 events came within {latency['p95']:g} ms": latency["p95"] <= MOST_P95_MS,
        f"half of the apexes were confirmed only {apex['p50']:g} ms of source time after them": apex["p50"] <= MOST_APEX_MS,
    }
    return [sentence for sentence, well in checks.items() if not well]


def _table(found: dict[str, Any]) -> Table:
    table = Table("ms", "events", "p50", "p95", "worst")
    rows = {f"arrival to receipt, {state}": spread for state, spread in found["latency_ms"].items()}
    rows |= {name.removesuffix("_ms").replace("_", " "): spread for name, spread in found.items() if "apex" in name}
    bounds = {"arrival to receipt, all": f"p95 at most {MOST_P95_MS:g}"}
    bounds[JUDGED.removesuffix("_ms").replace("_", " ")] = f"p50 at most {MOST_APEX_MS:g}"
    for name, spread in rows.items():
        shown = f"{name} (judged: {bounds[name]})" if name in bounds else name
        table.add_row(shown, *(f"{spread.get(key, float('nan')):g}" for key in ("count", "p50", "p95", "worst")))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement that the command line asks for; 0 where all is as it must be, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m apexstream.bench.latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=180.0, help="length of the clip (default 180)")
    parser.add_argument("--seed", type=int, default=0, help="another number is another clip")
    parser.add_argument("--nice", type=int, default=0, help="priority of service and client on a machine with other work")
    parser.add_argument("--json", type=Path, help="file for the record")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    from apexstream.clips import preset, write_clip

    with tempfile.TemporaryDirectory(prefix="apexstream-soak-") as folder:
        spec = preset("benchmark", "hopper", FPS, seed=options.seed, duration_s=options.seconds, size=(640, 480))
        console.print(f"rendering {options.seconds:g} s")
        truth = write_clip(spec, Path(folder) / "clip.mp4")
        load = os.getloadavg()[0]
        os.nice(options.nice)  # after rendering; the service inherits it
        console.print("playing it")
        events, ended_s = measure(Path(folder) / "clip.mp4")
    found = figures(events, truth)
    problems = judged(found)
    console.print(_table(found))
    console.print(f"load of the machine {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end; {os.cpu_count()} cores")
    given = f"--seconds {options.seconds:g} --seed {options.seed} --nice {options.nice}"
    record = {
        "command": f"python -m apexstream.bench.latency {given}",
        "cores": os.cpu_count(),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "judged": {"latency_ms.all.p95": MOST_P95_MS, f"{JUDGED}.p50": MOST_APEX_MS},
        **found,
        "ended_s": round(ended_s, 2),
        "problems": problems,
    }
    return conclude(record, problems, options.json)


if __name__ == "__main__":
    sys.exit(main())
