"""The summary of an analysis: the video, the events and the settings; and apart from it, when it ran and how fast."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.types import ACTIVITY_KINDS, Activity, Event
from stream.recorded.settings import AnalysisSettings
from stream.sources.clock import slow_rate
from stream.sources.facts import VideoFacts

MANY_REPEATED = 0.1
"""The share of repeated frames from which the summary notes it."""

PACKAGES = ("apexstream", "ai-edge-litert", "av", "numpy", "onnxruntime", "opencv-contrib-python")


def summarize(
    *,
    stream: str,
    video: VideoFacts,
    events: Sequence[Event],
    activities: Sequence[Activity],
    statistics: Mapping[str, int],
    model: str | None,
    backend: str | None,
    settings: AnalysisSettings,
    problem: str | None,
) -> dict[str, Any]:
    """The content of summary.json; problem is None when the whole video was analysed, model and backend where the analysis
    failed before its end. Times in seconds.

    The same video, settings and program give the same content, whenever and wherever they ran.
    """
    facts = asdict(video)
    lit = 1 - video.unlit_frames / max(1, video.frames)
    return {
        "format": 1,
        "complete": problem is None,
        "problem": problem,
        "notes": list(notes((facts["measured_fps"] or 0.0) * lit, statistics)),
        "stream": stream,
        "file": str(Path(video.path).resolve()),
        "video": facts,
        "events": count_events(events),
        "activities": count_activities(activities),
        "statistics": dict(statistics),
        "model": model,
        "backend": backend,
        "versions": {"python": platform.python_version(), **package_versions()},
        "settings": settings.model_dump(mode="json"),
    }


def timing(video: VideoFacts, started_at: datetime, wall_s: float) -> dict[str, Any]:
    """When a run over this video started, how long it took, and how fast that is; differs from run to run."""
    return {
        "started_at": started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "wall_s": round(wall_s, 3),
        "frames_per_s": round(video.frames / wall_s, 1) if wall_s > 0 else None,
        "times_real_time": round(video.duration / wall_s, 2) if video.duration and wall_s > 0 else None,
    }


def notes(fps: float, statistics: Mapping[str, int]) -> Iterator[str]:
    """Sentences on what in the video limits detection, from its frames a second and the pipeline's statistics."""
    if statistics.get("frames_with_face") == 0:
        yield "no face was seen in the video"
    repeated, seen = statistics.get("repeated", 0), max(1, statistics.get("frames_with_face", 0))
    share = repeated / seen
    if share >= MANY_REPEATED:
        distinct = fps * (1 - share)
        yield f"{share:.0%} of the frames repeat the one before: the video shows {distinct:.0f} different pictures a second"
    slow = slow_rate(fps * (1 - share))
    if slow:
        yield slow


def count_events(events: Sequence[Event]) -> dict[str, Any]:
    """Counts of events by label, kind and face."""
    return {
        "count": len(events),
        "by_label": dict(Counter(event.label for event in events)),
        "by_kind": dict(Counter(str(event.kind) for event in events)),
        "by_face": {str(face): count for face, count in sorted(Counter(event.face for event in events).items())},
        "truncated": sum(event.truncated for event in events),
        "speaking": sum(event.speaking for event in events),
    }


def count_activities(activities: Sequence[Activity]) -> dict[str, Any]:
    """Count and total seconds of activities besides expressions, by kind."""
    return {
        kind: {
            "count": sum(one.kind == kind for one in activities),
            "seconds": round(sum(one.end.t - one.start.t for one in activities if one.kind == kind), 3),
        }
        for kind in ACTIVITY_KINDS
    }


def package_versions() -> dict[str, str | None]:
    """The installed version of each package that affects the result; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
