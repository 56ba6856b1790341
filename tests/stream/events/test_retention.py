from __future__ import annotations

import time

import pytest

from stream.events.retention import AWAY_S, CONFIRM_S, CONTINUED_S, JUMP_S, SETTLED_S, TrustedClock, Waited, steady_time

NOW = 1_770_000_000.0
DAY_S = 86_400.0


class Machine:
    """Two clocks, moved by the test."""

    def __init__(self) -> None:
        self.wall, self.steady = NOW, 1000.0

    def clock(self, newest: float | None, waited: Waited | None = None) -> TrustedClock:
        return TrustedClock(newest, waited, wall=lambda: self.wall, steady=lambda: self.steady)

    def run(self, seconds: float, *, set_by: float = 0.0) -> None:
        self.steady += seconds
        self.wall += seconds + set_by


def test_a_clock_without_a_jump_is_trusted() -> None:
    machine = Machine()
    clock = machine.clock(NOW - 60)
    for _ in range(200):
        assert clock.now() == machine.wall
        machine.run(3600, set_by=0.9 * JUMP_S)  # slow, and corrected at times
    assert clock.now() == machine.wall


def test_a_clock_that_jumps_is_trusted_again_once_it_is_set_back() -> None:
    machine = Machine()
    clock = machine.clock(NOW - 60)
    machine.run(30, set_by=200 * DAY_S)
    assert clock.now() is None
    machine.run(30)
    assert clock.now() is None
    machine.run(30, set_by=-200 * DAY_S)
    assert clock.now() == machine.wall


def test_a_clock_that_was_set_is_trusted_after_a_day() -> None:
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


def test_a_clock_far_from_the_newest_event_is_trusted_after_a_day() -> None:
    for newest, trusted in (
        (None, True),
        (NOW - AWAY_S, True),
        (NOW + 30, True),
        (NOW - AWAY_S - 1, False),
        (NOW + 300, False),
    ):
        machine = Machine()
        clock = machine.clock(newest)
        assert (clock.now() is not None) is trusted, newest
        machine.run(CONFIRM_S)
        assert clock.now() == machine.wall


def test_stamps_ignore_a_jump_of_the_clock() -> None:
    machine = Machine()
    clock = machine.clock(NOW - 60)
    machine.run(30)
    right = machine.wall
    assert clock.stamp() == right
    machine.run(30, set_by=200 * DAY_S)
    assert clock.stamp() == right + 30
    assert machine.clock(NOW).stamp() == machine.wall, "no other time is known"


def test_a_clock_set_soon_after_the_start_is_followed() -> None:
    machine = Machine()
    clock = machine.clock(NOW - 60)
    machine.run(30, set_by=DAY_S)
    assert (clock.stamp(), clock.now()) == (machine.wall, machine.wall)
    machine.run(SETTLED_S, set_by=DAY_S)
    assert clock.stamp() == machine.wall - DAY_S and clock.now() is None, "later it has to run for a day first"


def test_after_a_week_off_stamps_follow_the_clock_at_once_and_nothing_is_removed() -> None:
    for newest in (NOW - 60, None):
        machine = Machine()
        clock = machine.clock(newest)
        machine.run(30, set_by=7 * DAY_S)
        assert clock.stamp() == machine.wall and clock.now() is None
        machine.run(CONFIRM_S)
        assert clock.now() == machine.wall


def test_a_clock_wrong_soon_after_the_start_is_trusted_once_it_is_set_back() -> None:
    machine = Machine()
    clock = machine.clock(NOW - 60)
    machine.run(30, set_by=20 * DAY_S)
    assert clock.now() is None
    machine.run(2 * SETTLED_S, set_by=-20 * DAY_S)
    assert (clock.stamp(), clock.now()) == (machine.wall, machine.wall)


def test_the_time_without_a_jump_counts_in_the_next_run_unless_the_clock_was_set_between() -> None:
    for away, carried in ((7 * DAY_S, True), (CONTINUED_S + DAY_S, False), (-DAY_S, False)):
        machine = Machine()
        clock = machine.clock(NOW - 7 * DAY_S)
        machine.run(CONFIRM_S / 2)
        kept = clock.waited()
        assert kept == Waited(machine.wall, CONFIRM_S / 2)
        machine.wall, machine.steady = machine.wall + away, 0.0
        again = machine.clock(NOW - 7 * DAY_S if away > 0 else NOW - 70 * DAY_S, kept)
        machine.run(CONFIRM_S / 2)
        assert (again.now() is not None) is carried, away
        assert (again.waited() is None) is carried


def test_the_steady_clock_goes_on() -> None:
    assert steady_time() <= steady_time()


def test_the_steady_clock_goes_on_in_a_suspended_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr(time, "clock_gettime", lambda number: asked.append(number) or 1.0)
    assert (steady_time(), asked) == (1.0, [time.CLOCK_MONOTONIC])
