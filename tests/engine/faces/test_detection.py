from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.faces.detection import FaceDetector, tiles
from engine.mesh import Region
from engine.types import Frame
from tests.faces import EYES, MakeLocator, eyes, frames_of, grey_picture, ids, photo, side_by_side

FPS = 10.0
"""Frames far apart make these tests short; the locator goes by time, not by count."""
HOPPER = photo("hopper", 0.6)
BLANK = grey_picture(*HOPPER.shape[:2])


@pytest.mark.parametrize("width", [26, 40])
def test_a_small_face_in_a_large_picture_is_found(locator: MakeLocator, width: int) -> None:
    """In 640 pixels; the detector alone, shown the whole picture, needs 60."""
    picture = np.random.default_rng(0).integers(110, 140, (360, 640, 3)).astype(np.uint8)
    face = photo("astronaut", width / 76)[: round(width * 2.4), : round(width * 5.5)]
    picture[180 : 180 + face.shape[0], 330 : 330 + face.shape[1]] = face
    (found,) = locator(min_face_px=16).locate(Frame(0, 0.0, picture))
    assert np.abs(eyes(found) - (np.array(EYES["astronaut"]) * width / 76 + (330, 180))).max() < 0.1 * width


def test_a_part_of_a_face_is_no_face(locator: MakeLocator) -> None:
    """An eye looks like a small face to the detector when a tile shows it large."""
    one = locator()
    found = [one.locate(frame) for frame in frames_of([photo("hopper", 1.6)[100:700, 100:900]] * 12, 1)]
    assert ids(found) == [[0]] * 12


@pytest.mark.parametrize(("width", "height"), [(640, 360), (360, 640), (1920, 1080), (3840, 2160), (500, 500), (640, 100)])
def test_every_place_of_a_frame_lies_well_inside_some_tile(width: int, height: int) -> None:
    found = tiles(width, height)
    if min(width, height) < 120:
        assert found == []
        return
    for x, y in np.random.default_rng(0).uniform((30, 30), (width - 30, height - 30), (200, 2)):
        assert any(
            left <= x - 30 and x + 30 <= left + side and top <= y - 30 and y + 30 <= top + side for left, top, side in found
        )
    assert all(left >= 0 and top >= 0 and left + side <= width and top + side <= height for left, top, side in found)
    assert len(found) < 60, "each takes a millisecond"


def searches_of(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Grows by the time of each frame that the detectors search."""
    searches: list[float] = []
    detect = FaceDetector.detect

    def noted(self: FaceDetector, frame: Frame) -> list[Region]:
        searches.append(frame.t)
        return detect(self, frame)

    monkeypatch.setattr(FaceDetector, "detect", noted)
    return searches


def test_the_detectors_search_where_something_changes(locator: MakeLocator, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = searches_of(monkeypatch)
    one, both = locator(), side_by_side()
    alone = both.copy()
    alone[:, 320:] = 90
    found = [one.locate(frame) for frame in frames_of([alone] * 28 + [both] * 10 + [alone] * 2, FPS)]
    assert ids(found) == [[0]] * 30 + [[0, 1]] * 8 + [[0]] * 2
    assert [round(t, 1) for t in searches if t < 3.8] == [0.0, 3.0], "once, and when a face came"


def test_the_detectors_search_again_however_still_it_is(locator: MakeLocator, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = searches_of(monkeypatch)
    one = locator()
    for frame in frames_of([HOPPER] * 21, 2):
        one.locate(frame)
    assert searches == [0.0, 5.0, 10.0]


def test_a_driver_that_searches_ahead_spares_locate_the_search(locator: MakeLocator, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = searches_of(monkeypatch)
    one, both = locator(), side_by_side()
    alone = both.copy()
    alone[:, 320:] = 90
    found, in_locate = [], 0
    for frame in frames_of([alone] * 15 + [both] * 20, FPS):
        before = len(searches)
        found.append(one.locate(frame))
        in_locate += len(searches) - before
        one.search_ahead(frame)
    assert ids(found[-8:]) == [[0, 1]] * 8
    assert in_locate == 1, "the first frame's"
    assert len(searches) >= 2
    for frame in frames_of([alone] * 15 + [both] * 30, FPS, start=35):
        one.locate(frame)
    assert one.locate(Frame(80, 8.0, both)) and len(searches) > 2, (
        "no driver searches ahead any more, and it searches by itself"
    )


@pytest.mark.data
def test_five_people_in_one_picture_are_five(locator: MakeLocator, data_dir: Path) -> None:
    picture = cv2.cvtColor(cv2.imread(str(data_dir / "media" / "multi_face.jpg")), cv2.COLOR_BGR2RGB)
    one = locator()
    found = [one.locate(frame) for frame in frames_of([np.asarray(picture, np.uint8)] * 10, 4)]
    assert ids(found[-4:]) == [[0, 1, 2, 3, 4]] * 4
    assert max(max(seen, default=0) for seen in ids(found)) == 4
