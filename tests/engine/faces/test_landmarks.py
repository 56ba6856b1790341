from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.faces.boxes import face_box
from engine.faces.tracking import Track
from engine.mesh import BLENDSHAPE_NAMES, MESH_POINTS
from engine.types import U8, Frame
from tests.faces import EYES, MakeLocator, eyes, frames_of, grey_picture, ids, photo, side_by_side

FPS = 10.0
"""Frames far apart make these tests short; the locator goes by time, not by count."""
HOPPER = photo("hopper", 0.6)
BLANK = grey_picture(*HOPPER.shape[:2])


@pytest.mark.parametrize(
    ("name", "scale"), [("hopper", 0.25), ("hopper", 1), ("hopper", 2), ("astronaut", 0.5), ("astronaut", 2)]
)
def test_a_face_is_found_where_it_is_at_every_size(locator: MakeLocator, name: str, scale: float) -> None:
    (face,) = locator().locate(Frame(0, 0.0, photo(name, scale)))
    assert face.points.shape == (MESH_POINTS, 3) and face.points.dtype == np.float32
    true = (np.array(EYES[name]) + 0.5) * scale - 0.5
    distance = float(np.hypot(*(true[1] - true[0])))
    assert np.hypot(*(eyes(face) - true).T).max() < 0.06 * distance


def test_a_face_comes_with_its_blendshapes(locator: MakeLocator) -> None:
    one = locator()
    found = [one.locate(frame)[0] for frame in frames_of([photo("astronaut")] * 3, 30)]
    assert tuple(found[0].blendshapes) == BLENDSHAPE_NAMES
    assert found[0].blendshapes["mouthSmileLeft"] > 0.5
    assert found[2].t == 0.0 and found[2].blendshapes == found[0].blendshapes, "as the mesh saw them last"


@pytest.mark.parametrize("strided", [lambda p: p[:, ::-1][:, ::-1], lambda p: np.repeat(p, 2, axis=1)[:, ::2]])
def test_pixels_need_not_lie_side_by_side(locator: MakeLocator, strided: Callable[[U8], U8]) -> None:
    (plain,), (other,) = (locator().locate(Frame(0, 0.0, one)) for one in (HOPPER, strided(HOPPER)))
    assert np.array_equal(plain.points, other.points)


def test_of_a_face_and_a_part_of_it_the_face_stays(locator: MakeLocator) -> None:
    """Also where the part was found first; a twin of about the same size goes, whichever is larger."""
    one, frame = locator(), Frame(0, 0.0, HOPPER)
    region = one._models.detect(HOPPER)[0]
    seen = one._models.mesh(frame, region)
    assert seen is not None
    centre = seen.points[:, :2].mean(axis=0)
    for number, scale in enumerate((0.2, 1.0, 1.1)):
        points = seen.points.copy()
        points[:, :2] = centre + (points[:, :2] - centre) * scale
        one._tracks.append(Track(number, region, face_box(points), 0.0, 0.0, replace(seen, points=points)))
    one._forget(0.0)
    assert [track.id for track in one._tracks] == [1]


@pytest.mark.parametrize("turn", [False, True])
def test_a_face_at_the_border_and_in_a_portrait_frame(locator: MakeLocator, turn: bool) -> None:
    picture = photo("hopper", 0.6)[:, 40:]
    frame = np.full((640, 360, 3), 90, np.uint8) if turn else np.full((360, 640, 3), 90, np.uint8)
    frame[: min(360, picture.shape[0]), : picture.shape[1]] = picture[:360, :360]
    (face,) = locator().locate(Frame(0, 0.0, frame))
    true = (np.array(EYES["hopper"]) + 0.5) * 0.6 - 0.5 - (40, 0)
    assert np.hypot(*(eyes(face) - true).T).max() < 0.06 * np.hypot(*(true[1] - true[0]))


@pytest.mark.parametrize("layout", ["rgb", "grey", "i420"])
def test_mediapipe_itself_follows_faces_too(locator: MakeLocator, layout: str) -> None:
    code = {"grey": cv2.COLOR_RGB2GRAY, "i420": cv2.COLOR_RGB2YUV_I420}
    picture = photo("hopper", 2)[:1000, :1000]
    pixels = picture if layout == "rgb" else np.asarray(cv2.cvtColor(picture, code[layout]), np.uint8)
    one = locator(backend="mediapipe")
    assert one.backend == "mediapipe"
    found = [one.locate(Frame(k, k / 4, pixels, layout))[0] for k in range(3)]  # type: ignore[arg-type]
    true = (np.array(EYES["hopper"]) + 0.5) * 2 - 0.5
    for face in found:
        assert np.hypot(*(eyes(face) - true).T).max() < 0.06 * np.hypot(*(true[1] - true[0]))


@pytest.mark.parametrize("layout", ["grey", "i420"])
def test_colour_is_not_needed(locator: MakeLocator, layout: str) -> None:
    picture = HOPPER[:360, :300]
    code = cv2.COLOR_RGB2GRAY if layout == "grey" else cv2.COLOR_RGB2YUV_I420
    frame = Frame(0, 0.0, np.asarray(cv2.cvtColor(picture, code), np.uint8), layout)  # type: ignore[arg-type]
    (face,) = locator().locate(frame)
    true = (np.array(EYES["hopper"]) + 0.5) * 0.6 - 0.5
    assert np.hypot(*(eyes(face) - true).T).max() < 5


def test_where_there_is_no_face_none_is_made_up(locator: MakeLocator) -> None:
    rng = np.random.default_rng(4)
    noise = rng.integers(0, 256, (180, 240, 3)).astype(np.uint8)
    cloth = photo("hopper")[430:600, 100:420]  # the uniform, no face
    pictures = [noise, grey_picture(180, 240), grey_picture(180, 240, 0), cloth, noise[::-1]]
    one = locator()
    assert [one.locate(Frame(k, k / 2, picture)) for k, picture in enumerate(pictures)] == [[]] * len(pictures)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (16, 16), (300, 2), (24, 24), (25, 41)])
def test_tiny_pictures_hold_no_face(locator: MakeLocator, shape: tuple[int, int]) -> None:
    assert locator().locate(Frame(0, 0.0, grey_picture(*shape))) == []


def test_a_face_is_not_carried_into_a_picture_too_small_for_one(locator: MakeLocator) -> None:
    one, tiny = locator(), grey_picture(16, 16)
    found = [one.locate(frame) for frame in frames_of([HOPPER] * 4 + [tiny] * 4, 60)]
    assert ids(found) == [[0]] * 4 + [[]] * 4


def test_faces_smaller_than_asked_for_are_left_out(locator: MakeLocator) -> None:
    frame = Frame(0, 0.0, HOPPER)
    (face,) = locator().locate(frame)
    width = face_box(face.points)[2]
    assert locator(min_face_px=1.3 * width).locate(frame) == []


def test_no_more_faces_than_asked_for(locator: MakeLocator) -> None:
    one = locator(max_faces=1)
    assert {len(one.locate(frame)) for frame in frames_of([side_by_side()] * 5, FPS)} == {1}


def test_models_can_be_loaded_before_the_first_frame(locator: MakeLocator) -> None:
    prepared, fresh = locator(), locator()
    prepared.prepare()
    (first,), (second,) = (one.locate(Frame(0, 0.0, HOPPER)) for one in (prepared, fresh))
    assert first.id == second.id == 0
    assert np.array_equal(first.points, second.points)


@pytest.mark.data
def test_a_real_video_without_a_face_shows_none(locator: MakeLocator, data_dir: Path) -> None:
    video = cv2.VideoCapture(str(data_dir / "media" / "no_face.mp4"))
    one, frames = locator(), 0
    for number in range(60):
        ok, picture = video.read()
        if not ok:
            break
        frames += 1
        assert one.locate(Frame(number, number * 0.25, np.asarray(picture[..., ::-1].copy(), np.uint8))) == []
    assert frames > 10
