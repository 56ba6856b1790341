from __future__ import annotations

import pytest

from tests.soak.laps import Lap, figures, run, violations

EVENTS = (("positive", 2.0, 3.0), ("negative", 7.5, 7.8))


def test_two_short_laps_run_through() -> None:
    reported: list[int] = []
    laps = run(8 / 60, lambda number, lap: reported.append(number), lap_s=4.0)
    assert reported == [1, 2]
    assert all(lap.memory_mib > 0 and lap.frames_per_cpu_s > 0 for lap in laps)


def test_laps_that_are_alike_have_no_violations() -> None:
    laps = [Lap(200, 80)] + [Lap(250, 100 + n % 3, EVENTS) for n in range(12)]
    laps[5] = Lap(250, 101, (EVENTS[0], ("negative", 7.6, 8.3)))
    found = figures(laps)
    assert (found["laps"], found["events_a_lap"], found["other_laps"]) == (13, 2, [])
    assert violations(found) == []


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (Lap(290, 100, EVENTS), "memory grew by 16.0%"),
        (Lap(250, 60, EVENTS), "60% of its speed"),
        (Lap(250, 100, EVENTS[:1]), "have other events"),
        (Lap(250, 100, (EVENTS[0], ("negative", 7.9, 8.2))), "have other events"),
        (Lap(250, 100, (EVENTS[0], ("positive", 7.5, 7.8))), "have other events"),
    ],
)
def test_what_grows_slows_down_or_changes_is_reported(late: Lap, expected: str) -> None:
    laps = [Lap(250, 100, EVENTS)] * 9 + [late] * 4
    assert len(violations(figures(laps))) == 1
    assert expected in violations(figures(laps))[0]
