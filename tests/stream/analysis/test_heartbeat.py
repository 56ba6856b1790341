from __future__ import annotations

import threading

import pytest

from stream.analysis import heartbeat
from stream.analysis.heartbeat import BEAT_S, LOADING_S, LOOK_S, REPLACED_S, STALLED_S, Lookout, Pulse
from tests.live import PATIENCE_S


def test_silence_is_what_looks_see_of_it() -> None:
    pulse = Pulse()
    assert [pulse.silent_s() for _ in range(3)] == [LOOK_S, 2 * LOOK_S, 3 * LOOK_S]
    pulse.beat()
    assert [pulse.silent_s() for _ in range(2)] == [0.0, LOOK_S]


def test_silence_is_reported_within_five_seconds_and_not_between_two_beats() -> None:
    assert BEAT_S + STALLED_S + LOOK_S <= 5
    assert 2 * (BEAT_S + LOOK_S) < STALLED_S < REPLACED_S < LOADING_S


def test_a_lookout_looks_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.001)
    looks, enough = list[int](), threading.Event()

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            enough.set()

    lookout = Lookout(look, "look")
    lookout.start()
    assert enough.wait(PATIENCE_S)
    lookout.stop(PATIENCE_S)
    assert not [thread for thread in threading.enumerate() if thread.name == "look"]
    Lookout(look, "look").stop()
