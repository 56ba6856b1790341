from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from apexstream.bench.latency import received

START = datetime(2026, 1, 31, 9, tzinfo=UTC).timestamp()


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
