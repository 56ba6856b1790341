from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from apexstream.overview import MAX_LANES, WIDTH, Bar, Lane, bar_of, draw_overview, face_lanes, facts_line, spread
from engine.errors import OutputError
from stream.recorded.colours import colour_of
from tests.stream.recorded.test_files import EVENT
from tests.tools.apexstream.test_pictures import face, trail_of

SUMMARY = {
    "model": "ahmsa-3db@sha256:0123456789abcdef",
    "video": {"duration": 12.34, "fps": 29.97, "measured_fps": 29.9, "start": 0.0, "end": 12.34},
}


def boxes(path: Path, label: str) -> list[tuple[int, int, int, int]]:
    """Left, top, width, height of all large areas in the colour of a class: bars, not letters, lines and the legend."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    colour = [int(colour_of(label)[k : k + 2], 16) for k in (1, 3, 5)]
    same = (np.abs(picture - colour).max(axis=2) < 4).astype(np.uint8)
    closed = cv2.morphologyEx(same, cv2.MORPH_CLOSE, np.ones((1, 7), np.uint8))
    large = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((20, 8), np.uint8))
    stats = cv2.connectedComponentsWithStats(large)[2][1:]
    return [(int(s[0]), int(s[1]), int(s[2]), int(s[3])) for s in stats]


def draw(path: Path, lanes: list[Lane], end: float = 10.0) -> Path:
    draw_overview(path, lanes, title="clip $x_ \x1b[2J\udcff.mp4", facts="10 s", start=0.0, end=end)
    return path


def test_each_lane_shows_its_events_at_their_times(tmp_path: Path) -> None:
    picture = np.full((50, 50, 3), 200, np.uint8)
    lanes = [
        Lane("face 0", (Bar(1, 1.5, 3, "surprise", "surprise 0.92\nmicro", picture),), ((0, 10),)),
        Lane("face 1", (Bar(5, 6, 7, "positive", "positive 0.80\nmacro", picture),), ((2, 8),)),
    ]
    path = draw(tmp_path / "o.png", lanes)
    assert Image.open(path).size[0] == WIDTH
    (first,), (second,) = boxes(path, "surprise"), boxes(path, "positive")
    per_second = (second[0] - first[0]) / 4
    assert first[2] == pytest.approx(2 * per_second, abs=4)
    assert second[2] == pytest.approx(2 * per_second, abs=4)
    assert 9 * per_second < WIDTH < 12 * per_second
    assert second[1] > first[1] + 100, "the second lane lies below the first and has room for its faces"


def test_truth_and_what_was_found_lie_one_above_the_other(tmp_path: Path) -> None:
    bar = Bar(4, 5, 6, "negative", "negative\nmicro")
    path = draw(tmp_path / "o.png", [Lane("truth", (bar,)), Lane("recognized", (bar,), below=True)])
    upper, lower = sorted(boxes(path, "negative"), key=lambda box: box[1])
    assert (upper[0], upper[2]) == (lower[0], lower[2])
    assert 0 < lower[1] - upper[1] < 100


def test_an_event_too_short_for_its_scale_is_still_seen(tmp_path: Path) -> None:
    bars = tuple(Bar(t, t + 0.1, t + 0.2, "positive", f"positive {t}\nmicro") for t in range(0, 3600, 60))
    path = draw(tmp_path / "o.png", [Lane("face 0", bars)], end=3600)
    columns = (np.asarray(Image.open(path).convert("RGB")).astype(int)[..., :] - [0, 0x9E, 0x73]).any(axis=2)
    assert (~columns).sum() > 60 * 20, "sixty bars of some pixels each"


@pytest.mark.parametrize("lanes", [[Lane("no face", ())], [Lane("face 0", (), ((0.0, 0.0),))]])
def test_a_video_without_events_has_a_picture_too(lanes: list[Lane], tmp_path: Path) -> None:
    path = draw(tmp_path / "o.png", lanes, end=0.0)
    assert Image.open(path).size[0] == WIDTH
    assert boxes(path, "surprise") == []


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        draw(tmp_path / "none" / "o.png", [Lane("no face", ())])


def test_things_are_spread_as_little_as_can_be() -> None:
    assert spread([10, 50, 90], 20, 0, 100) == [10, 50, 90]
    assert spread([50, 50], 20, 0, 100) == [40, 60]
    assert spread([2, 5, 95], 20, 0, 100) == [10, 30, 90]
    assert spread([98, 99, 100], 20, 0, 100) == [50, 70, 90]
    assert spread([], 20, 0, 100) == []


def test_the_lanes_with_most_events_are_kept() -> None:
    trail = trail_of((0, 0.0, [face(k, 50, 50, 20, 0.0) for k in range(MAX_LANES + 3)]))
    bar = bar_of(EVENT)
    lanes = face_lanes([(MAX_LANES + 1, bar), (MAX_LANES + 2, bar)], trail)
    assert len(lanes) == MAX_LANES
    assert [lane.name for lane in lanes if lane.bars] == [f"face {MAX_LANES + 1}", f"face {MAX_LANES + 2}"]


def test_a_bar_shows_class_confidence_and_kind() -> None:
    bar = bar_of(EVENT, mark=" ✓")
    assert (bar.onset, bar.apex, bar.offset) == (EVENT.onset.t, EVENT.apex.t, 4.438)
    assert bar.text == "surprise 0.92\nmicro ✓"
    assert bar_of(replace(EVENT, offset=None)).offset == EVENT.apex.t
    assert bar_of(replace(EVENT, label="uncertain", why="turned away")).text == "uncertain\nturned away"
    long = bar_of(replace(EVENT, label="uncertain", why="unlike known expressions"))
    assert long.text == "uncertain\nunlike known\nexpressions"
    assert Lane("face 0", (long,)).height > Lane("face 0", (bar,)).height


def test_the_facts_in_a_line() -> None:
    assert facts_line(SUMMARY, ["2 events"]) == "12.3 s  ·  29.97 frames/s  ·  2 events  ·  model ahmsa-3db@01234567"
