from __future__ import annotations

import cv2
import numpy as np

from engine.faces.boxes import face_box
from engine.types import Frame
from tests.faces import MakeLocator, alive, frames_of, grey_picture, photo, side_by_side

FPS = 10.0
"""Frames far apart make these tests short; the locator goes by time, not by count."""
HOPPER = photo("hopper", 0.6)
BLANK = grey_picture(*HOPPER.shape[:2])


def test_a_face_that_changes_costs_the_others_no_refresh(locator: MakeLocator) -> None:
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


def test_a_mouth_that_changes_is_refreshed_half_as_often_as_an_eye(locator: MakeLocator) -> None:
    (face,) = locator().locate(Frame(0, 0.0, HOPPER))
    other = HOPPER.copy()
    hull = cv2.convexHull(face.points[[61, 291, 0, 17, 37, 267, 84, 314], :2].round().astype(np.int32))
    cv2.fillConvexPoly(other, hull, (20, 20, 20))
    one = locator(mesh_hz=5, alert_hz=30, mouth_hz=15)
    seen = [round(one.locate(f)[0].t * 120) for f in frames_of([HOPPER] * 3 + [other] * 12, 120)]
    assert seen == [0] * 8 + [8] * 7


def test_between_two_refreshes_the_faces_say_when_they_were_seen(locator: MakeLocator) -> None:
    one = locator(mesh_hz=30)
    found = [one.locate(frame)[0] for frame in frames_of(alive([HOPPER] * 9), 120)]
    assert [round(face.t * 120) for face in found] == [0, 0, 0, 0, 4, 4, 4, 4, 8]


def test_a_face_that_changes_is_refreshed_at_once(locator: MakeLocator) -> None:
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
    assert seen == [0] * 12 + [12] * 4 + [16] * 4 + [20] * 7, "shut at 15, refreshed four frames after 12; open again at 17"
