"""A whole video, `apexstream analyze` and the baseline script side by side, each as a process of its own."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from apexstream.bench.baseline import FoundEvent
from apexstream.bench.live_process import import_environment
from engine.errors import ApexError
from stream.recorded.folders.records import RECORD

SAMPLE_S = 0.02
"""How often a running program's figures are read; what it does after the last reading is missed."""

SAME_SHARE = 0.5
"""Two events are the same when they overlap by at least this share of their union (and have one class)."""


class MeasurementError(ApexError):
    """A program that was to be measured did not do its work."""


@dataclass(frozen=True)
class Analysed:
    """One run: its frames, its seconds as it reports them itself and from the start of the program to its end, the processor's
    seconds of all threads, the most memory, and the events."""

    frames: int
    wall_s: float
    cpu_s: float
    total_s: float
    peak_mib: float
    events: tuple[FoundEvent, ...]

    @property
    def frames_per_s(self) -> float:
        """From the start of the program to its end."""
        return self.frames / self.total_s

    @property
    def own_frames_per_s(self) -> float:
        """As the program reports it: from the loading of its models to the last frame."""
        return self.frames / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """Processor time a frame, ms, over all threads."""
        return 1000 * self.cpu_s / self.frames


@dataclass(frozen=True)
class Finished:
    """A process that has ended: what it printed, its seconds, its processor's seconds and its most memory (MiB)."""

    printed: str
    wall_s: float
    cpu_s: float
    peak_mib: float


def ours(video: Path) -> Analysed:
    """`apexstream analyze` as a user runs it."""
    with tempfile.TemporaryDirectory(prefix="apexstream-bench-") as folder:
        ended = run([sys.executable, "-m", "apexstream", "analyze", str(video), "--out", folder])
        results = Path(folder) / video.stem
        summary = json.loads((results / "summary.json").read_text(encoding="utf-8"))
        timing = json.loads((results / RECORD).read_text(encoding="utf-8"))["timing"]
        lines = (results / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = tuple(
        FoundEvent(event["onset"]["t"], event["apex"]["t"], event["offset"]["t"], event["label"])
        for event in map(json.loads, lines)
    )
    frames = int(summary["video"]["frames"])
    wall_s = frames / timing["frames_per_s"]
    return Analysed(frames, wall_s, ended.cpu_s, ended.wall_s, ended.peak_mib, events)


def baseline(video: Path, *, mesh_alone: bool = False) -> Analysed:
    """The baseline script, or of it decoding and the mesh of every picture alone."""
    ended = run([sys.executable, "-m", "apexstream.bench.baseline", str(video), *["--mesh-alone"] * mesh_alone])
    found = json.loads(ended.printed)
    events = tuple(FoundEvent(**event) for event in found["events"])
    return Analysed(found["frames"], found["wall_s"], ended.cpu_s, ended.wall_s, ended.peak_mib, events)


def run(command: Sequence[str]) -> Finished:
    """Run a program to its end, and measure it. Raises MeasurementError where it fails."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed, tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        began = time.monotonic()
        process = psutil.Popen(list(command), stdout=printed, stderr=errors, env=import_environment())
        peak = used = 0.0
        while process.poll() is None:
            with contextlib.suppress(psutil.TimeoutExpired, psutil.NoSuchProcess):
                with process.oneshot():
                    times = process.cpu_times()
                    peak, used = max(peak, process.memory_info().rss / 2**20), times.user + times.system
                process.wait(SAMPLE_S)
        wall_s = time.monotonic() - began
        printed.seek(0)
        errors.seek(0)
        if process.returncode:
            last = (errors.read().strip() or printed.read().strip() or f"exit code {process.returncode}").splitlines()[-1]
            raise MeasurementError(f"{' '.join(command[1:4])} failed: {last}")
        return Finished(printed.read(), wall_s, used, peak)


def same(ours: Sequence[FoundEvent], theirs: Sequence[FoundEvent]) -> int:
    """How many events both found, with the same class; each counts once."""
    left, count = list(theirs), 0
    for event in ours:
        twin = next((other for other in left if _alike(event, other)), None)
        if twin is not None:
            left.remove(twin)
            count += 1
    return count


def _alike(a: FoundEvent, b: FoundEvent) -> bool:
    shared = min(a.offset, b.offset) - max(a.onset, b.onset)
    union = max(a.offset, b.offset) - min(a.onset, b.onset)
    return a.label == b.label and union > 0 and shared / union >= SAME_SHARE
