from __future__ import annotations

import os
from pathlib import Path

import pytest

from apexstream.bench import service
from apexstream.bench.service import Load, latency, most_held, watch
from tests.live import PATIENCE_S


@pytest.mark.parametrize(
    ("load", "held"),
    [
        (Load(2, 10, [30.0, 29.5]), True),
        (Load(2, 10, [30.0, 27.0]), False),
        (Load(2, 10, [30.0, 30.0], drops=1), False),
        (Load(2, 10, [30.0]), False),
    ],
)
def test_held_is_every_picture_of_every_source(load: Load, held: bool) -> None:
    assert load.held(30) is held


@pytest.mark.parametrize("limit", [0, 1, 5, 7, 99])
def test_the_most_that_is_held_is_found_by_halving(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(video: Path, count: int, seconds: float, *, processes: str) -> Load:
        assert processes == "3"
        return Load(count, seconds, [30.0] * count, drops=int(count > limit))

    monkeypatch.setattr(service, "watch", some)
    reported: list[Load] = []
    most, tried = most_held(Path("clip"), 30, 1.0, reported.append, processes="3")
    assert most == max((count for count in service.COUNTS if count <= limit), default=0)
    assert reported == tried and len(tried) <= 4


def test_a_camera_is_watched_through_the_service(rendered_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SETTLE_S", 0.1)
    monkeypatch.setattr(service, "LOAD_S", PATIENCE_S)
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    load = watch(rendered_clip, 1, 1.5, core=0)
    assert load.sources == len(load.rates) == 1
    assert load.rates[0] > 0 and load.cores > 0 and load.memory_mib > 100
    assert mine is None or os.sched_getaffinity(0) == mine


def test_events_are_timed_and_memory_seen(rendered_clip: Path) -> None:
    found = latency(rendered_clip)
    assert found.events > 0 and found.p50_ms is not None and found.p95_ms is not None
    assert 0 < found.p50_ms <= found.p95_ms and found.memory_mib > 100
