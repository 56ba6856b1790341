"""The spotter's memory: it grows, finds by time, and lets go of the old in blocks."""

from __future__ import annotations

import numpy as np

from engine.tape import Tape


def filled(count: int) -> Tape:
    tape = Tape(2)
    for k in range(count):
        tape.append(k, k / 30, np.array([k, -k], float))
    return tape


def test_it_grows_without_losing_a_row() -> None:
    tape = filled(5000)
    assert tape.size == 5000
    assert np.array_equal(tape.row[:5000, 0], np.arange(5000))
    assert np.array_equal(tape.frame[:5000], np.arange(5000))


def test_rows_are_found_by_time() -> None:
    tape = filled(100)
    assert tape.first_at(1.0) == 30
    assert tape.first_at(1.01) == 31
    assert tape.first_at(-1.0) == 0
    assert tape.first_at(99.0) == 100


def test_the_old_goes_in_blocks_and_the_rest_keeps_its_place() -> None:
    tape = filled(2000)
    assert tape.forget_before(10 / 30) == 0  # too few to be worth it
    gone = tape.forget_before(1000 / 30)
    assert gone == 1000
    assert tape.size == 1000
    assert tape.frame[0] == 1000
    assert tape.row[0, 0] == 1000
