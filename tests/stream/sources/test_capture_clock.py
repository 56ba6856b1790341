from __future__ import annotations

import random

import numpy as np
import pytest

from engine.types import Frame
from stream.sources.capture_clock import WINDOW_S, CaptureClock

PIXELS = np.zeros((1, 1), np.uint8)


def frame(t: float, *, gap: bool = False) -> Frame:
    return Frame(0, t, PIXELS, "grey", gap=gap)


def test_the_jitter_of_arrival_is_left_out() -> None:
    """30 frames a second that arrive 20 ms late at least, 35 ms on average and now and then 200 ms."""
    random.seed(1)
    clock, errors = CaptureClock(), []
    for k in range(3000):
        t, captured = k / 30, 500.0 + k / 30
        late = 0.02 + random.expovariate(1 / 0.015) + (0.2 if random.random() < 0.03 else 0.0)
        clock.note(frame(t), captured + late)
        if k >= 60:
            errors.append(t + clock.offset(t) - captured - 0.02)
    assert min(errors) >= 0 and max(errors) < 0.004


def test_a_clock_that_drifts_is_followed() -> None:
    clock = CaptureClock()
    for drift in (1 - 5e-5, 1 + 5e-5):
        clock = CaptureClock()
        for k in range(30 * 600):
            t = k / 30
            clock.note(frame(t), 100.0 + t * drift)
        assert t + clock.offset(t) == pytest.approx(100.0 + t * drift, abs=6e-5 * WINDOW_S)


def test_each_side_of_a_gap_has_its_own_offset() -> None:
    clock = CaptureClock()
    assert clock.offset(1.0) == 0.0, "before the first frame nothing is known"
    for k in range(90):
        clock.note(frame(k / 30), 10.0 + k / 30)
    for k in range(90):
        clock.note(frame(3.0 + k / 30, gap=k == 0), 17.0 + k / 30)
    assert clock.offset(2.9) == pytest.approx(10.0), "an event that the gap ended is decided by the frame after it"
    assert clock.offset(3.0) == pytest.approx(14.0) == pytest.approx(clock.offset(5.0))


def test_it_remembers_a_bounded_past() -> None:
    clock = CaptureClock()
    for k in range(10_000):
        clock.note(frame(k / 30, gap=k % 100 == 99), 10.0 + k / 30)
    assert len(clock._before) + len(clock._least) < 400
