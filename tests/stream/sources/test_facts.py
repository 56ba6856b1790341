from __future__ import annotations

from dataclasses import fields, replace

import pytest

from stream.sources.facts import ReadCounts
from tests.parts import DECLARED, reading


def test_counts_are_added_and_subtracted_one_by_one() -> None:
    one = ReadCounts(*range(15))
    other = ReadCounts(*range(15, 30))
    assert [getattr(one + other, field.name) for field in fields(one)] == [15 + 2 * k for k in range(15)]
    assert one + other - other == one


def test_a_file_that_ends_early_is_cut_off() -> None:
    whole = reading(ReadCounts(frames=100, covered=9.9), end=9.9)
    assert whole.problem is None
    cut = replace(whole, declared=replace(DECLARED, end=20.0))
    assert (
        cut.problem
        == "v.mp4: the file is cut off: its pictures end at 9.9 s and should at 20.0 s; the rest was read (100 frames)"
    )
    assert replace(cut, finished=False).problem is None


def test_what_was_counted_is_said() -> None:
    counts = ReadCounts(frames=100, corrupt=2, unlit=40, resized=1)
    warnings = reading(counts).facts.warnings
    assert any("2 packets came damaged" in warning for warning in warnings)
    assert any("40 pictures of 100 dark" in warning for warning in warnings)
    assert any("changes 1 time;" in warning for warning in warnings)


@pytest.mark.parametrize(("declared", "expected"), [({"frames": 120}, 120), ({"seconds": 12.0}, 120), ({}, None)])
def test_frames_are_expected_as_declared(declared: dict[str, float], expected: int | None) -> None:
    counted = reading(ReadCounts())
    assert replace(counted, declared=replace(DECLARED, **declared)).expected_frames == expected
