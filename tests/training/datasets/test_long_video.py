from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.types import F32
from tests.databases import (
    casme2_squared_table,
    casme3_long_table,
    samm_lv_table,
    write_picture,
    write_region_flow,
)
from tests.faces import grey_picture
from training.datasets.long_tables import CASME2_SQUARED, CASME3, SAMM_LV, Annotation
from training.datasets.long_video import LongVideos, load
from training.datasets.pictures import ClipFolder


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        write_picture(folder / name, grey_picture(8, 8))
    return folder


def moving(frames: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).uniform(0.01, 0.1, (frames, 12, 2)).astype(np.float32)


def flow_folder(root: Path, *rows: tuple[object, ...]) -> Path:
    videos = {"samm_006_1": moving(300), "samm_006_2": moving(256, 1), "samm_007_1": moving(5, 2)}
    return write_region_flow(root, "samm-lv", videos, rows)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "videos", "subjects", "counts"),
    [("casme2-squared", 97, 22, (57, 299)), ("samm-lv", 147, 30, (159, 338))],
)
def test_the_published_region_flow(name: str, videos: int, subjects: int, counts: tuple[int, int], data_dir: Path) -> None:
    found = load(name, data_dir / "roi-flow")
    kinds = [one.kind for video in found.videos for one in video.truth]
    assert (len(found.videos), len({video.subject for video in found.videos})) == (videos, subjects)
    assert (kinds.count("micro"), kinds.count("macro")) == counts and not found.absent
    for video in found.videos:
        assert isinstance(video.source, np.ndarray) and video.source.dtype == np.float32
        assert all(one.offset < len(video.source) for one in video.truth)
        assert video.source[-1].any() or (video.truth and video.truth[-1].offset == len(video.source) - 1)


def test_region_flow_loses_its_padding_and_comes_in_pixels(tmp_path: Path) -> None:
    found = load("samm-lv", flow_folder(tmp_path, ("samm_006_1", "micro", 10, 14, 20), ("samm_006_1", "macro", 2, -1, 40)))
    first, second, third = found.videos
    assert [video.name for video in found.videos] == ["006_1", "006_2", "007_1"] and first.fps == 25
    assert [len(video.source) for video in found.videos if isinstance(video.source, np.ndarray)] == [300, 256, 5]
    assert np.allclose(first.source, 20 * moving(300), rtol=1e-2)
    assert first.truth == (Annotation(2, None, 40, "macro"), Annotation(10, 14, 20, "micro"))
    assert second.truth == third.truth == () and not found.has_pictures
    assert found.summary == ("SAMM Long Videos: 3 videos (region flow) of 2 subjects, 1 micro- and 1 macro-expressions")


def test_a_table_stands_for_the_flows_own_expressions(tmp_path: Path) -> None:
    table = samm_lv_table(
        tmp_path / "t.xlsx", ("006", "006_1_2", 100, 120, 171, "Macro"), ("009", "009_1_1", 1, 2, 30, "Macro")
    )
    found = load("samm-lv", flow_folder(tmp_path, ("samm_006_1", "micro", 10, 14, 20)), table)
    assert found.videos[0].truth == (Annotation(12, 15, 21, "macro"),) and found.absent == ("009_1",)


def test_expressions_of_a_video_that_is_not_there_are_reported(tmp_path: Path) -> None:
    assert load("samm-lv", flow_folder(tmp_path, ("samm_009_1", "micro", 1, 2, 3))).absent == ("009_1",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("samm_006_1", "mini", 1, 2, 3), "row 2: an expression is micro or macro, not 'mini'"),
        (("samm_006_1", "micro", 9, 2, 3), "row 2: an expression ends after it starts, not 9 to 3"),
        (("samm_006_1", "micro", "a", 2, 3), "row 2: a frame number is expected in the column onset, not 'a'"),
        (("samm_006_1",), "row 2: the column onset has no frame number"),
    ],
)
def test_a_wrong_table_of_region_flow_is_an_error_with_its_row(row: tuple[object, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load("samm-lv", flow_folder(tmp_path, row))


def test_damaged_region_flow_is_an_error(tmp_path: Path) -> None:
    folder = flow_folder(tmp_path)
    whole = (folder / "samm-lv.npz").read_bytes()
    (folder / "samm-lv.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"samm-lv\.npz cannot be read"):
        load("samm-lv", folder)
    np.savez(folder / "samm-lv.npz", samm_006_1=np.zeros((5, 11, 2)))
    with pytest.raises(InputError, match=r"samm_006_1 is float64 \[5, 11, 2\]; float \[frames, 12, 2\] is expected"):
        load("samm-lv", folder)
    np.savez(folder / "samm-lv.npz", other=np.zeros((5, 12, 2)))
    with pytest.raises(InputError, match=r"samm-lv\.npz holds 'other', which names no video of SAMM Long Videos"):
        load("samm-lv", folder)
    (folder / "samm-lv.csv").unlink()
    with pytest.raises(InputError, match=r"samm-lv\.csv, cannot be read"):
        load("samm-lv", folder)


def test_there_is_no_region_flow_of_casme3(tmp_path: Path) -> None:
    write_region_flow(tmp_path, "casme3", {"a": moving(5)}, [])
    with pytest.raises(InputError, match="no published region flow"):
        load("casme3", tmp_path)


def found_in(root: Path, database: str, annotations: Path | None = None) -> tuple[LongVideos, dict[str, tuple[str, int]]]:
    found = load(database, root, annotations)
    videos = {}
    for video in found.videos:
        assert isinstance(video.source, ClipFolder)
        videos[video.name] = video.subject, len(video.source.numbered())
    return found, videos


def test_pictures_of_samm_long_videos(tmp_path: Path) -> None:
    """A video without a row holds no expression; one without pictures is reported; SAMM's own clips are no videos."""
    put(tmp_path / "SAMM_longvideos" / "006_1", "006_1_0001.jpg", "006_1_0002.jpg")
    put(tmp_path / "SAMM_longvideos" / "006_2", "006_2_0001.jpg")
    put(tmp_path / "SAMM" / "006" / "006_1_2", "006_05562.jpg")
    samm_lv_table(
        tmp_path / SAMM_LV.table,
        ("006", "006_1_2", 1, 2, 3, "Micro - 1/2"),
        ("007", "007_3_1", 1, 2, 3, "Macro"),
        ("007", "007_3_2", 5, 5, 5, "Macro"),
    )
    found, videos = found_in(tmp_path, "samm-lv")
    assert videos == {"006_1": ("006", 2), "006_2": ("006", 1)} and found.videos[0].fps == 200
    assert found.videos[0].truth == (Annotation(1, 2, 3, "micro"),) and found.videos[1].truth == ()
    assert found.absent == ("007_3",) and "row 13: an expression from 5 to 5 is impossible" in found.left_out[0]


def test_pictures_of_casme2_squared_and_not_its_crops(tmp_path: Path) -> None:
    put(tmp_path / "rawpic" / "s15" / "15_0101disgustingteeth", "img1.jpg", "img2.jpg")
    crops = put(tmp_path / "cropped" / "s15" / "15_0101disgustingteeth", "reg_img1.jpg")
    table = casme2_squared_table(tmp_path / CASME2_SQUARED.table, (1, "disgust1_1", 1, 2, 3, "others", "micro-expression"))
    found, videos = found_in(tmp_path, "casme2-squared")
    assert videos == {"15_0101": ("s15", 2)} and len(found.videos[0].truth) == 1
    with pytest.raises(InputError, match="holds cropped pictures"):
        load("casme2-squared", crops.parent, table)
    put(tmp_path / "again" / "s15" / "15_0101disgustingteeth", "img1.jpg")
    with pytest.raises(InputError, match="two folders hold 15_0101"):
        load("casme2-squared", tmp_path)


def test_pictures_of_casme3_whatever_the_case(tmp_path: Path) -> None:
    put(tmp_path / "part_A" / "SPNO.1" / "B" / "color", "175.jpg")
    put(tmp_path / "part_A" / "spNO.1" / "b" / "depth", "175.png")
    table = casme3_long_table(tmp_path / "t.xlsx", ("spNO.1", "b", 166, 175, 179, "Micro-expression"))
    found, videos = found_in(tmp_path, "casme3", table)
    assert videos == {"spNO.1_b": ("spNO.1", 1)} and found.videos[0].truth == (Annotation(166, 175, 179, "micro"),)
    assert found.absent == () and CASME3.fps == found.videos[0].fps


def test_what_does_not_exist_is_an_error(tmp_path: Path) -> None:
    for database, folder, message in (
        ("casme9", tmp_path, "no database of long videos 'casme9'; choose casme2-squared, samm-lv, casme3"),
        ("samm-lv", tmp_path / "gone", "there is no folder .*gone; SAMM Long Videos is expected there"),
        ("samm-lv", tmp_path, r"SAMM_LongVideos_V3_Release\.xlsx is not in or near"),
    ):
        with pytest.raises(InputError, match=message):
            load(database, folder)
    table = samm_lv_table(tmp_path / SAMM_LV.table, ("006", "006_1_2", 1, 2, 3, "Macro"))
    with pytest.raises(InputError, match="there is no picture below"):
        load("samm-lv", tmp_path)
    put(tmp_path / "other", "1.jpg")
    with pytest.raises(InputError, match=r"no video of SAMM Long Videos is below .*; SAMM_longvideos/006_1/006_1_0001\.jpg"):
        load("samm-lv", tmp_path, table)
