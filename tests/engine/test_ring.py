from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.ring import Ring

STEPS = st.lists(st.floats(1e-3, 0.7), min_size=1, max_size=60)
"""Frame intervals of a source whose rate varies, seconds."""


def filled(steps: list[float], seconds: float = 2.0, most: int = 4096) -> tuple[Ring[int], list[float]]:
    """A ring fed with the numbers 0, 1, ... at times that rise by the steps, and those times."""
    ring: Ring[int] = Ring(seconds, most)
    times: list[float] = []
    t = 5.0
    for number, step in enumerate(steps):
        t += step
        times.append(t)
        ring.append(t, number)
    return ring, times


@given(STEPS, st.floats(0.05, 3.0))
def test_it_remembers_exactly_the_last_seconds_of_source_time(steps: list[float], seconds: float) -> None:
    ring, times = filled(steps, seconds)
    assert list(ring) == [k for k, t in enumerate(times) if t >= times[-1] - seconds - 1e-9]


@given(STEPS, st.integers(1, 20))
def test_it_never_holds_more_than_its_count(steps: list[float], most: int) -> None:
    ring, times = filled(steps, 1e9, most)
    assert list(ring) == list(range(max(0, len(times) - most), len(times)))
    assert len(list(ring)) <= most


@pytest.mark.parametrize("fps", [20, 30, 120, 1000])
def test_the_length_in_time_is_the_same_at_every_rate(fps: int) -> None:
    ring, _ = filled([1 / fps] * (4 * fps), seconds=1.5)
    assert len(list(ring)) == 1.5 * fps + 1


@given(STEPS, st.floats(0, 40))
def test_nearest_is_the_nearest_of_what_is_remembered(steps: list[float], t: float) -> None:
    ring, times = filled(steps)
    kept = {k: times[k] for k in ring}
    found = ring.nearest(t)
    if t < min(kept.values()) - 1e-6:
        assert found is None
    else:
        assert found is not None
        assert abs(kept[found] - t) <= min(abs(other - t) for other in kept.values()) + 1e-9


@given(STEPS, st.floats(0, 30), st.floats(0, 10))
def test_between_gives_what_lies_there_and_nothing_else(steps: list[float], start: float, length: float) -> None:
    ring, times = filled(steps)
    inside = ring.between(start, start + length)
    assert inside == sorted(inside)
    assert inside == [k for k in ring if start - 1e-9 <= times[k] <= start + length + 1e-9]


@pytest.mark.parametrize("t", [1.0, 0.999, -3.0])
def test_time_that_does_not_go_on_is_refused_and_nothing_is_taken(t: float) -> None:
    ring: Ring[str] = Ring(1.0)
    ring.append(1.0, "a")
    with pytest.raises(InputError, match="time went back"):
        ring.append(t, "b")
    assert list(ring) == ["a"]


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_a_length_or_count_that_is_not_positive_is_refused(seconds: float, most: int) -> None:
    with pytest.raises(InputError, match="needs a positive length"):
        Ring(seconds, most)


def test_after_a_gap_nothing_from_before_it_is_found() -> None:
    ring, times = filled([0.1] * 10)
    ring.clear()
    assert (list(ring), ring.nearest(times[-1]), ring.between(0, 99)) == ([], None, [])
    ring.append(0.5, 7)  # a source that starts again may start anywhere
    assert ring.nearest(0.6) == 7
