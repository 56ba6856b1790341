from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apexstream.bench import service
from apexstream.bench.service import Load, latency, most_held, received, watch
from tests.live import PATIENCE_S

START = datetime(2026, 1, 31, 9, tzinfo=UTC).timestamp()


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


def signal(t: float) -> dict[str, Any]:
    """The service saw the frame of time t; the clip began at START."""
    return {"type": "signal", "t": t, "at": START + t, "received": START + t + 0.004}


def event(id_: str, state: str, apex_t: float, decided_t: float, *, worked_ms: float, receipt_ms: float) -> dict[str, Any]:
    """The frame of decided_t arrived, the service worked for so long, and so long after the arrival the client had it."""
    arrived = START + decided_t
    emitted = datetime.fromtimestamp(arrived + worked_ms / 1000, UTC).isoformat(timespec="milliseconds")
    message = {"type": "expression", "id": id_, "state": state, "apex": {"t": apex_t}, "latency_ms": worked_ms}
    return {**message, "emitted_at": emitted, "received": arrived + receipt_ms / 1000}


def test_messages_are_timed_by_arrival_and_receipt() -> None:
    signals = [signal(k / 10) for k in range(50)]
    announced = event("a", "provisional", 2.0, 2 + 4 / 30, worked_ms=20, receipt_ms=26)
    final = event("a", "final", 2.0, 2.5, worked_ms=9, receipt_ms=31)
    cut = {**event("b", "final", 4.0, 4.2, worked_ms=9, receipt_ms=31), "truncated": True}
    first, last = received([*signals[:30], announced, final, *signals[30:], cut])
    assert (first.id, first.state, first.apex_t) == ("a", "provisional", 2.0)
    assert first.decided_t == pytest.approx(2 + 4 / 30) and last.decided_t == pytest.approx(2.5)
    assert first.latency_ms == pytest.approx(26, abs=1.1) and last.latency_ms == pytest.approx(31, abs=1.1)
