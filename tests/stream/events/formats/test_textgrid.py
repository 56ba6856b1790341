from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import parselmouth
import pytest
from parselmouth.praat import call

from tests.exports import EVENTS, HOSTILE, RECORDING, exported, reviewed


def read(content: bytes, tmp_path: Path) -> parselmouth.TextGrid:
    """The file as Praat reads it."""
    path = tmp_path / "events.TextGrid"
    path.write_bytes(content)
    return parselmouth.read(str(path))


def tiers(grid: parselmouth.TextGrid) -> dict[str, int]:
    return {call(grid, "Get tier name", number): number for number in range(1, call(grid, "Get number of tiers") + 1)}


def spans(grid: parselmouth.TextGrid, name: str) -> list[tuple[float, float, str]]:
    """The intervals of a tier that have a text."""
    tier = tiers(grid)[name]
    found = []
    for number in range(1, call(grid, "Get number of intervals", tier) + 1):
        text = call(grid, "Get label of interval", tier, number)
        if text:
            start, end = (call(grid, f"Get {which} time of interval", tier, number) for which in ("start", "end"))
            found.append((start, end, text))
    return found


def test_praat_reads_the_tiers_of_each_face(tmp_path: Path) -> None:
    grid = read(exported("textgrid"), tmp_path)
    assert (call(grid, "Get start time"), call(grid, "Get end time")) == (0, 20)
    assert spans(grid, "face 0 label") == [
        (1.0, pytest.approx(1.4), "surprise"),
        (pytest.approx(6.833333), pytest.approx(7.333333), "positive"),
    ]
    assert spans(grid, "face 0 label 2") == [(7.0, 8.0, "negative")], "no tier of Praat holds intervals that overlap"
    assert [text for _, _, text in spans(grid, "face 0 speaking")] == ["no", "yes"]
    assert [text for _, _, text in spans(grid, "face 1 confidence")] == ["0.41"]
    assert spans(grid, "face 0 speech") == [(5.0, 10.0, "speech")]


def test_apexes_are_points(tmp_path: Path) -> None:
    grid = read(exported("textgrid"), tmp_path)
    tier = tiers(grid)["face 0 apex"]
    assert call(grid, "Get number of points", tier) == 2
    assert call(grid, "Get time of point", tier, 1) == pytest.approx(1.2)
    assert call(grid, "Get label of point", tier, 2) == "apex"


def test_no_event_gives_a_grid_as_long_as_the_video(tmp_path: Path) -> None:
    grid = read(exported("textgrid", [], replace(RECORDING, activities=())), tmp_path)
    assert call(grid, "Get end time") == 20 and spans(grid, "face 0 label") == []


def test_stored_events_start_at_zero(tmp_path: Path) -> None:
    grid = read(exported("textgrid", recording=None), tmp_path)
    assert spans(grid, "interview face 0 label")[0] == (0.0, pytest.approx(0.4), "surprise")


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    ((_, _, note),) = spans(read(reviewed("textgrid"), tmp_path), "face 0 note")
    assert note.startswith('<b>&"quoted"</b>\\n]]>\\x1b[2J\\ud800')
    odd = replace(EVENTS[0], label=HOSTILE)
    ((_, _, label),) = spans(read(exported("textgrid", [odd]), tmp_path), "face 0 label")
    assert label == note
