from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from apexstream.bench.service import Received
from tests.soak.latency import _table, figures, measure, violations


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
    assert violations(found) == []


def test_all_ways_to_time_an_apex_are_shown_and_the_one_that_is_judged_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    found = figures([Received("a", "provisional", 2.0, 20.0, 2.1), Received("b", "final", 5.0, 40.0, 5.6)], truth(1.98))
    Console(file=sys.stdout, width=200).print(_table(found))
    shown = capsys.readouterr().out
    assert "spotted apex to confirmation (judged: p50 at most 150)" in shown
    assert "true apex to confirmation" in shown and "spotted apex to first message" in shown
    assert "arrival to receipt, all (judged: p95 at most 50)" in shown and shown.count("judged") == 2


def test_what_is_too_slow_is_reported() -> None:
    late = figures([Received("a", "provisional", 2.0, 70.0, 2.3)], truth())
    assert violations(late) == [
        "95 of 100 events came within 70 ms",
        "half of the apexes were confirmed only 300 ms of source time after them",
    ]
    assert violations(figures([], truth(1.0))) == ["no event came, or none was announced"]


def test_a_clips_events_are_measured_from_outside(rendered_clip: Path) -> None:
    events, _ = measure(rendered_clip)
    assert {event.state for event in events} == {"provisional", "final"}
    for event in events:
        assert event.latency_ms > 0
        assert event.apex_t - 0.1 < event.decided_t < 8.1, "the frame that decided lies in the clip, after the apex"
