from __future__ import annotations

import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from apexstream.bench.latency import Received, _table, figures, judged, main, received

START = datetime(2026, 1, 31, 9, tzinfo=UTC).timestamp()


def signal(t: float) -> dict[str, Any]:
    """The service saw the frame of time t; the clip began at START."""
    return {"type": "signal", "t": t, "at": START + t, "received": START + t + 0.004}


def event(id_: str, state: str, apex_t: float, decided_t: float, *, worked_ms: float, receipt_ms: float) -> dict[str, Any]:
    """The frame of decided_t arrived, the service worked for so long, and so long after the arrival the client had it."""
    arrived = START + decided_t
    emitted = datetime.fromtimestamp(arrived + worked_ms / 1000, UTC).isoformat(timespec="milliseconds")
    told = {"type": "expression", "id": id_, "state": state, "apex": {"t": apex_t}, "latency_ms": worked_ms}
    return {**told, "emitted_at": emitted, "received": arrived + receipt_ms / 1000}


def test_messages_are_timed_by_arrival_and_receipt() -> None:
    signals = [signal(k / 10) for k in range(50)]
    announced = event("a", "provisional", 2.0, 2 + 4 / 30, worked_ms=20, receipt_ms=26)
    final = event("a", "final", 2.0, 2.5, worked_ms=9, receipt_ms=31)
    cut = {**event("b", "final", 4.0, 4.2, worked_ms=9, receipt_ms=31), "truncated": True}
    first, last = received([*signals[:30], announced, final, *signals[30:], cut])
    assert (first.id, first.state, first.apex_t) == ("a", "provisional", 2.0)
    assert first.decided_t == pytest.approx(2 + 4 / 30) and last.decided_t == pytest.approx(2.5)
    assert first.latency_ms == pytest.approx(26, abs=1.1) and last.latency_ms == pytest.approx(31, abs=1.1)


def truth(*apexes: float) -> Any:
    return SimpleNamespace(events=[SimpleNamespace(apex_t=t) for t in apexes])


def test_an_apex_counts_once_and_from_its_announcement() -> None:
    events = [
        Received("a", "provisional", 2.0, 20.0, 2.1),
        Received("a", "final", 2.0, 30.0, 2.5),
        Received("b", "final", 5.0, 40.0, 5.6),
        Received("c", "provisional", 9.0, 10.0, 9.2),
    ]
    found = figures(events, truth(2.02, 5.0))
    assert found["latency_ms"]["all"] == {"count": 4, "p50": 25.0, "p95": 40.0, "worst": 40.0}
    assert found["latency_ms"]["final"]["count"] == 2
    assert found["spotted_apex_to_confirmation_ms"] == {"count": 2, "p50": 150.0, "p95": 200.0, "worst": 200.0}
    assert found["true_apex_to_confirmation_ms"]["count"] == 1, "no true expression is near the third"
    assert found["true_apex_to_confirmation_ms"]["p50"] == pytest.approx(80.0)
    assert found["spotted_apex_to_first_message_ms"]["worst"] == pytest.approx(600.0)
    assert judged(found) == []


def test_all_ways_to_time_an_apex_are_shown_and_the_one_that_is_judged_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    found = figures([Received("a", "provisional", 2.0, 20.0, 2.1), Received("b", "final", 5.0, 40.0, 5.6)], truth(1.98))
    Console(file=sys.stdout, width=200).print(_table(found))
    told = capsys.readouterr().out
    assert "spotted apex to confirmation (judged: p50 at most 150)" in told
    assert "true apex to confirmation" in told and "spotted apex to first message" in told
    assert "arrival to receipt, all (judged: p95 at most 50)" in told and told.count("judged") == 2


def test_what_is_too_slow_is_told() -> None:
    late = figures([Received("a", "provisional", 2.0, 70.0, 2.3)], truth())
    assert judged(late) == [
        "95 of 100 events came within 70 ms",
        "half of the apexes were confirmed only 300 ms of source time after them",
    ]
    assert judged(figures([], truth(1.0))) == ["no event came, or none was announced"]


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0 and "--seconds" in capsys.readouterr().out
