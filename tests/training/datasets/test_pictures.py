from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import InputError
from training.datasets.clips import Clip
from training.datasets.databases import DATABASES
from training.datasets.pictures import ClipFolder, PictureFolders, decoded, read_picture


def clip(*folders: str, database: str = "casme2", onset: int | None = 46) -> Clip:
    return Clip(database, f"{database}/s", "x", onset, onset and 59, onset and 86, 1, "happiness", "12", 200.0, folders)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


@pytest.mark.parametrize(
    ("database", "picture", "wanted", "number"),
    [
        ("casme2", "CASME2-RAW/sub01/EP02_01f/img46.jpg", "sub01/EP02_01f", 46),
        ("casme2", "Cropped/SUB01/ep02_01F/reg_img46.JPG", "sub01/EP02_01f", 46),
        ("samm", "SAMM/006/006_1_2/006_05562.jpg", "006/006_1_2", 5562),
        ("smic", "SMIC-E_raw image/HS_long/SMIC-HS-E/s03/s3_sur_01/image308866.jpg", "s3_sur_01", 308866),
        ("smic", "SMIC_all_cropped/HS/s1/micro/negative/s1_ne_01/reg_image013604.bmp", "s1_ne_01", 13604),
        ("casme3", "part_A/spNO.1/b/color/175.jpg", "spNO.1/b/color", 175),
    ],
)
def test_folders_are_found_in_the_layouts_of_the_releases(
    database: str, picture: str, wanted: str, number: int, tmp_path: Path
) -> None:
    touch(tmp_path, picture)
    found = PictureFolders(tmp_path, DATABASES[database]).find(clip(wanted, database=database))
    assert list(found.numbered()) == [number]
    assert found.cropped == ("reg_" in picture) and found.just_expression == ("/micro/" in picture)


def test_the_root_may_lie_anywhere_above_the_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "CASME2-RAW/sub01/EP02_01f/img46.jpg")
    for root in (tmp_path, tmp_path / "CASME2-RAW", tmp_path / "CASME2-RAW" / "sub01"):
        assert PictureFolders(root, DATABASES["casme2"]).find(clip("sub01/EP02_01f")).path.name == "EP02_01f"


def test_whole_pictures_come_before_cropped_ones(tmp_path: Path) -> None:
    touch(tmp_path, "A/sub01/EP02_01f/reg_img46.jpg", "B/sub01/EP02_01f/img46.jpg")
    assert not PictureFolders(tmp_path, DATABASES["casme2"]).find(clip("sub01/EP02_01f")).cropped


def test_two_folders_of_one_kind_are_an_error_that_names_them(tmp_path: Path) -> None:
    touch(tmp_path, "A/sub01/EP02_01f/img46.jpg", "B/sub01/EP02_01f/img46.jpg")
    with pytest.raises(InputError, match=r"two folders hold x, .*A/sub01/EP02_01f and .*B/sub01/EP02_01f; name a root"):
        PictureFolders(tmp_path, DATABASES["casme2"]).find(clip("sub01/EP02_01f"))


def test_smics_other_cameras_and_still_clips_are_passed_by(tmp_path: Path) -> None:
    names = ("HS_long/SMIC-HS-E/s20", "VIS_long/SMIC-VIS-E/s20", "SMIC_all_cropped/NIR/s20/micro/negative", "HS/s20/non_micro")
    touch(tmp_path, *(f"{name}/s20_ne_01/image1.jpg" for name in names))
    found = PictureFolders(tmp_path, DATABASES["smic"]).find(clip("s20_ne_01", database="smic"))
    assert found.path.parts[-4:-1] == ("HS_long", "SMIC-HS-E", "s20")


def test_a_further_expression_is_in_a_folder_of_its_own_or_in_the_long_clip(tmp_path: Path) -> None:
    further = clip("s3_ne_03", "s3_ne_02", database="smic")
    touch(tmp_path, "HS/s3/micro/negative/s3_ne_02/reg_image1.bmp")
    with pytest.raises(InputError, match="there is no folder s3_ne_03 or s3_ne_02"):  # the short clip is another expression
        PictureFolders(tmp_path, DATABASES["smic"]).find(further)
    touch(tmp_path, "HS_long/s03/s3_ne_02/image1.jpg")
    assert PictureFolders(tmp_path, DATABASES["smic"]).find(further).path.parts[-2:] == ("s03", "s3_ne_02")
    touch(tmp_path, "HS/s3/micro/negative/s3_ne_03/reg_image1.bmp")
    assert PictureFolders(tmp_path, DATABASES["smic"]).find(further).just_expression


def test_without_frames_in_the_table_only_a_folder_of_just_the_expression_will_do(tmp_path: Path) -> None:
    touch(tmp_path, "HS_long/s01/s1_ne_02/image1.jpg")
    with pytest.raises(InputError, match="the table has no frames for it"):
        PictureFolders(tmp_path, DATABASES["smic"]).find(clip("s1_ne_02", database="smic", onset=None))


def test_a_root_without_pictures_is_an_error_with_an_example(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt", "a/._006_05562.jpg")
    with pytest.raises(InputError, match=r"no picture below .*; SAMM is expected as 006/006_1_2/006_05562\.jpg"):
        PictureFolders(tmp_path, DATABASES["samm"])


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "disk/CASME2-RAW/sub01/EP02_01f/img46.jpg", "disk/other/x7/EP1/img1.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "CASME2-RAW").symlink_to(tmp_path / "disk" / "CASME2-RAW")
    (tmp_path / "root" / "sub02").symlink_to(tmp_path / "disk" / "other" / "x7")
    folders = PictureFolders(tmp_path / "root", DATABASES["casme2"])
    assert list(folders.find(clip("sub01/EP02_01f")).numbered()) == [46]
    assert list(folders.find(clip("sub02/EP1")).numbered()) == [1]  # the link's name counts, not its target's


def test_links_that_go_round_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/sub01/EP02_01f/img46.jpg", "b/sub02/EP1/img1.jpg")
    (tmp_path / "a" / "sub01" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    folders = PictureFolders(tmp_path, DATABASES["casme2"])
    assert [list(folders.find(clip(name)).numbered()) for name in ("sub01/EP02_01f", "sub02/EP1")] == [[46], [1]]


def test_one_folder_under_two_names_is_one_folder(tmp_path: Path) -> None:
    touch(tmp_path, "A/sub01/EP02_01f/img46.jpg")
    (tmp_path / "B").symlink_to(tmp_path / "A")
    assert list(PictureFolders(tmp_path, DATABASES["casme2"]).find(clip("sub01/EP02_01f")).numbered()) == [46]


def test_unreadable_folders_are_named_when_a_clip_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "sub01/EP02_01f/img46.jpg", "sub02/EP1/img1.jpg")
    closed, scandir = str(tmp_path / "sub01"), os.scandir

    def guarded(path: str) -> Iterator[os.DirEntry[str]]:  # rights do not stop a superuser, who may run this
        if str(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    folders = PictureFolders(tmp_path, DATABASES["casme2"])
    assert list(folders.find(clip("sub02/EP1")).numbered()) == [1]
    with pytest.raises(InputError, match=r"no folder sub01/EP02_01f .*; .*sub01 cannot be read: Permission denied$"):
        folders.find(clip("sub01/EP02_01f"))
    with pytest.raises(InputError, match=r"no picture below .*; .*sub01 cannot be read: Permission denied$"):
        PictureFolders(tmp_path / "sub01", DATABASES["casme2"])


def test_pictures_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "img10.jpg", "img9.jpg", "img100.jpg", "._img8.jpg", "cover.jpg", "Thumbs.db")
    assert list(ClipFolder(tmp_path, False, False).numbered()) == [9, 10, 100]
    touch(tmp_path, "img09.jpg")
    with pytest.raises(InputError, match=r"two pictures of number 9: img09\.jpg and img9\.jpg"):
        ClipFolder(tmp_path, False, False).numbered()


def test_pictures_are_rgb_grey_ones_too(tmp_path: Path) -> None:
    colour = np.zeros((40, 30, 3), np.uint8)
    colour[..., 0] = 200
    cv2.imwrite(str(tmp_path / "red.png"), colour[..., ::-1])
    cv2.imwrite(str(tmp_path / "grey.jpg"), np.full((40, 30), 77, np.uint8))
    assert np.array_equal(read_picture(tmp_path / "red.png"), colour)
    grey = read_picture(tmp_path / "grey.jpg")
    assert grey.shape == (40, 30, 3) and np.ptp(grey.reshape(-1, 3).mean(0)) == 0


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_a_picture_cut_short_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"img46{suffix}"
    noise = np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    whole = path.read_bytes()
    assert read_picture(path).shape == (60, 80, 3)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InputError, match=rf"img46\{suffix} (ends too early|is no picture)"):
        read_picture(path)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("text", "empty"):
        with pytest.raises(InputError, match=rf"{name}\.jpg is no picture"):
            read_picture(tmp_path / f"{name}.jpg")
    with pytest.raises(InputError, match=r"gone\.jpg cannot be read: No such file"):
        read_picture(tmp_path / "gone.jpg")


@pytest.mark.parametrize("kind", [".jp2", ".webp", ".tiff", ".ppm", ".hdr"])
def test_only_formats_of_databases_are_decoded_whatever_the_name(tmp_path: Path, kind: str) -> None:
    written = cv2.imencode(kind, np.full((64, 64, 3), 90, np.float32 if kind == ".hdr" else np.uint8))[1].tobytes()
    path = tmp_path / "img1.jpg"
    path.write_bytes(written)
    with pytest.raises(InputError, match=r"img1\.jpg is no picture .JPEG, PNG or BMP."):
        read_picture(path)


@pytest.mark.parametrize("kind", [".jpg", ".png", ".bmp"])
def test_those_of_databases_are(kind: str) -> None:
    picture = np.full((8, 8, 3), 90, np.uint8)
    assert np.array_equal(decoded(cv2.imencode(kind, picture)[1].tobytes()), picture)


def test_a_header_that_asks_for_too_much_is_no_picture() -> None:
    data = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    data[16:24] = b"\x00\x0f\xff\xff" * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    assert decoded(bytes(data)) is None
