"""What the parts cost on this machine: frames, storing events, a real redis-server, and how many bytes things have.

Frames and services are timed by the processor's clock, which other programs disturb little; a durable commit waits for the disk
and is timed by the clock on the wall.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from apexstream.bench.live_process import import_environment
from apexstream.bench.machine import describe
from apexstream.clips import preset, write_clip
from engine.errors import InputError
from engine.pipeline import Pipeline
from engine.types import Event, Mark
from lab.scaling.services import CAMERAS, fleet_costs, hub_costs, redis_costs
from lab.scaling.study import Assumptions
from stream.events.store import Store
from stream.messages import FaceTrace, Signal
from stream.process import opencv_on_one_thread
from stream.protocol import signal
from stream.sources.file import open_video

WARM_FRAMES = 60
COMMITS = 200
BATCHES = (1, 8, 64)
HUB_NODES = (1, 100, 1000)


def measure(videos: list[Path], seconds: float) -> dict[str, Any]:
    """All of it, as a record. videos: recordings whose bytes a frame are noted too, by size of picture alone.

    Raises InputError for a video that cannot be read, ApexError without redis-server.
    """
    with tempfile.TemporaryDirectory(prefix="apexstream-scaling-") as scratch:
        clip = Path(scratch) / "clip.mp4"
        write_clip(preset("benchmark", "hopper", 30, seed=0, duration_s=seconds, size=(640, 480)), clip)
        body = json.dumps(_stored(1), separators=(",", ":"))
        return {
            "machine": describe(),
            "frame_ms": frame_times(clip),
            "frame_bytes": [frame_bytes(clip, "rendered"), *(frame_bytes(video, "recorded") for video in videos)],
            "results_bytes_per_hour": results_bytes(clip, Path(scratch) / "results", seconds),
            "event_bytes": len(body),
            "signal_bytes": len(_signal()),
            "store": store_times(Path(scratch) / "store"),
            "redis": redis_costs(_folder(scratch, "redis"), body, _signal()),
            "hub": hub_costs(_folder(scratch, "fleet"), body, _signal()),
        }


def measure_hub() -> dict[str, Any]:
    """Hubs of made-up fleets by their number of nodes, without and with events, as a record. Raises ApexError without
    redis-server."""
    assumed, body = Assumptions(), json.dumps(_stored(1), separators=(",", ":"))
    with tempfile.TemporaryDirectory(prefix="apexstream-scaling-") as scratch:
        rows = [
            fleet_costs(_folder(scratch, f"{nodes}-{events}"), nodes, nodes * events, body, _signal())
            for nodes in HUB_NODES
            for events in (0.0, CAMERAS * assumed.events_a_minute / 60)
        ]
    return {"machine": describe(), "cameras_a_node": CAMERAS, "fleets": rows}


def frame_times(video: Path) -> dict[str, Any]:
    """Milliseconds of the processor of each frame, decoding included: mean and quantiles 0, .01, ... 1."""
    times = []
    with opencv_on_one_thread(), contextlib.closing(Pipeline.from_config()) as pipeline, open_video(video) as frames:
        before = time.process_time()
        for frame in frames:
            pipeline.feed(frame)
            now = time.process_time()
            times.append(1000 * (now - before))
            before = now
    rest = np.array(times[WARM_FRAMES:])
    if not rest.size:
        raise InputError(f"the clip has to be longer than {WARM_FRAMES} frames")
    return {"frames": rest.size, "mean": round(float(rest.mean()), 3), "quantiles": _quantiles(rest)}


def frame_bytes(video: Path, kind: str) -> dict[str, Any]:
    """Bytes of video a frame and a second, of one file."""
    import av

    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        sizes = [packet.size for packet in container.demux(stream) if packet.size]
        rate = float(stream.average_rate or 0)
        size, codec = f"{stream.codec_context.width}x{stream.codec_context.height}", stream.codec_context.name
    if not sizes or not rate:
        raise InputError(f"{video} has no frames, or no frame rate")
    mean = sum(sizes) / len(sizes)
    return {
        "kind": kind,
        "size": size,
        "codec": codec,
        "fps": round(rate, 2),
        "bytes_per_frame": round(mean),
        "mbit_per_s": round(8 * mean * rate / 1e6, 3),
    }


def results_bytes(clip: Path, folder: Path, seconds: float) -> int:
    """Bytes that `apexstream analyze` writes for an hour of video, by its results for a clip of that many seconds."""
    command = [sys.executable, "-m", "apexstream", "analyze", str(clip), "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=import_environment())
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) * 3600 / seconds)


def store_times(folder: Path) -> dict[str, Any]:
    """Milliseconds by the clock of a durable commit: quantiles for one event, medians by events at once; bytes an event."""
    store, taken = Store(folder), {}
    try:
        for batch in BATCHES:
            events = [_stored(number) for number in range(batch)]
            taken[batch] = np.array([_clocked(partial(store.append, events)) for _ in range(COMMITS)])
        size = store.size
    finally:
        store.close()
    return {
        "one_event_quantiles_ms": _quantiles(taken[1]),
        "median_ms_by_events_at_once": {str(batch): round(float(np.median(times)), 3) for batch, times in taken.items()},
        "bytes_per_event": round(size / (COMMITS * sum(BATCHES))),
    }


def _stored(number: int) -> dict[str, Any]:
    """An event's JSON form, as the store takes it."""
    onset = float(number)
    event = Event(
        id=f"0a1b2c3d-{number:08d}",
        stream="camera-1",
        face=0,
        state="final",
        kind="micro",
        onset=Mark(30 * number, onset),
        apex=Mark(30 * number + 6, onset + 0.2),
        offset=Mark(30 * number + 12, onset + 0.4),
        label="surprise",
        probabilities={"negative": 0.0312, "positive": 0.0504, "surprise": 0.9184},
        confidence=0.9184,
        intensity=1.312,
        model="ahmsa-3db@sha256:0123456789ab",
    )
    return {**event.as_dict(), "emitted_at": "2026-01-31T09:00:00.123Z", "latency_ms": 8.2}


def _signal() -> bytes:
    """A motion trace of one face over a tenth of a second, as it is on the websocket."""
    t = (10.0333, 10.0667, 10.1)
    encoded = signal(Signal("camera-1", 10.1, 1.0, (FaceTrace(0, t, (0.312, 0.358, 0.401), (0.12, 0.13, 0.16), {}),))).encoded
    return encoded if isinstance(encoded, bytes) else encoded.encode()


def _folder(scratch: str, name: str) -> Path:
    folder = Path(scratch) / name
    folder.mkdir()
    return folder


def _clocked(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def _quantiles(values: Any) -> list[float]:
    return [round(float(value), 4) for value in np.quantile(values, np.linspace(0, 1, 101))]
