from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.types import Evidence
from stream.recorded.parts.trace import TOGETHER, read_trace, write_trace
from stream.recorded.passage import Ending, Found, Seen, Step, lightened
from tests.parts import MadePart


def made() -> list[Step]:
    part = MadePart(0, 2 * TOGETHER)
    part.event(1, 2, known=3)
    return [lightened(step, faces=True) for step in part]


def test_steps_come_back_as_they_were(tmp_path: Path) -> None:
    steps = made()
    write_trace(tmp_path / "t", steps)
    back = list(read_trace(tmp_path / "t"))
    assert len(back) == len(steps)
    for one, other in zip(steps, back, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Seen) and isinstance(other, Seen):
            assert (one.frame.index, one.frame.t, one.reading) == (other.frame.index, other.frame.t, other.reading)
            assert (other.frame.width, other.frame.height) == (64, 48)
            assert np.array_equal(one.faces[0].points, other.faces[0].points)
        elif isinstance(one, Found) and isinstance(other, Found):
            assert (one.events, one.activities) == (other.events, other.activities)
        else:
            assert one.__dict__ == other.__dict__


def test_blank_pixels_take_no_room(tmp_path: Path) -> None:
    write_trace(tmp_path / "light", made())
    assert (tmp_path / "light").stat().st_size < 200 * 2 * TOGETHER


def test_evidence_is_kept_where_it_is_wanted(tmp_path: Path) -> None:
    evidence = Evidence(np.ones((8, 8), np.uint8), np.ones((8, 8), np.uint8), np.ones((2, 8, 8), np.float32))
    found = next(step for step in made() if isinstance(step, Found))
    object.__setattr__(found.events[0], "evidence", evidence)
    write_trace(tmp_path / "t", [lightened(found, faces=True), lightened(found, faces=False)])
    kept, dropped = read_trace(tmp_path / "t")
    assert isinstance(kept, Found)
    assert isinstance(dropped, Found)
    assert kept.events[0].evidence is not None
    assert np.array_equal(kept.events[0].evidence.flow, evidence.flow)
    assert dropped.events[0].evidence is None


def test_a_trace_that_is_not_complete_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Step]:
        yield from made()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        write_trace(tmp_path / "t", broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [4, 100, -10])
def test_a_damaged_trace_is_said(tmp_path: Path, left: int) -> None:
    path = tmp_path / "t"
    write_trace(path, made())
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InputError, match="what was found in a part of the video, cannot be read"):
        list(read_trace(path))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_trace(tmp_path / "none"))


def test_the_last_step_is_the_ending(tmp_path: Path) -> None:
    write_trace(tmp_path / "t", made())
    assert isinstance(list(read_trace(tmp_path / "t"))[-1], Ending)
