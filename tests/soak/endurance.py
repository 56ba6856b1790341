"""Runs the live service on two network cameras for half an hour, and reports what grows and what drifts.

Two real RTSP servers show rendered faces; a client follows events, signals and pictures all the while. Measured from outside:
the service's memory, threads and handles, how the time of each source moves against the wall clock, and how many pictures were
dropped because the machine could not keep up; its load stands beside that.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import av
import typer
from rich.console import Console
from rich.table import Table

from apexstream.bench.live_process import LiveProcess
from tests.soak.command import Record, command_line, finish, growth, unmet
from tests.soak.rtsp import RtspServer

MAX_GROWTH = 0.02
"""Of memory, from warmed up to the end."""

MAX_DRIFT_S = 0.05
"""Of a source's time against the wall clock, over the whole run."""

MAX_DROPPED = 0.01
"""Of a source's pictures: more are dropped only where the machine has too much else to do, and then little is shown."""

PHOTOS = ("hopper", "astronaut")
CLIP_S = 60.0
SAMPLE_S = 5.0
WARM_UP = 0.1
"""The share of the run, at most WARM_UP_S of it, in which caches fill; what is held is compared from there on."""
WARM_UP_S = 180.0


@dataclass(frozen=True)
class Sample:
    """What the service holds: seconds since the start, MiB of resident memory, threads, handles; the machine's load
    over the last minute."""

    at: float
    memory_mib: float
    threads: int
    handles: int
    load: float


@dataclass
class Watched:
    """What a run gave; lag is wall clock less source time, seconds, by stream."""

    samples: list[Sample] = field(default_factory=list)
    lag: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    finals: Counter[str] = field(default_factory=Counter)
    pictures: int = 0
    status: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended_s: float = 0.0


def long_video(path: Path, photo: str, seconds: float, *, clip_s: float = CLIP_S, **changes: Any) -> Path:
    """A rendered clip of the photograph, its packets repeated until it lasts so long: one stream whose time goes on.

    changes are settings of the clip.
    """
    from apexstream.clips import preset, write_clip

    clip = path.with_suffix(".part.mp4")
    write_clip(preset("benchmark", photo, 30, seed=1, duration_s=clip_s, **{"size": (640, 480), **changes}), clip)
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        pictures = source.streams.video[0]
        copy = target.add_stream_from_template(pictures)
        packets = [packet for packet in source.demux(pictures) if packet.dts is not None]
        assert pictures.time_base is not None
        length = round(clip_s / pictures.time_base)
        marks = [(packet.pts, packet.dts) for packet in packets]
        for turn in range(-int(-seconds // clip_s)):
            for packet, (pts, dts) in zip(packets, marks, strict=True):
                packet.pts, packet.dts = (pts or 0) + turn * length, (dts or 0) + turn * length
                packet.stream = copy
                target.mux(packet)
    clip.unlink()
    return path


async def watch(service: LiveProcess, seconds: float, progress: Callable[[Sample], None]) -> Watched:
    """Follow the service for so long."""
    seen, began = Watched(), time.monotonic()
    listening = asyncio.create_task(_listen(service, seen))
    while time.monotonic() - began < seconds:
        done, _ = await asyncio.wait([listening], timeout=SAMPLE_S)
        if done:
            listening.result()
            raise RuntimeError("the service closed the connection")
        seen.samples.append(_sample(service, time.monotonic() - began))
        progress(seen.samples[-1])
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    return seen


async def _listen(service: LiveProcess, seen: Watched) -> None:
    async for message in service.messages(*PHOTOS):
        if message["type"] == "signal":
            seen.lag[message["stream"]].append(message["at"] - message["t"])
        elif message["type"] == "expression" and message["state"] == "final":
            seen.finals[message["stream"]] += 1
        elif message["type"] == "preview":
            seen.pictures += 1
        elif message["type"] == "status":
            seen.status[message["stream"]] = message


def _sample(service: LiveProcess, at: float) -> Sample:
    used = service.usage()
    return Sample(round(at, 1), round(used.memory_mib, 2), used.threads, used.handles, round(os.getloadavg()[0], 2))


def figures(seen: Watched, seconds: float) -> dict[str, Any]:
    """What is judged and recorded."""
    warm = [sample for sample in seen.samples if sample.at >= min(WARM_UP_S, WARM_UP * seconds)] or seen.samples
    some = max(1, len(warm) // 10)
    early, late = warm[:some], warm[-some:]
    return {
        "memory_mib": growth([sample.memory_mib for sample in early], [sample.memory_mib for sample in late]),
        "threads": {"warm": max(sample.threads for sample in early), "end": late[-1].threads},
        "handles": {"warm": max(sample.handles for sample in early), "end": late[-1].handles},
        "load": {"median": median(s.load for s in seen.samples), "worst": max(s.load for s in seen.samples)},
        "sources": {stream: _source(seen, stream) for stream in PHOTOS},
        "pictures": seen.pictures,
        "end_s": round(seen.ended_s, 2),
    }


def _source(seen: Watched, stream: str) -> dict[str, Any]:
    """Drift is the median lag of the last tenth less that of the first; jitter the range of the middle 98 %."""
    lags = seen.lag[stream]
    some = max(1, len(lags) // 10)
    ordered = sorted(lags)
    status = seen.status.get(stream, {})
    frames = status.get("frames")
    return {
        "signals": len(lags),
        "drift_s": round(median(lags[-some:]) - median(lags[:some]), 4) if lags else None,
        "jitter_s": round(ordered[int(0.99 * (len(lags) - 1))] - ordered[int(0.01 * (len(lags) - 1))], 4) if lags else None,
        "events": seen.finals[stream],
        **{name: status.get(name) for name in ("frames", "drops", "reconnects")},
        "dropped": round(status["drops"] / frames, 4) if frames else None,
    }


def violations(found: dict[str, Any]) -> list[str]:
    """What is not within the limits, in sentences."""
    memory, sources = found["memory_mib"], found["sources"]
    checks = {f"memory grew by {memory['growth']:.1%}": memory["growth"] < MAX_GROWTH}
    for what in ("threads", "handles"):
        checks[f"{what} grew from {found[what]['warm']} to {found[what]['end']}"] = found[what]["end"] <= found[what]["warm"]
    for stream, source in sources.items():
        drift = source["drift_s"]
        checks[f"{stream}: nothing came"] = drift is not None and source["events"] > 0
        checks[f"{stream}: its time drifted by {drift} s"] = drift is None or abs(drift) < MAX_DRIFT_S
        dropped, load = source["dropped"] or 0.0, found["load"]["median"]
        lost = f"{dropped:.1%} of its pictures were dropped (the machine's load was {load:.1f} in the median)"
        checks[f"{stream}: {lost}"] = dropped < MAX_DROPPED
        checks[f"{stream}: it was lost {source['reconnects']} times"] = not source["reconnects"]
    return unmet(checks)


def run(minutes: float, progress: Callable[[Sample], None], *, clip_s: float = CLIP_S) -> Watched:
    """Serve, watch and end."""
    seconds = 60 * minutes
    with tempfile.TemporaryDirectory(prefix="apexstream-soak-") as folder:
        videos = [long_video(Path(folder) / f"{photo}.mp4", photo, seconds + 60, clip_s=clip_s) for photo in PHOTOS]
        with RtspServer(video=videos[0]) as one, RtspServer(video=videos[1]) as two:
            settings = Path(folder) / "live.toml"
            named = zip(PHOTOS, (one, two), strict=True)
            settings.write_text("".join(f'[[sources]]\nname = "{name}"\nurl = "{server.url}"\n' for name, server in named))
            with LiveProcess([], "--config", str(settings)) as service:
                seen = asyncio.run(watch(service, seconds, progress))
                seen.ended_s = service.end()
    return seen


def _table(found: dict[str, Any]) -> Table:
    table = Table("", "warmed up", "end", title=f"growth of memory {found['memory_mib']['growth']:+.2%}")
    for name in ("memory_mib", "threads", "handles"):
        table.add_row(name, f"{found[name]['warm']:g}", f"{found[name]['end']:g}")
    return table


def main(*, minutes: Annotated[float, typer.Option(help="How long.")] = 30.0, json: Record = None) -> None:
    """Serve two cameras, watch the service, and compare what it held with the limits."""
    console = Console(stderr=True)
    reported_at = 0.0

    def progress(sample: Sample) -> None:
        nonlocal reported_at
        if sample.at - reported_at >= 60:
            reported_at = sample.at
            console.print(
                f"{sample.at / 60:.0f} min: {sample.memory_mib} MiB, {sample.threads} threads, {sample.handles} handles, "
                f"load {sample.load:g}"
            )

    seen = run(minutes, progress)
    found = figures(seen, 60 * minutes)
    console.print(_table(found))
    console.print(f"load of the machine: {found['load']} on {os.cpu_count()} cores")
    for stream, source in found["sources"].items():
        console.print(f"{stream}: {source}")
    record = {
        "command": f"python -m tests.soak.endurance --minutes {minutes:g}",
        "cores": os.cpu_count(),
        **found,
        "samples": [asdict(sample) for sample in seen.samples[:: max(1, len(seen.samples) // 60)]],
    }
    finish(record, violations(found), json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
