from __future__ import annotations

from stream.retention import AWAY_S, CONFIRM_S, JUMP_S, TrustedClock, steady_time

NOW = 1_770_000_000.0
DAY_S = 86_400.0


class Machine:
    """Its two clocks, moved by the test."""

    def __init__(self) -> None:
        self.wall, self.steady = NOW, 1000.0

    def clock(self, newest: float | None) -> TrustedClock:
        return TrustedClock(newest, wall=lambda: self.wall, steady=lambda: self.steady)

    def run(self, seconds: float, *, set_by: float = 0.0) -> None:
        self.steady += seconds
        self.wall += seconds + set_by


def test_a_clock_that_goes_on_is_believed() -> None:
    machine = Machine()
    clock = machine.clock(NOW - 60)
    for _ in range(200):
        assert clock.now() == machine.wall
        machine.run(3600, set_by=0.9 * JUMP_S)  # slow, and put right now and then
    assert clock.now() == machine.wall


def test_a_clock_that_jumps_is_not_and_is_again_once_it_is_back() -> None:
    machine = Machine()
    clock = machine.clock(NOW - 60)
    machine.run(30, set_by=200 * DAY_S)
    assert clock.now() is None
    machine.run(30)
    assert clock.now() is None
    machine.run(30, set_by=-200 * DAY_S)
    assert clock.now() == machine.wall


def test_a_clock_that_was_set_is_believed_after_a_day() -> None:
    for by in (200 * DAY_S, -200 * DAY_S):
        machine = Machine()
        clock = machine.clock(None)
        machine.run(30, set_by=by)
        assert clock.now() is None
        machine.run(CONFIRM_S / 2)
        assert clock.now() is None
        machine.run(30, set_by=5 * DAY_S)
        assert clock.now() is None
        machine.run(CONFIRM_S - 1)
        assert clock.now() is None
        machine.run(1)
        assert clock.now() == machine.wall


def test_a_clock_far_from_the_newest_event_is_to_prove_itself() -> None:
    for newest, believed in (
        (None, True),
        (NOW - AWAY_S, True),
        (NOW + 30, True),
        (NOW - AWAY_S - 1, False),
        (NOW + 300, False),
    ):
        machine = Machine()
        clock = machine.clock(newest)
        assert (clock.now() is not None) is believed, newest
        machine.run(CONFIRM_S)
        assert clock.now() == machine.wall


def test_what_is_stored_while_a_clock_is_wrong_has_the_time_it_was_before() -> None:
    machine = Machine()
    clock = machine.clock(NOW - 60)
    machine.run(30)
    right = machine.wall
    assert clock.stamp() == right
    machine.run(30, set_by=200 * DAY_S)
    assert clock.stamp() == right + 30
    assert machine.clock(NOW).stamp() == machine.wall, "there is no better one"


def test_the_steady_clock_goes_on() -> None:
    assert steady_time() <= steady_time()
