from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from apexstream import pictures
from apexstream.pictures import (
    CHANGE_GAIN,
    PANEL_PX,
    FaceTrail,
    Strip,
    change_between,
    check_drawing,
    draw_strip,
    write_strips,
)
from engine.errors import InputError, OutputError, SourceError
from engine.types import U8, Face, Frame, Mark
from tests.stream.recorded.test_files import EVENT
from tests.videos import stepping, write_video

BLANK = np.zeros((240, 320, 3), np.uint8)
STRIP = Strip("a title", "surprise", None, Mark(2, 0.067), Mark(5, 0.167), Mark(9, 0.3))


def face(id_: int, x: float, y: float, width: float, t: float) -> Face:
    points = np.zeros((478, 3), np.float32)
    points[:, :2] = x, y
    points[0, :2], points[1, :2] = (x - width / 2, y - width / 2), (x + width / 2, y + width / 2)
    return Face(id_, points, t)


def trail_of(*places: tuple[int, float, list[Face]]) -> FaceTrail:
    trail = FaceTrail()
    for index, t, faces in places:
        trail.note(Frame(index, t, BLANK), faces)
    return trail


def noise(seed: int = 0) -> U8:
    picture = np.random.default_rng(seed).normal(size=(PANEL_PX, PANEL_PX, 3))
    smooth = cv2.GaussianBlur(picture, (0, 0), 4)
    return np.clip(120 + 30 * smooth / smooth.std(), 10, 240).astype(np.uint8)


def test_the_trail_knows_where_a_face_was_in_a_frame() -> None:
    trail = trail_of((3, 0.1, [face(0, 50, 60, 20, 0.1)]), (4, 0.2, [face(0, 70, 60, 20, 0.2), face(7, 200, 90, 40, 0.2)]))
    assert trail.faces == [0, 7]
    assert trail.box(0, 3) == pytest.approx((50, 60, 20))
    assert trail.box(0, 4) == pytest.approx((70, 60, 20))
    assert trail.box(0, 99) == pytest.approx((70, 60, 20)), "the nearest frame where it was seen"
    assert trail.box(7, 0) == pytest.approx((200, 90, 40))
    assert (trail.box(1, 3), trail.box(None, 3)) == (None, None)
    assert trail.faces == [0, 7], "asking makes no face"


def test_the_trail_knows_when_a_face_was_there() -> None:
    times = [0.0, 0.1, 0.2, 2.0, 2.3]
    trail = trail_of(*((k, t, [face(0, 50, 50, 20, t)]) for k, t in enumerate(times)))
    assert trail.spells(0) == [(0.0, 0.2), (2.0, 2.3)]


def test_each_strip_becomes_a_picture_of_its_own_frames(tmp_path: Path) -> None:
    """The grey bar at the top of each frame tells the frame's number, so a panel shows which frame it was cut from."""
    video = write_video(tmp_path / "clip.mp4", stepping(320, 240, 12))
    later = replace(STRIP, onset=Mark(6, 0.2), apex=Mark(8, 0.267), offset=Mark(9, 0.3))
    apexes = write_strips(video, tmp_path, [STRIP, later], FaceTrail())
    assert [int(np.median(apex[:40])) for apex in apexes] == pytest.approx([40 + 4 * 5, 40 + 4 * 8], abs=2)
    files = sorted(tmp_path.glob("event-*.jpg"))
    assert [path.name for path in files] == ["event-01.jpg", "event-02.jpg"]
    for path in files:
        assert Image.open(path).size == (3 * PANEL_PX + 8, 300)
    row = np.asarray(Image.open(files[1]).convert("L"))[34 + 20, 120 :: PANEL_PX + 4]
    assert row.tolist() == pytest.approx([40 + 4 * 6, 40 + 4 * 8, 40 + 4 * 9], abs=5)


def test_the_face_is_in_the_middle_and_nothing_is_made_up_at_the_border(tmp_path: Path) -> None:
    picture = np.full((240, 320, 3), 40, np.uint8)
    picture[100:140, 220:260] = 220
    video = write_video(tmp_path / "clip.mp4", [picture] * 10)
    found = write_strips(video, tmp_path, [replace(STRIP, face=0)], trail_of((5, 0.2, [face(0, 240, 120, 60, 0.2)])))[0]
    bright = np.argwhere(found[:, :, 0] > 130)
    assert bright.mean(axis=0) == pytest.approx([PANEL_PX / 2, PANEL_PX / 2], abs=4)
    corner = write_strips(video, tmp_path, [replace(STRIP, face=0)], trail_of((5, 0.2, [face(0, 320, 0, 120, 0.2)])))[0]
    bright = np.argwhere(corner[:, :, 0] > 130)
    assert bright.mean(axis=0) == pytest.approx([120 / 174 * PANEL_PX, (240 - 146) / 174 * PANEL_PX], abs=4)


def test_pictures_of_an_earlier_run_go(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", stepping(64, 48, 10))
    for name in ("event-01.jpg", "event-17.jpg", "event-mine.jpg"):
        (tmp_path / name).touch()
    write_strips(video, tmp_path, [STRIP], FaceTrail())
    assert sorted(path.name for path in tmp_path.glob("event-*")) == ["event-01.jpg", "event-mine.jpg"]


def test_frames_that_are_gone_are_an_error(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", stepping(64, 48, 7))
    with pytest.raises(SourceError, match="1 pictures are missing"):
        write_strips(video, tmp_path, [STRIP], FaceTrail())


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", stepping(64, 48, 10))
    with pytest.raises(OutputError, match=r"event-01\.jpg cannot be written"):
        write_strips(video, tmp_path / "none", [STRIP], FaceTrail())


def test_a_title_too_long_is_cut_and_does_not_touch_the_pictures() -> None:
    panels = [noise()] * 3
    long, short = (np.asarray(draw_strip(replace(STRIP, title=text), panels)) for text in ("W" * 300, "W"))
    assert np.array_equal(long[34:], short[34:])
    assert (long[:34, -2:] == 255).all()


def test_the_change_is_enlarged_and_free_of_the_heads_motion() -> None:
    onset = noise()
    moved = np.asarray(np.roll(onset, (2, 3), axis=(0, 1)), np.uint8)
    inner = np.s_[40:-40, 40:-40]
    assert np.abs(change_between(onset, moved)[inner].astype(int) - 128).mean() < 6
    assert np.abs(CHANGE_GAIN * (moved.astype(float) - onset)[inner]).mean() > 20, "not so without"
    brighter = onset.copy()
    brighter[100:140, 100:140] += 10
    assert change_between(onset, brighter)[110:130, 110:130].mean() == pytest.approx(128 + CHANGE_GAIN * 10, abs=6)


def test_what_cannot_be_aligned_is_compared_as_it_is() -> None:
    flat = np.full((PANEL_PX, PANEL_PX, 3), 100, np.uint8)
    assert (change_between(flat, flat + np.uint8(5)) == 128 + CHANGE_GAIN * 5).all()


def test_an_events_caption_holds_what_is_known() -> None:
    strip = Strip.of(EVENT, 3)
    assert strip.title == "3 · surprise 0.92 · micro · face 0 · 0.43 s long"
    assert [mark.frame for _, mark in strip.moments] == [120, 126, 133]
    unsure = replace(EVENT, label="uncertain", why="turned away")
    assert Strip.of(unsure, 3).title == "3 · uncertain (turned away) · micro · face 0 · 0.43 s long"
    assert Strip.of(replace(EVENT, truncated=True), 3).title.endswith("cut short")


def test_what_can_be_read_only_once_is_refused_first(tmp_path: Path) -> None:
    check_drawing(tmp_path / "none.mp4")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="can be read only once"):
        check_drawing(tmp_path / "pipe")


def test_matplotlib_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(pictures, "import_module", missing)
    with pytest.raises(OutputError, match=r"pictures need matplotlib .* install apexstream again"):
        check_drawing()
