from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import InputError
from engine.geometry import CANONICAL_KEYPOINTS
from tests.flowmaps import write_dataset
from training.datasets.htnet_3db import KEYPOINTS, MAPS, TABLE, load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "set", per_class=1)


def test_maps_are_u_v_strain_in_zero_to_one(folder: Path) -> None:
    data = load(folder)
    assert data.maps.shape == (12, 3, 28, 28) and data.maps.dtype == np.float32
    first = cv2.imread(str(folder / MAPS / "sub01_c0_0 .png"))
    assert np.array_equal(data.maps[0][0] * 255, first[..., 2]) and np.array_equal(data.maps[0][2] * 255, first[..., 0])


def test_labels_subjects_and_databases_come_from_the_table(folder: Path) -> None:
    data = load(folder)
    assert data.labels.tolist() == [0, 1, 2] * 4
    assert data.subjects[::3] == ("casme2/sub01", "casme2/sub02", "samm/006", "smic/s03")
    assert set(data.databases) == {"casme2", "samm", "smic"} and data.absent == ()


def test_keypoints_count_from_the_first_cells_centre(folder: Path) -> None:
    assert np.abs(load(folder).keypoints.mean(0) - CANONICAL_KEYPOINTS).max() < 0.25


def test_absent_maps_are_listed_not_fatal(folder: Path) -> None:
    (folder / MAPS / "006_c1_0 .png").unlink()
    data = load(folder)
    assert len(data) == 11 and data.absent == ("006_c1_0",) and "006_c1_0" not in data.names


def test_names_without_the_odd_space_are_found_too(folder: Path) -> None:
    (folder / MAPS / "006_c1_0 .png").rename(folder / MAPS / "006_c1_0.png")
    assert load(folder).absent == ()


@pytest.mark.parametrize("name", [TABLE])
def test_a_missing_table_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} cannot be read: No such file"):
        load(folder)


def test_missing_maps_are_told(folder: Path) -> None:
    shutil.rmtree(folder / MAPS)
    with pytest.raises(InputError, match="there is no folder"):
        load(folder)
    (folder / MAPS).mkdir()
    with pytest.raises(InputError, match="none of the 12 maps"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        (TABLE, "label", "lable", "lacks the column label"),
        (TABLE, "casme2,sub01,c2_0,2", "casme2,sub01,c2_0,3", "line 4: the label is '3'; 0 negative, 1 positive, 2 surprise"),
        (TABLE, "casme2,sub01,c2_0,2", "casme2,,c2_0,2", "line 4: every row needs"),
        (TABLE, "casme2,sub01,c2_0,2", "smic,sub01,c2_0,2", "line 4: dataset is 'smic', and of this map .*database 'casme2'"),
        (TABLE, "casme2,sub01,c2_0,2", "casme2,sub01,c2_0,1", "line 4: label is '1', and of this map .*label '2'"),
        (KEYPOINTS, "nose_x", "nose", "lacks the column nose_x"),
        (KEYPOINTS, "sub02_c1_0", "sub99_c1_0", "no row for the map sub02_c1_0"),
        (TABLE, "sub01,c1_0,1", "sub01,c0_0,1", "names a map twice: sub01_c0_0"),
        (TABLE, "casme2,sub01,c2_0", "CASME2,sub01,c2_0", "one subject in two ways, 'casme2/sub01' and 'CASME2/sub01'"),
    ],
)
def test_a_damaged_table_is_told_with_the_place(folder: Path, name: str, old: str, new: str, says: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=says):
        load(folder)


def test_an_empty_table_lacks_its_columns(folder: Path) -> None:
    (folder / TABLE).write_text("")
    with pytest.raises(InputError, match="lacks the column dataset, sub, filename_o, label"):
        load(folder)


def test_a_point_far_from_the_map_is_told(folder: Path) -> None:
    header, first, *rest = (folder / KEYPOINTS).read_text().splitlines()
    place = header.split(",").index("nose_x")
    cells = first.split(",")
    for far in ("9999", "-15", "nan"):
        cells[place] = far
        (folder / KEYPOINTS).write_text("\n".join((header, ",".join(cells), *rest)) + "\n")
        with pytest.raises(InputError, match="line 2: a point is nowhere near the map"):
            load(folder)


def test_a_map_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(InputError, match=r"\.png cannot be read: Permission denied"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_damaged_map_is_named(folder: Path, content: bytes) -> None:
    (folder / MAPS / "s03_c0_0 .png").write_bytes(content)
    with pytest.raises(InputError, match=r"s03_c0_0 \.png is no picture"):
        load(folder)


def test_a_map_of_another_size_is_named(folder: Path) -> None:
    cv2.imwrite(str(folder / MAPS / "s03_c0_0 .png"), np.zeros((14, 28, 3), np.uint8))
    with pytest.raises(InputError, match="is 28 x 14; a colour picture of 28 x 28"):
        load(folder)


@pytest.mark.data
def test_the_published_set_is_whole(data_dir: Path) -> None:
    data = load(data_dir / "htnet-3db")
    assert len(data) == 442 and len(set(data.subjects)) == 68 and data.absent == ()
    counts = Counter(zip(data.databases, data.labels.tolist(), strict=True))
    assert [counts["smic", i] for i in range(3)] == [70, 51, 43]
    assert [counts["casme2", i] for i in range(3)] == [88, 32, 25]
    assert [counts["samm", i] for i in range(3)] == [92, 26, 15]


@pytest.mark.data
def test_canonical_keypoints_are_the_published_sets_mean(data_dir: Path) -> None:
    points = load(data_dir / "htnet-3db").keypoints.mean(0)
    turned = points[[1, 0, 2, 4, 3]] * (-1, 1) + (27, 0)
    assert np.abs((points + turned) / 2 - CANONICAL_KEYPOINTS).max() < 0.02


@pytest.mark.data
def test_positive_maps_pull_the_lip_corners_outwards(data_dir: Path) -> None:
    data = load(data_dir / "htnet-3db")
    mean = data.maps[data.labels == 1].mean(0)
    left, right = (CANONICAL_KEYPOINTS[i].round().astype(int) for i in (3, 4))
    assert mean[0, right[1] - 3, right[0] + 2] > mean[0, left[1] - 3, left[0] - 2] + 0.1
