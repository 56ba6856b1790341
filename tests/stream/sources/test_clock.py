from __future__ import annotations

from itertools import pairwise

import pytest

from stream.sources.clock import SlowRate, SourceClock, Timeline, slow_rate


def stamps(clock: SourceClock, times: list[float | None]) -> list[tuple[float, bool]]:
    return [clock.stamp(t) for t in times]


def test_keeps_good_stamps_as_they_are() -> None:
    times = [1.4, 1.433, 1.5, 1.51, 2.4]
    clock = SourceClock(1 / 30)
    assert stamps(clock, list(times)) == [(t, False) for t in times]
    assert (clock.gaps, clock.invented, clock.disordered) == (0, 0, False)


@pytest.mark.parametrize(("step", "expected"), [(1 / 50, 0.02), (None, 0.04), (1e-6, 0.04), (1e6, 0.04)])
def test_without_stamps_counts_by_the_declared_rate(step: float | None, expected: float) -> None:
    clock = SourceClock(step)
    assert [t for t, _ in stamps(clock, [None] * 4)] == pytest.approx([0, expected, 2 * expected, 3 * expected])
    assert clock.invented == 4


def test_one_missing_stamp_is_filled_in() -> None:
    assert [t for t, _ in stamps(SourceClock(0.1), [0.0, 0.1, None, 0.3])] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_a_lost_second_is_a_gap_and_slow_pictures_are_not() -> None:
    fast = SourceClock(1 / 30)
    assert [gap for _, gap in stamps(fast, [n / 30 for n in (0, 1, 2, 33, 34)])] == [False, False, False, True, False]
    assert fast.gaps == 1
    slow = SourceClock(1 / 30)  # declares 30 frames/s and comes at one in two seconds
    assert [gap for _, gap in stamps(slow, [0.0, 2.0, 4.0, 6.0])] == [False, True, True, True]
    timelapse = SourceClock(2.0)
    assert [gap for _, gap in stamps(timelapse, [0.0, 2.0, 4.0, 9.0, 16.0])] == [False, False, False, False, True]


def test_a_gap_after_a_gap_is_one_too() -> None:
    assert [gap for _, gap in stamps(SourceClock(0.04), [0, 0.04, 5, 10, 10.04])] == [False, False, True, True, False]


def test_a_short_loss_is_a_gap_only_when_pictures_were_lost() -> None:
    clock = SourceClock(0.04)
    stamps(clock, [0, 0.04, 0.08])
    assert clock.stamp(0.24, lost=False) == (0.24, False)
    assert clock.stamp(0.28, lost=True) == (0.28, False)
    assert clock.stamp(0.44, lost=True) == (0.44, True)


def test_a_new_clock_is_kept_and_marked() -> None:
    clock = SourceClock(0.04)
    assert stamps(clock, [100.0, 100.04, 3.0, 3.04]) == [(100.0, False), (100.04, False), (3.0, True), (3.04, False)]


def test_repeated_stamps_get_different_times() -> None:
    times = [t for t, _ in stamps(SourceClock(0.04), [0.0, 0.04, 0.04, 0.04])]
    assert times == sorted(set(times))


def test_stamps_of_storage_are_sorted_when_that_is_known() -> None:
    clock = SourceClock(0.1, sort=True)
    stored = [0.2, 0.6, 0.4, 0.3, 0.5]
    for t in stored:
        clock.read_ahead(t)
    assert [t for t, _ in stamps(clock, list(stored))] == [0.2, 0.3, 0.4, 0.5, 0.6]
    assert clock.invented == 0


def test_times_increase_where_stamps_turn_out_to_be_unsorted() -> None:
    clock = SourceClock(0.1)
    stored = [0.2, 0.6, 0.4, 1.2, 1.0, 1.4, 0.8, 2.0]
    for t in stored:
        clock.read_ahead(t)
    times = [t for t, _ in stamps(clock, list(stored))]
    assert clock.disordered
    assert times == sorted(set(times))


def placed(timeline: Timeline, frames: list[tuple[float, float, bool]]) -> list[float]:
    return [timeline.place(t, now, gap=gap) for t, now, gap in frames]


@pytest.mark.parametrize("follows_wall", [True, False])
def test_a_timeline_follows_the_sources_own_clock(follows_wall: bool) -> None:
    steady = [(5 + n / 10, 100 + n / 10 + (n % 3) / 50, False) for n in range(50)]
    assert placed(Timeline(follows_wall=follows_wall), steady) == [t for t, _, _ in steady]


def test_after_a_restart_time_continues_by_the_wall_clock_and_then_by_the_sources() -> None:
    timeline = Timeline(follows_wall=True)
    assert placed(timeline, [(7.0, 100.0, False), (7.1, 100.1, False)]) == [7.0, 7.1]
    assert placed(timeline, [(0.0, 103.1, True), (0.1, 103.3, False), (0.2, 103.3, False)]) == pytest.approx([10.1, 10.2, 10.3])


def test_a_clock_that_ran_on_during_the_loss_is_kept() -> None:
    assert placed(Timeline(follows_wall=True), [(7.0, 100.0, False), (10.2, 103.0, True)]) == [7.0, 10.2]


def test_a_jump_ahead_is_another_clock_where_time_is_real_and_a_hole_in_a_file() -> None:
    frames = [(0.0, 100.0, False), (0.1, 100.1, False), (900.0, 100.2, True), (900.1, 100.3, False)]
    assert placed(Timeline(follows_wall=True), frames) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert placed(Timeline(follows_wall=False), frames) == [0.0, 0.1, 900.0, 900.1]


def test_a_timeline_always_increases() -> None:
    frames = [
        (9.0, 50.0, False),
        (9.1, 50.1, False),
        (9.1, 50.1, False),
        (3.0, 50.1, True),
        (3.0, 50.0, False),
        (1.0, 50, True),
    ]
    for follows_wall in (True, False):
        times = placed(Timeline(follows_wall=follows_wall), frames)
        assert all(after > before for before, after in pairwise(times))


def test_a_file_that_loops_continues_one_step_later() -> None:
    timeline = Timeline(follows_wall=False)
    assert placed(timeline, [(0.0, 10.0, False), (0.5, 10.5, False), (0.0, 10.51, True)]) == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize(("fps", "warned"), [(5, True), (16.2, True), (23.976, False), (30, False), (0, False)])
def test_a_rate_too_low_for_micro_expressions_gives_a_warning(fps: float, warned: bool) -> None:
    sentence = slow_rate(fps)
    assert sentence.startswith(f"micro-expressions cannot be seen at {fps:.0f} frames/s:") if warned else not sentence
    assert ("nothing shorter than 3 frames" in sentence) == warned


def test_a_varying_rate_gives_one_warning() -> None:
    note = SlowRate()
    assert note(0) == ""
    assert len({note(fps) for fps in (10, 9.4, 10.8, 0, 11.9)}) == 1
    assert "at 15 frames/s" in note(15)
    assert note(30) == note(0) == ""


@pytest.mark.parametrize("there", [0.0, 40_000.0])
def test_in_a_recording_time_continues_where_stamps_restart(there: float) -> None:
    clock = SourceClock(0.04, recorded=True)
    times = [100.0, 100.04, there, there + 0.04, there + 0.08]
    assert [t for t, _ in stamps(clock, times)] == pytest.approx([100.0, 100.04, 100.08, 100.12, 100.16])
    (restart,) = clock.restarts
    assert (restart.frame, restart.stamp, restart.t) == (2, there, pytest.approx(100.08))
    assert (clock.gaps, clock.covered) == (1, pytest.approx(0.12))


def test_a_gap_in_a_recording_is_kept() -> None:
    clock = SourceClock(0.04, recorded=True)
    assert stamps(clock, [0.0, 0.04, 600.0]) == [(0.0, False), (0.04, False), (600.0, True)]
    assert not clock.restarts


@pytest.mark.parametrize(
    ("times", "missing", "holes"),
    [
        ([n / 30 for n in range(40)], 0, 0),
        ([n / 30 for n in range(40) if n not in (12, 20, 21)], 3, 2),
        ([round(n / 30, 3) for n in range(40) if n != 30], 1, 1),
        ([n / 30 for n in range(40) if n != 3], 0, 0),  # before the rate is known
        ([n / 30 + 0.012 * (n % 2) for n in range(40)], 0, 0),  # a rate that varies
    ],
)
def test_pictures_that_a_steady_rate_lacks_are_counted(times: list[float], missing: int, holes: int) -> None:
    clock = SourceClock(1 / 30)
    for t in times:
        clock.stamp(t, lost=True)
    assert (clock.missing, clock.holes, clock.uneven) == (missing, holes, 0)
    unproven = SourceClock(1 / 30)
    stamps(unproven, times)
    assert (unproven.missing, unproven.holes, unproven.uneven) == (0, 0, missing)
