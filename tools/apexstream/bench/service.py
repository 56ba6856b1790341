"""The live service as a user starts it, measured from outside: sources held, a fast source, latency and memory."""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from apexstream.bench.camera import Cameras
from apexstream.bench.live_process import LiveProcess

SETTLE_S = 6.0
"""From the last source's first picture until drops count: detectors search the whole picture, caches fill, and pictures that
arrived while the networks were being loaded are worked off."""

LOAD_S = 60.0
"""Time given to the sources to become live."""

HELD_RATE = 0.97
"""A source is held when nothing is dropped and at least this share of its pictures came."""

FPS = 30
"""Of clips whose events are timed."""

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Numbers of sources that are tried."""


@dataclass
class Load:
    """What came of watching some cameras: pictures a second and drops of each, cores that the service kept busy, memory."""

    sources: int
    seconds: float = 0.0
    rates: list[float] = field(default_factory=list)
    drops: int = 0
    cores: float = 0.0
    memory_mib: float = 0.0

    def held(self, fps: float) -> bool:
        """Whether every source's pictures were all analysed."""
        return len(self.rates) == self.sources and not self.drops and min(self.rates) >= HELD_RATE * fps


def watch(video: Path, count: int, seconds: float, *, core: int | None = None, processes: str = "auto") -> Load:
    """Show a clip on so many cameras, and see how the service does for so many seconds; on one core where one is named.

    processes is what `apexstream live --processes` takes.

    The clip must be longer than that, and than what the service takes to begin.
    """
    with Cameras(video, count) as cameras:
        with _only_on(core):
            service = LiveProcess(cameras.urls, "--processes", processes)
        with service:
            return asyncio.run(_followed(service, count, seconds))


@contextmanager
def _only_on(core: int | None) -> Iterator[None]:
    """What is started inside runs on one core, where one is given."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


async def _followed(service: LiveProcess, count: int, seconds: float) -> Load:
    """Wait until all sources are live, then compare their figures at the begin and the end of the time."""
    seen: dict[str, dict[str, Any]] = {}
    begin: tuple[float, float, dict[str, dict[str, Any]]] | None = None
    settled: float | None = None
    until = time.monotonic() + LOAD_S
    load = Load(count)
    async with aclosing(service.messages()) as messages:
        async for message in messages:
            now = time.monotonic()
            if message["type"] == "status":
                seen[message["stream"]] = {**message, "received": now}
            live = [status for status in seen.values() if status["state"] == "live"]
            if begin is None and len(live) < count:
                settled = None
                if now > until:
                    return load
                continue
            settled = settled or now + SETTLE_S
            if begin is None and now >= settled:
                begin = (now, service.usage().cpu_s, dict(seen))
            if begin is not None and now >= begin[0] + seconds:
                break
    if begin is None:
        return load
    began, cpu, first = begin
    load.seconds = time.monotonic() - began
    used = service.usage()
    load.cores, load.memory_mib = round((used.cpu_s - cpu) / load.seconds, 2), round(used.memory_mib, 1)
    load.drops = sum(seen[name]["drops"] - first[name]["drops"] for name in first)
    load.rates = [round(_rate(first[name], seen[name]), 1) for name in first]
    return load


def _rate(first: dict[str, Any], last: dict[str, Any]) -> float:
    """Pictures a second between two of a source's messages."""
    span = last["received"] - first["received"]
    return (last["frames"] - first["frames"]) / span if span > 0 else 0.0


def most_held(
    video: Path,
    fps: float,
    seconds: float,
    progress: Callable[[Load], None],
    counts: Sequence[int] = COUNTS,
    *,
    processes: str = "auto",
) -> tuple[int, list[Load]]:
    """The largest of the counts that is held, found by halving; and all that was tried, in order. 0 where not one is held."""
    low, high, tried = 0, len(counts), []
    while low < high:
        middle = (low + high) // 2
        load = watch(video, counts[middle], seconds, processes=processes)
        tried.append(load)
        progress(load)
        low, high = (middle + 1, high) if load.held(fps) else (low, middle)
    return (counts[low - 1] if low else 0), tried


@dataclass(frozen=True)
class Latency:
    """From the arrival of the frame that decides to the client's receipt, ms, and the service's memory at the end."""

    events: int
    p50_ms: float | None
    p95_ms: float | None
    memory_mib: float


def latency(video: Path) -> Latency:
    """Play a clip through the service as a file and time its provisional events; one source, one client."""
    with LiveProcess([str(video)]) as service:
        messages, memory = asyncio.run(messages_until_ended(service))
    times = sorted(event.latency_ms for event in received(messages) if event.state == "provisional")
    if not times:
        return Latency(0, None, None, memory)
    return Latency(len(times), median(times), times[min(len(times) - 1, int(0.95 * len(times)))], memory)


async def messages_until_ended(service: LiveProcess) -> tuple[list[dict[str, Any]], float]:
    """All messages until the source has ended and its last events have come, and the most memory seen, MiB."""
    kept, memory, ended = [], 0.0, False
    async with aclosing(service.messages()) as messages:
        async for message in messages:
            kept.append(message)
            if message["type"] == "status":
                memory, ended = max(memory, service.usage().memory_mib), ended or message["state"] == "ended"
            if message["type"] == "heartbeat" and ended:
                break
    return kept, round(memory, 1)


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
