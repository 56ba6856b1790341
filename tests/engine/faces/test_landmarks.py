from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.config import LandmarkSettings
from engine.faces.landmarks import FaceLocator, _tiles, _Track, face_box, inside, same_face
from engine.mesh import BLENDSHAPE_NAMES, MESH_POINTS, Region
from engine.types import F32, U8, Face, Frame
from tests.faces import EYES, frames_of, grey_picture, photo, side_by_side

FPS = 10.0
"""Frames far apart make these tests short; the locator goes by time, not by count."""
HOPPER = photo("hopper", 0.6)
BLANK = grey_picture(*HOPPER.shape[:2])

Make = Callable[..., FaceLocator]


@pytest.fixture
def locator() -> Iterator[Make]:
    """Makes locators with settings, and frees them."""
    made: list[FaceLocator] = []

    def make(**settings: object) -> FaceLocator:
        made.append(FaceLocator(LandmarkSettings.model_validate(settings)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def eyes(face: Face) -> F32:
    """[2, 2] centres of the eyes, left and right of the picture."""
    return np.asarray([face.points[[33, 133], :2].mean(axis=0), face.points[[362, 263], :2].mean(axis=0)], np.float32)


def alive(pictures: list[U8]) -> list[U8]:
    """Pictures of which none is a repeat of the one before: every other is a grey level lighter."""
    return [np.asarray(np.minimum(picture, 254) + k % 2, np.uint8) for k, picture in enumerate(pictures)]


def ids(found: list[list[Face]]) -> list[list[int]]:
    return [[face.id for face in faces] for faces in found]


@pytest.mark.parametrize(
    ("name", "scale"), [("hopper", 0.25), ("hopper", 1), ("hopper", 2), ("astronaut", 0.5), ("astronaut", 2)]
)
def test_a_face_is_found_where_it_is_at_every_size(locator: Make, name: str, scale: float) -> None:
    (face,) = locator().locate(Frame(0, 0.0, photo(name, scale)))
    assert face.points.shape == (MESH_POINTS, 3) and face.points.dtype == np.float32
    true = (np.array(EYES[name]) + 0.5) * scale - 0.5
    distance = float(np.hypot(*(true[1] - true[0])))
    assert np.hypot(*(eyes(face) - true).T).max() < 0.06 * distance


def test_a_face_comes_with_its_blendshapes(locator: Make) -> None:
    one = locator()
    found = [one.locate(frame)[0] for frame in frames_of([photo("astronaut")] * 3, 30)]
    assert tuple(found[0].blendshapes) == BLENDSHAPE_NAMES
    assert found[0].blendshapes["mouthSmileLeft"] > 0.5
    assert found[2].t == 0.0 and found[2].blendshapes == found[0].blendshapes, "as the mesh saw them last"


@pytest.mark.parametrize("strided", [lambda p: p[:, ::-1][:, ::-1], lambda p: np.repeat(p, 2, axis=1)[:, ::2]])
def test_pixels_need_not_lie_side_by_side(locator: Make, strided: Callable[[U8], U8]) -> None:
    (plain,), (other,) = (locator().locate(Frame(0, 0.0, one)) for one in (HOPPER, strided(HOPPER)))
    assert np.array_equal(plain.points, other.points)


@pytest.mark.parametrize("width", [26, 40])
def test_a_small_face_in_a_large_picture_is_found(locator: Make, width: int) -> None:
    """In 640 pixels; the detector alone, shown the whole picture, needs 60."""
    picture = np.random.default_rng(0).integers(110, 140, (360, 640, 3)).astype(np.uint8)
    face = photo("astronaut", width / 76)[: round(width * 2.4), : round(width * 5.5)]
    picture[180 : 180 + face.shape[0], 330 : 330 + face.shape[1]] = face
    (found,) = locator(min_face_px=16).locate(Frame(0, 0.0, picture))
    assert np.abs(eyes(found) - (np.array(EYES["astronaut"]) * width / 76 + (330, 180))).max() < 0.1 * width


def test_a_part_of_a_face_is_no_face(locator: Make) -> None:
    """An eye looks like a small face to the detector when a tile shows it large."""
    one = locator()
    found = [one.locate(frame) for frame in frames_of([photo("hopper", 1.6)[100:700, 100:900]] * 12, 1)]
    assert ids(found) == [[0]] * 12


def test_of_a_face_and_a_part_of_it_the_face_stays(locator: Make) -> None:
    """Also where the part was found first; a twin of about the same size goes, whichever is larger."""
    one, frame = locator(), Frame(0, 0.0, HOPPER)
    region = one._models.detect(HOPPER)[0]
    seen = one._models.mesh(frame, region)
    assert seen is not None
    centre = seen.points[:, :2].mean(axis=0)
    for number, scale in enumerate((0.2, 1.0, 1.1)):
        points = seen.points.copy()
        points[:, :2] = centre + (points[:, :2] - centre) * scale
        one._tracks.append(_Track(number, region, face_box(points), 0.0, 0.0, replace(seen, points=points)))
    one._forget(0.0)
    assert [track.id for track in one._tracks] == [1]


@pytest.mark.parametrize(("width", "height"), [(640, 360), (360, 640), (1920, 1080), (3840, 2160), (500, 500), (640, 100)])
def test_every_place_of_a_frame_lies_well_inside_some_tile(width: int, height: int) -> None:
    tiles = _tiles(width, height)
    if min(width, height) < 120:
        assert tiles == []
        return
    for x, y in np.random.default_rng(0).uniform((30, 30), (width - 30, height - 30), (200, 2)):
        assert any(
            left <= x - 30 and x + 30 <= left + side and top <= y - 30 and y + 30 <= top + side for left, top, side in tiles
        )
    assert all(left >= 0 and top >= 0 and left + side <= width and top + side <= height for left, top, side in tiles)
    assert len(tiles) < 60, "each takes a millisecond"


@pytest.mark.parametrize("turn", [False, True])
def test_a_face_at_the_border_and_in_a_portrait_frame(locator: Make, turn: bool) -> None:
    picture = photo("hopper", 0.6)[:, 40:]
    frame = np.full((640, 360, 3), 90, np.uint8) if turn else np.full((360, 640, 3), 90, np.uint8)
    frame[: min(360, picture.shape[0]), : picture.shape[1]] = picture[:360, :360]
    (face,) = locator().locate(Frame(0, 0.0, frame))
    true = (np.array(EYES["hopper"]) + 0.5) * 0.6 - 0.5 - (40, 0)
    assert np.hypot(*(eyes(face) - true).T).max() < 0.06 * np.hypot(*(true[1] - true[0]))


@pytest.mark.parametrize("layout", ["rgb", "grey", "i420"])
def test_mediapipe_itself_follows_faces_too(locator: Make, layout: str) -> None:
    code = {"grey": cv2.COLOR_RGB2GRAY, "i420": cv2.COLOR_RGB2YUV_I420}
    picture = photo("hopper", 2)[:1000, :1000]
    pixels = picture if layout == "rgb" else np.asarray(cv2.cvtColor(picture, code[layout]), np.uint8)
    one = locator(backend="mediapipe")
    assert one.backend == "mediapipe"
    found = [one.locate(Frame(k, k / 4, pixels, layout))[0] for k in range(3)]  # type: ignore[arg-type]
    true = (np.array(EYES["hopper"]) + 0.5) * 2 - 0.5
    for face in found:
        assert np.hypot(*(eyes(face) - true).T).max() < 0.06 * np.hypot(*(true[1] - true[0]))


def test_a_face_that_changes_costs_the_others_no_look(locator: Make) -> None:
    both = side_by_side()
    first = locator().locate(Frame(0, 0.0, both))
    (left,) = [face for face in first if face_box(face.points)[0] < 320]
    shut = both.copy()
    for eye in ((33, 133, 160, 158, 144, 153), (263, 362, 387, 385, 380, 373)):
        hull = cv2.convexHull(left.points[list(eye), :2].round().astype(np.int32))
        cv2.fillConvexPoly(shut, hull, [int(value) for value in both[*left.points[50, 1::-1].round().astype(int)]])
    one = locator(mesh_hz=5, alert_hz=30)
    for frame in frames_of([both] * 3 + [shut] * 3, 60):
        faces = {face.id: round(face.t * 60) for face in one.locate(frame)}
    assert faces == {left.id: 3, 1 - left.id: 0}


def test_a_mouth_that_changes_is_looked_at_half_as_often_as_an_eye(locator: Make) -> None:
    (face,) = locator().locate(Frame(0, 0.0, HOPPER))
    other = HOPPER.copy()
    hull = cv2.convexHull(face.points[[61, 291, 0, 17, 37, 267, 84, 314], :2].round().astype(np.int32))
    cv2.fillConvexPoly(other, hull, (20, 20, 20))
    one = locator(mesh_hz=5, alert_hz=30, mouth_hz=15)
    seen = [round(one.locate(f)[0].t * 120) for f in frames_of([HOPPER] * 3 + [other] * 12, 120)]
    assert seen == [0] * 8 + [8] * 7


@pytest.mark.parametrize("layout", ["grey", "i420"])
def test_colour_is_not_needed(locator: Make, layout: str) -> None:
    picture = HOPPER[:360, :300]
    code = cv2.COLOR_RGB2GRAY if layout == "grey" else cv2.COLOR_RGB2YUV_I420
    frame = Frame(0, 0.0, np.asarray(cv2.cvtColor(picture, code), np.uint8), layout)  # type: ignore[arg-type]
    (face,) = locator().locate(frame)
    true = (np.array(EYES["hopper"]) + 0.5) * 0.6 - 0.5
    assert np.hypot(*(eyes(face) - true).T).max() < 5


def test_where_there_is_no_face_none_is_made_up(locator: Make) -> None:
    rng = np.random.default_rng(4)
    noise = rng.integers(0, 256, (180, 240, 3)).astype(np.uint8)
    cloth = photo("hopper")[430:600, 100:420]  # the uniform, no face
    pictures = [noise, grey_picture(180, 240), grey_picture(180, 240, 0), cloth, noise[::-1]]
    one = locator()
    assert [one.locate(Frame(k, k / 2, picture)) for k, picture in enumerate(pictures)] == [[]] * len(pictures)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (16, 16), (300, 2), (24, 24), (25, 41)])
def test_tiny_pictures_hold_no_face(locator: Make, shape: tuple[int, int]) -> None:
    assert locator().locate(Frame(0, 0.0, grey_picture(*shape))) == []


def test_a_face_is_not_carried_into_a_picture_too_small_for_one(locator: Make) -> None:
    one, tiny = locator(), grey_picture(16, 16)
    found = [one.locate(frame) for frame in frames_of([HOPPER] * 4 + [tiny] * 4, 60)]
    assert ids(found) == [[0]] * 4 + [[]] * 4


def test_faces_smaller_than_asked_for_are_left_out(locator: Make) -> None:
    frame = Frame(0, 0.0, HOPPER)
    (face,) = locator().locate(frame)
    width = face_box(face.points)[2]
    assert locator(min_face_px=1.3 * width).locate(frame) == []


def test_an_id_outlives_a_short_loss_and_no_points_are_invented_in_it(locator: Make) -> None:
    one = locator()
    found = [one.locate(frame) for frame in frames_of([HOPPER] * 4 + [BLANK] * 5 + [HOPPER] * 4, FPS)]
    assert ids(found[:4]) == [[0]] * 4
    assert ids(found[4:9]) == [[]] * 5
    assert ids(found[-2:]) == [[0]] * 2


def test_faces_side_by_side_from_the_start_keep_their_ids_when_they_leave(locator: Make) -> None:
    """Who was never seen alone is not taken for anybody else."""
    one, other = locator(keep_s=0.5), photo("astronaut")[10:260, 120:320]
    pair = side_by_side(shift=60)
    blank = grey_picture(*pair.shape[:2])
    alone = blank.copy()
    alone[25 : 25 + other.shape[0], 200 : 200 + other.shape[1]] = other
    found = [one.locate(frame) for frame in frames_of([pair] * 4 + [blank] * 12 + [alone] * 4, FPS)]
    where = {face.id: face.points[:, 0].mean() for face in found[3]}
    assert sorted(where) == [0, 1]
    right = max(where, key=lambda id_: where[id_])
    assert ids(found[-2:]) == [[right]] * 2


def test_after_a_long_loss_an_id_goes_to_who_looks_like_it(locator: Make) -> None:
    """One face returns and has its id again; another one has a new id, whatever place it takes."""
    one = locator(keep_s=0.8)
    away, other = [BLANK] * 15, photo("astronaut")[10:260, 120:320]
    shown = [HOPPER] * 2 + away + [HOPPER] * 4 + away + [other] * 4 + away + [HOPPER] * 4
    found = [one.locate(frame) for frame in frames_of(shown, FPS)]
    assert [ids(found[n : n + 2]) for n in (0, 19, 38, 57)] == [[[0]] * 2, [[0]] * 2, [[1]] * 2, [[0]] * 2]


def test_two_faces_keep_their_ids_while_they_move(locator: Make) -> None:
    one = locator()
    found = [one.locate(frame) for frame in frames_of([side_by_side(4 * min(k, 16 - k)) for k in range(17)], FPS)]
    assert ids(found) == [[0, 1]] * 17
    left_to_right = [face_box(face.points)[0] for face in found[0]]
    for faces in found:
        assert [face_box(face.points)[0] < 320 for face in faces] == [x < 320 for x in left_to_right]


def test_one_face_lost_does_not_disturb_the_other(locator: Make) -> None:
    one = locator()
    both = side_by_side()
    left_gone = both.copy()
    left_gone[:, :320] = 90
    found = [one.locate(frame) for frame in frames_of([both] * 3 + [left_gone] * 5 + [both] * 4, FPS)]
    (left,) = [face.id for face in found[0] if face_box(face.points)[0] < 320]
    assert ids(found[4:8]) == [[1 - left]] * 4
    assert ids(found[-2:]) == [[0, 1]] * 2
    assert [face.id for face in found[-1] if face_box(face.points)[0] < 320] == [left]


def test_no_more_faces_than_asked_for(locator: Make) -> None:
    one = locator(max_faces=1)
    assert {len(one.locate(frame)) for frame in frames_of([side_by_side()] * 5, FPS)} == {1}


def test_between_two_looks_the_faces_tell_when_they_were_seen(locator: Make) -> None:
    one = locator(mesh_hz=30)
    found = [one.locate(frame)[0] for frame in frames_of(alive([HOPPER] * 9), 120)]
    assert [round(face.t * 120) for face in found] == [0, 0, 0, 0, 4, 4, 4, 4, 8]


def test_a_face_that_changes_is_looked_at_at_once(locator: Make) -> None:
    (face,) = locator().locate(Frame(0, 0.0, HOPPER))
    shut = HOPPER.copy()
    for eye in ((33, 133, 160, 158, 144, 153), (263, 362, 387, 385, 380, 373)):
        hull = cv2.convexHull(face.points[list(eye), :2].round().astype(np.int32))
        cv2.fillConvexPoly(shut, hull, [int(value) for value in HOPPER[*face.points[50, 1::-1].round().astype(int)]])
    pictures = alive([HOPPER] * 15 + [shut] * 2 + [HOPPER] * 10)
    calm = locator(mesh_hz=10, alert_hz=10, mouth_hz=10)
    assert [round(calm.locate(f)[0].t * 120) for f in frames_of(pictures, 120)] == [0] * 12 + [12] * 12 + [24] * 3
    awake = locator(mesh_hz=10, alert_hz=30)
    seen = [round(awake.locate(f)[0].t * 120) for f in frames_of(pictures, 120)]
    assert seen == [0] * 12 + [12] * 4 + [16] * 4 + [20] * 7, "shut at 15, looked at four frames after 12; open again at 17"


def looks_of(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Grows by the time of each frame that the detectors look over."""
    looks: list[float] = []
    detect = FaceLocator._detect

    def noted(self: FaceLocator, frame: Frame) -> list[Region]:
        looks.append(frame.t)
        return detect(self, frame)

    monkeypatch.setattr(FaceLocator, "_detect", noted)
    return looks


def test_the_detectors_look_where_something_changes(locator: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = looks_of(monkeypatch)
    one, both = locator(), side_by_side()
    alone = both.copy()
    alone[:, 320:] = 90
    found = [one.locate(frame) for frame in frames_of([alone] * 28 + [both] * 10 + [alone] * 2, FPS)]
    assert ids(found) == [[0]] * 30 + [[0, 1]] * 8 + [[0]] * 2
    assert [round(t, 1) for t in looks if t < 3.8] == [0.0, 3.0], "once, and when somebody came"


def test_the_detectors_look_again_however_still_it_is(locator: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = looks_of(monkeypatch)
    one = locator()
    for frame in frames_of([HOPPER] * 21, 2):
        one.locate(frame)
    assert looks == [0.0, 5.0, 10.0]


def test_who_has_time_between_frames_spares_locate_the_detectors_look(locator: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = looks_of(monkeypatch)
    one, both = locator(), side_by_side()
    alone = both.copy()
    alone[:, 320:] = 90
    found, in_locate = [], 0
    for frame in frames_of([alone] * 15 + [both] * 20, FPS):
        before = len(looks)
        found.append(one.locate(frame))
        in_locate += len(looks) - before
        one.look_around(frame)
    assert ids(found[-8:]) == [[0, 1]] * 8
    assert in_locate == 1, "the first frame's"
    assert len(looks) >= 2
    for frame in frames_of([alone] * 15 + [both] * 30, FPS, start=35):
        one.locate(frame)
    assert one.locate(Frame(80, 8.0, both)) and len(looks) > 2, "nobody has time any more, and it looks by itself"


def test_a_source_that_starts_again_is_followed_again_and_known_by_its_look(locator: Make) -> None:
    one = locator(mesh_hz=FPS)
    before = [one.locate(frame) for frame in frames_of(alive([HOPPER] * 2), FPS, start=90)]
    after = [one.locate(frame) for frame in frames_of(alive([HOPPER] * 2), FPS)]
    assert ids(before + after) == [[0], [0], [0], [0]]
    assert [faces[0].t for faces in after] == [0.0, 0.1]


@pytest.mark.parametrize(("dx", "width", "same"), [(0, 100, True), (30, 80, True), (60, 100, False), (0, 30, False)])
def test_boxes_near_and_alike_are_one_face(dx: float, width: float, same: bool) -> None:
    a, b = (200.0, 150.0, 100.0), (200.0 + dx, 150.0, width)
    assert same_face(a, b) is same_face(b, a) is same


def test_models_can_be_loaded_before_the_first_frame(locator: Make) -> None:
    prepared, fresh = locator(), locator()
    prepared.prepare()
    (first,), (second,) = (one.locate(Frame(0, 0.0, HOPPER)) for one in (prepared, fresh))
    assert first.id == second.id == 0
    assert np.array_equal(first.points, second.points)


@pytest.mark.parametrize(
    ("dx", "width", "within"),
    [(0, 20, True), (40, 20, True), (75, 20, True), (85, 20, False), (60, 60, False), (60, 300, False)],
)
def test_a_box_is_inside_where_its_centre_is(dx: float, width: float, within: bool) -> None:
    assert inside((200.0 + dx, 150.0, width), (200.0, 150.0, 100.0)) is within


@pytest.mark.data
def test_five_people_in_one_picture_are_five(locator: Make, data_dir: Path) -> None:
    picture = cv2.cvtColor(cv2.imread(str(data_dir / "media" / "multi_face.jpg")), cv2.COLOR_BGR2RGB)
    one = locator()
    found = [one.locate(frame) for frame in frames_of([np.asarray(picture, np.uint8)] * 10, 4)]
    assert ids(found[-4:]) == [[0, 1, 2, 3, 4]] * 4
    assert max(max(seen, default=0) for seen in ids(found)) == 4


@pytest.mark.data
def test_a_real_video_without_a_face_shows_none(locator: Make, data_dir: Path) -> None:
    video = cv2.VideoCapture(str(data_dir / "media" / "no_face.mp4"))
    one, looked = locator(), 0
    for number in range(60):
        ok, picture = video.read()
        if not ok:
            break
        looked += 1
        assert one.locate(Frame(number, number * 0.25, np.asarray(picture[..., ::-1].copy(), np.uint8))) == []
    assert looked > 10
