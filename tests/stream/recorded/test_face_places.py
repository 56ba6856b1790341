from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.types import Face, Frame
from stream.recorded.face_places import FILE, FacePlaces, read_face_places


def face(number: int, x: float) -> Face:
    points = np.zeros((478, 3), np.float32)
    points[1] = 40, 50, 9
    points[:, 0] += x
    return Face(number, points, 0.0)


def test_places_are_written_twice_a_second(tmp_path: Path) -> None:
    places = FacePlaces(tmp_path)
    for number in range(30):
        frame = Frame(number, number / 10, np.zeros((8, 8), np.uint8), "grey")
        faces = [face(0, number)] + [face(3, 100)] * (number == 7)
        places.frame(frame, faces, (), 0.0)
    places.close()
    read = list(read_face_places(tmp_path))
    assert [frame for number, frame, *_ in read if number == 0] == [0, 5, 10, 15, 20, 25]
    assert read[1] == (0, 5, 5.0, 0.0, 40.0, 50.0)
    assert (3, 7, 100.0, 0.0, 40.0, 50.0) in read


def test_what_is_damaged_or_missing_is_left_out(tmp_path: Path) -> None:
    assert list(read_face_places(tmp_path)) == []
    (tmp_path / FILE).write_text("face,frame\n0,1,0.1,1,2,3,4\n0,1\nx,1,0.1,1,2,3,4\n0,1,0.1,nan,2,3,4\n")
    assert list(read_face_places(tmp_path)) == [(0, 1, 1.0, 2.0, 3.0, 4.0)]
