from __future__ import annotations

from engine.faces.boxes import face_box
from tests.faces import MakeLocator, alive, frames_of, grey_picture, ids, photo, side_by_side

FPS = 10.0
"""Frames far apart make these tests short; the locator goes by time, not by count."""
HOPPER = photo("hopper", 0.6)
BLANK = grey_picture(*HOPPER.shape[:2])


def test_an_id_outlives_a_short_loss_and_no_points_are_invented_in_it(locator: MakeLocator) -> None:
    one = locator()
    found = [one.locate(frame) for frame in frames_of([HOPPER] * 4 + [BLANK] * 5 + [HOPPER] * 4, FPS)]
    assert ids(found[:4]) == [[0]] * 4
    assert ids(found[4:9]) == [[]] * 5
    assert ids(found[-2:]) == [[0]] * 2


def test_faces_side_by_side_from_the_start_keep_their_ids_when_they_leave(locator: MakeLocator) -> None:
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


def test_after_a_long_loss_an_id_goes_to_the_face_that_looks_like_it(locator: MakeLocator) -> None:
    """One face returns and has its id again; another one has a new id, whatever place it takes."""
    one = locator(keep_s=0.8)
    away, other = [BLANK] * 15, photo("astronaut")[10:260, 120:320]
    shown = [HOPPER] * 2 + away + [HOPPER] * 4 + away + [other] * 4 + away + [HOPPER] * 4
    found = [one.locate(frame) for frame in frames_of(shown, FPS)]
    assert [ids(found[n : n + 2]) for n in (0, 19, 38, 57)] == [[[0]] * 2, [[0]] * 2, [[1]] * 2, [[0]] * 2]


def test_two_faces_keep_their_ids_while_they_move(locator: MakeLocator) -> None:
    one = locator()
    found = [one.locate(frame) for frame in frames_of([side_by_side(4 * min(k, 16 - k)) for k in range(17)], FPS)]
    assert ids(found) == [[0, 1]] * 17
    left_to_right = [face_box(face.points)[0] for face in found[0]]
    for faces in found:
        assert [face_box(face.points)[0] < 320 for face in faces] == [x < 320 for x in left_to_right]


def test_one_face_lost_does_not_disturb_the_other(locator: MakeLocator) -> None:
    one = locator()
    both = side_by_side()
    left_gone = both.copy()
    left_gone[:, :320] = 90
    found = [one.locate(frame) for frame in frames_of([both] * 3 + [left_gone] * 5 + [both] * 4, FPS)]
    (left,) = [face.id for face in found[0] if face_box(face.points)[0] < 320]
    assert ids(found[4:8]) == [[1 - left]] * 4
    assert ids(found[-2:]) == [[0, 1]] * 2
    assert [face.id for face in found[-1] if face_box(face.points)[0] < 320] == [left]


def test_a_source_that_starts_again_is_followed_again_with_the_same_id(locator: MakeLocator) -> None:
    one = locator(mesh_hz=FPS)
    before = [one.locate(frame) for frame in frames_of(alive([HOPPER] * 2), FPS, start=90)]
    after = [one.locate(frame) for frame in frames_of(alive([HOPPER] * 2), FPS)]
    assert ids(before + after) == [[0], [0], [0], [0]]
    assert [faces[0].t for faces in after] == [0.0, 0.1]
