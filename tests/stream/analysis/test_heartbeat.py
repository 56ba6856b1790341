from __future__ import annotations

import threading

import pytest

from stream.analysis import heartbeat
from stream.analysis.heartbeat import BEAT_S, CHECK_S, LOADING_S, REPLACED_S, STALLED_S, Heartbeat, Monitor
from tests.live import PATIENCE_S


def test_silence_is_counted_in_checks() -> None:
    beating = Heartbeat()
    assert [beating.silent_s() for _ in range(3)] == [CHECK_S, 2 * CHECK_S, 3 * CHECK_S]
    beating.beat()
    assert [beating.silent_s() for _ in range(2)] == [0.0, CHECK_S]


def test_silence_is_reported_within_five_seconds_and_not_between_two_beats() -> None:
    assert BEAT_S + STALLED_S + CHECK_S <= 5
    assert 2 * (BEAT_S + CHECK_S) < STALLED_S < REPLACED_S < LOADING_S


def test_a_monitor_checks_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "CHECK_S", 0.001)
    checks, enough = list[int](), threading.Event()

    def check() -> None:
        checks.append(1)
        if len(checks) == 3:
            enough.set()

    monitor = Monitor(check, "monitor")
    monitor.start()
    assert enough.wait(PATIENCE_S)
    monitor.stop(PATIENCE_S)
    assert not [thread for thread in threading.enumerate() if thread.name == "monitor"]
    Monitor(check, "monitor").stop(PATIENCE_S)
