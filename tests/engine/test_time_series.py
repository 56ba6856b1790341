from __future__ import annotations

import numpy as np

from engine.time_series import TimeSeries


def filled(count: int) -> TimeSeries:
    series = TimeSeries(2)
    for k in range(count):
        series.append(k, k / 30, np.array([k, -k], float))
    return series


def test_growing_keeps_every_row() -> None:
    series = filled(5000)
    assert series.size == 5000
    assert np.array_equal(series.row[:5000, 0], np.arange(5000))
    assert np.array_equal(series.frame[:5000], np.arange(5000))


def test_rows_are_found_by_time() -> None:
    series = filled(100)
    assert series.first_at(1.0) == 30
    assert series.first_at(1.01) == 31
    assert series.first_at(-1.0) == 0
    assert series.first_at(99.0) == 100


def test_old_rows_are_dropped_in_blocks_and_the_rest_keeps_its_order() -> None:
    series = filled(2000)
    assert series.drop_before(10 / 30) == 0  # too few to be worth it
    assert series.drop_before(1000 / 30) == 1000
    assert series.size == 1000
    assert series.frame[0] == 1000
    assert series.row[0, 0] == 1000
