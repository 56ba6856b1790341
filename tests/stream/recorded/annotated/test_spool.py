from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import OutputError
from engine.types import Face, Mark, Observation
from stream.analysis.preview import CONTOURS, region_boxes
from stream.recorded.annotated.spool import Spool
from tests.stream.recorded.annotated.test_findings import seen


def a_face(id_: int, shift: float = 0.0) -> Face:
    points = np.random.default_rng(3).uniform(100, 200, (478, 3)).astype(np.float32)
    points[:, 0] += shift
    return Face(id_, points, 0.0)


def unregistered(face: Face) -> Observation:
    low, high = face.points[:, :2].min(axis=0), face.points[:, :2].max(axis=0)
    x, y, width, height = (*low.tolist(), *(high - low).tolist())
    return Observation(face.id, Mark(0, 0.0), (x, y, width, height), None, 0.0, 0.0, {})


def test_places_come_back_frame_by_frame(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    frames = [[a_face(0)], [], [a_face(0, 3000.0), a_face(5)]]
    for faces in frames:
        spool.append(faces, [unregistered(face) for face in faces])
    for _ in range(2):
        found = list(spool)
        assert [[place.face for place in places] for places in found] == [[0], [], [0, 5]]
        for face, place in zip(frames[2], found[2], strict=True):
            assert place.box == pytest.approx(unregistered(face).box)
            for line, indices in zip(place.contours, CONTOURS, strict=True):
                assert np.abs(line - face.points[list(indices), :2]).max() < 0.1
            assert np.abs(place.regions - region_boxes(face.points)).max() < 0.3
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_registered_face_is_where_its_crop_is(tmp_path: Path) -> None:
    """The mesh saw the face before it moved ten pixels to the right; the crop knows."""
    face, spool = a_face(0), Spool(tmp_path)
    crop = seen(1.0, 2.0).crop
    assert crop is not None
    landmarks = face.points.copy()
    landmarks[:, :2] /= 2
    crop = replace(crop, landmarks=landmarks, transform=np.array([[0.5, 0, -5], [0, 0.5, 0]]))
    spool.append([face], [replace(unregistered(face), crop=crop)])
    ((place,),) = spool
    spool.close()
    assert np.abs(place.contours[0] - (face.points[list(CONTOURS[0]), :2] + (10, 0))).max() < 0.1


def test_a_place_can_be_moved(tmp_path: Path) -> None:
    face, spool = a_face(0), Spool(tmp_path)
    spool.append([face], [unregistered(face)])
    ((place,),) = spool
    spool.close()
    moved = place.moved(4, 6)
    assert moved.box[:2] == (place.box[0] + 4, place.box[1] + 6) and moved.box[2:] == place.box[2:]
    assert np.allclose(moved.contours[2] - place.contours[2], (4, 6))
    assert np.allclose(moved.regions - place.regions, (4, 6, 0, 0))
    assert place.moved(0, 0) is place


def test_a_folder_that_is_missing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: no such file"):
        Spool(tmp_path / "none")
