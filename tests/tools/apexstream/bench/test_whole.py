from __future__ import annotations

import sys
from pathlib import Path

import pytest

from apexstream.bench.baseline import FoundEvent
from apexstream.bench.whole import MeasurementError, ours, run, same

WORK = "sum(k * k for k in range(3_000_000)); held = bytearray(80_000_000); print('done')"


def named(onset: float, offset: float, label: str = "surprise") -> FoundEvent:
    return FoundEvent(onset, (onset + offset) / 2, offset, label)


def test_a_program_is_measured() -> None:
    ended = run([sys.executable, "-c", WORK + "\nimport time; time.sleep(0.3)"])
    assert ended.printed.strip() == "done"
    assert ended.wall_s >= 0.3 and ended.peak_mib > 75 and 0 < ended.cpu_s < ended.wall_s


def test_a_program_that_fails_is_no_measurement() -> None:
    with pytest.raises(MeasurementError, match=r"failed: ValueError: what went wrong$"):
        run([sys.executable, "-c", "raise ValueError('what went wrong')"])


def test_an_analysis_is_measured(rendered_clip: Path) -> None:
    found = ours(rendered_clip)
    assert found.frames > 0 and found.events
    assert found.frames_per_s > 0 and found.cpu_ms > 0 and found.peak_mib > 50
    assert found.total_s > found.wall_s and found.frames_per_s < found.own_frames_per_s


@pytest.mark.parametrize(
    ("theirs", "count"),
    [
        ([named(1.0, 2.0), named(5.0, 6.0)], 2),
        ([named(1.1, 2.1), named(5.0, 6.0, "negative")], 1),
        ([named(1.6, 2.6)], 0),
        ([named(1.0, 2.0), named(1.0, 2.0)], 1),
        ([], 0),
    ],
)
def test_events_are_the_same_where_they_overlap_and_have_one_class(theirs: list[FoundEvent], count: int) -> None:
    assert same([named(1.0, 2.0), named(5.0, 6.0)], theirs) == count
