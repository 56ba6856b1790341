from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from apexstream.clips.follow import follow
from apexstream.clips.render import Scene, render_frames
from apexstream.clips.spec import ClipSpec
from apexstream.clips.write import encode
from engine.errors import InputError
from engine.types import U8

FACE = ClipSpec(size=(320, 240), eye_px=70.0, duration_s=2.0, fps=25.0, n_events=0, blinks_per_minute=0.0)
OTHER = ClipSpec(photo="astronaut", size=(320, 240), eye_px=60.0, duration_s=1.2, fps=25.0, n_events=0)


def test_the_face_is_where_it_was_rendered(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode(path, render_frames(FACE), size=FACE.size, fps=FACE.fps, crf=15)
    counted: list[int] = []
    face = follow(path, progress=lambda done, _: counted.append(done))
    assert face.runs == ((0, 50),)
    assert counted == list(range(1, 51))
    assert (face.size, round(face.fps)) == (FACE.size, 25)
    scene = Scene(FACE)
    for i in (0, 25, 49):
        found = face.portrait(i)
        place = scene.placement(i)
        for name in ("brow_r", "brow_l", "mouth_r", "mouth_l"):
            there = np.linalg.solve(place[:, :2], (scene.face.points[name] - place[:, 2]).mean(axis=0))
            apart = found.points[name].mean(axis=0) - there
            assert abs(apart @ found.down) < 0.08 * FACE.eye_px, name
            assert abs(apart @ found.across) < 0.25 * FACE.eye_px, name  # the mesh's brows reach further out
        assert found.eye_distance == pytest.approx(FACE.eye_px, rel=0.1)
    shorter = follow(path, seconds=1.0)
    assert len(shorter.times) == 25
    assert len(list(shorter.pictures())) == 25


def test_a_cut_and_an_empty_picture_end_a_stretch(tmp_path: Path) -> None:
    def frames() -> Iterator[tuple[float, U8]]:
        scenes = ([p for _, p in render_frames(FACE)], [p for _, p in render_frames(OTHER)])
        grey = [np.full((240, 320, 3), 90, np.uint8)] * 10
        for i, picture in enumerate([*scenes[0], *scenes[1], *grey]):
            yield i / 25, picture

    path = tmp_path / "cut.mp4"
    encode(path, frames(), size=FACE.size, fps=25.0, crf=15)
    face = follow(path)
    assert [first for first, _ in face.runs][:2] == [0, 50]
    assert face.runs[-1][1] <= 81
    assert np.isnan(face.points[85]).all()


def test_a_video_without_a_face_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grey.mp4"
    encode(path, ((i / 25, np.full((240, 320, 3), 90, np.uint8)) for i in range(20)), size=(320, 240), fps=25.0, crf=20)
    with pytest.raises(InputError, match="shows no face"):
        follow(path)
