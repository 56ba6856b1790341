from __future__ import annotations

import threading

from tests.soak.attack_target import Outcome, analysed_frames, becomes_true


def test_frames_are_read_from_the_services_figures() -> None:
    metrics = (
        '# HELP x\napexstream_frame_seconds_count{stream="hopper"} 31.0\napexstream_frame_seconds_sum{stream="hopper"} 1.5\n'
    )
    assert analysed_frames(metrics) == {"hopper": 31}
    assert analysed_frames("the service ends") == {}


def test_only_a_requirement_that_is_not_met_is_a_problem() -> None:
    outcome = Outcome()
    outcome.require("all is well", ok=True)
    outcome.require("that is bad", ok=0)
    assert outcome.problems == ["that is bad"]


def test_an_attack_stops_waiting_when_the_run_is_over() -> None:
    over = threading.Event()
    assert becomes_true(over, lambda: True, 0.0)
    over.set()
    assert not becomes_true(over, lambda: False, 1e6)
