from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path

import pytest

from engine.errors import SourceError
from stream.recorded.parts.plan import JOIN_S, TAIL_S, WARM_S, WHOLE, plan_parts
from tests.parts import shorten_parts
from tests.videos import stepping, write_video


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_parts(monkeypatch, warm=0.5, around=0.3, tail=0.2, least=1.0)


def video(folder: Path, *, seconds: float = 6.0, times: list[float] | None = None, name: str = "v.mp4", **options: str) -> Path:
    return write_video(folder / name, stepping(64, 48, round(30 * seconds)), times=times, options={"g": "15", **options})


def test_a_long_video_is_cut_into_equal_parts(tmp_path: Path) -> None:
    parts = plan_parts(video(tmp_path), 2.0)
    assert len(parts) == 3
    assert (parts[0].start, parts[-1].end) == (-math.inf, math.inf)
    assert all(before.end == after.start for before, after in pairwise(parts))
    assert [part.end for part in parts[:-1]] == pytest.approx([2.0, 4.0], abs=0.05)


def test_a_part_reaches_beyond_its_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    part = plan_parts(video(tmp_path), 2.0)[1]
    monkeypatch.undo()
    assert part.first == part.start - JOIN_S - WARM_S
    assert part.last == part.end + JOIN_S + TAIL_S


@pytest.mark.parametrize(("part_s", "count"), [(0.0, 1), (0.1, 6), (4.1, 1), (3.9, 2), (100.0, 1)])
def test_parts_are_about_as_long_as_asked_for(tmp_path: Path, part_s: float, count: int) -> None:
    assert len(plan_parts(video(tmp_path), part_s)) == count


def test_a_file_without_its_length_is_cut_by_its_stamps(tmp_path: Path) -> None:
    path = video(tmp_path, name="v.ts")
    assert len(plan_parts(path, 2.0)) == 3


def test_stamps_that_restart_forbid_cuts(tmp_path: Path) -> None:
    one = video(tmp_path, seconds=3, name="one.ts").read_bytes()
    path = tmp_path / "twice.ts"
    path.write_bytes(one + one)
    assert plan_parts(path, 2.0) == (WHOLE,)


def test_a_file_that_cannot_be_entered_is_not_cut(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", stepping(64, 48, 180), options={"bf": "2", "g": "15"})
    assert plan_parts(path, 2.0) == (WHOLE,)


def test_what_can_be_read_once_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert plan_parts(tmp_path / "pipe.mp4", 2.0) == (WHOLE,)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(SourceError, match="cannot be read as a video"):
        plan_parts(tmp_path / "v.mp4", 2.0)


def test_no_part_takes_over_at_a_gap(tmp_path: Path) -> None:
    times = [k / 30 for k in range(60)] + [3.2 + k / 30 for k in range(120)]
    path = write_video(tmp_path / "v.mkv", stepping(64, 48, 180), times=times, options={"g": "15", "bf": "0"})
    parts = plan_parts(path, 2.4)
    assert [round(part.end, 1) for part in parts[:-1]] == [4.8]


def test_no_part_begins_far_behind_a_key_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video(tmp_path, g="1000")
    assert len(plan_parts(path, 2.0)) == 3
    monkeypatch.setattr("stream.recorded.parts.plan.MOST_LEAD_S", 2.0)
    assert len(plan_parts(path, 2.0)) == 2
    monkeypatch.setattr("stream.recorded.parts.plan.MOST_LEAD_S", 0.5)
    assert plan_parts(path, 2.0) == (WHOLE,)
