from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from engine.errors import InputError
from engine.geometry import CANONICAL_KEYPOINTS
from tests.flowmaps import write_dataset
from training.datasets.htnet_3db import FACES, KEYPOINTS, TABLE, load
from training.datasets.keypoints import find

FACE = (slice(74, 164), slice(183, 267))
"""Rows and columns of the astronaut's face, cut as tightly as the apex faces of the published set."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    face = cv2.cvtColor(astronaut()[FACE], cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(folder / "straight.png"), face)
    cv2.imwrite(str(folder / "mirrored.png"), face[:, ::-1])
    cv2.imwrite(str(folder / "twice.png"), cv2.resize(face, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
    cv2.imwrite(str(folder / "wall.png"), np.full((140, 120, 3), 128, np.uint8))
    return folder


def test_points_lie_where_the_published_ones_do_on_average(pictures: Path) -> None:
    points = find({"straight": pictures / "straight.png"})["straight"]
    assert points.shape == (5, 2) and np.abs(points - CANONICAL_KEYPOINTS).max() < 2.5  # a broad smile: lip corners 2.1 outside


def test_points_follow_the_face_not_the_picture(pictures: Path) -> None:
    found = find({name: pictures / f"{name}.png" for name in ("straight", "mirrored", "twice")})
    turned = found["mirrored"][[1, 0, 2, 4, 3]] * (-1, 1) + (27, 0)
    assert np.abs(turned - found["straight"]).max() < 1.0  # measured 0.72, the nose: the mesh itself is not symmetric
    assert np.abs(found["twice"] - found["straight"]).max() < 0.5


def test_a_picture_says_the_same_whatever_came_before_it(pictures: Path) -> None:
    paths = {name: pictures / f"{name}.png" for name in ("mirrored", "straight")}
    alone = find({"straight": paths["straight"]})["straight"]
    assert np.abs(find(paths)["straight"] - alone).max() < 0.05


def test_where_no_face_is_none_is_made_up(pictures: Path) -> None:
    with pytest.raises(InputError, match=r"no face was found on .*wall\.png"):
        find({"straight": pictures / "straight.png", "wall": pictures / "wall.png"})


def test_a_picture_that_cannot_be_read_is_named(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.jpg is no picture"):
        find({"text": tmp_path / "text.jpg"})
    with pytest.raises(InputError, match=r"gone\.jpg cannot be read: No such file"):
        find({"gone": tmp_path / "gone.jpg"})


def test_a_set_without_keypoints_gets_them_from_its_apex_faces(pictures: Path, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", per_class=1, subjects=(("casme2", "sub01"),))
    (folder / KEYPOINTS).unlink()
    with pytest.raises(InputError, match=r"neither keypoints\.csv nor the apex faces"):
        load(folder)
    table = (folder / TABLE).read_text()
    (folder / FACES).mkdir()
    for number in range(3):
        name = f"sub01_c{number}_0.jpg"
        cv2.imwrite(str(folder / FACES / name), cv2.imread(str(pictures / "straight.png")))
        table = table.replace(f"c{number}_0,{number},,,", f"c{number}_0,{number},,{name},")
    (folder / TABLE).write_text(table)
    expected = find({"straight": pictures / "straight.png"})["straight"]
    assert np.abs(load(folder).keypoints - expected).max() < 0.3
