from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream.review import pictures as pictures_module
from stream.review.frames import FrameReader
from stream.review.pictures import CHUNK, Pictures, Region
from tests.review import write_plain

FRAMES = 40


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    return Pictures(FrameReader(write_plain(tmp_path / "clip.mp4", FRAMES), np.arange(FRAMES) / 25))


def unpacked(chunk: bytes) -> tuple[int, list[float], list[np.ndarray]]:
    end = 4 + int.from_bytes(chunk[:4], "big")
    header = json.loads(chunk[4:end])
    images = []
    for frame in header["frames"]:
        jpeg = np.frombuffer(chunk[end : end + frame["size"]], np.uint8)
        images.append(np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)))
        end += frame["size"]
    assert end == len(chunk)
    return header["first"], [frame["t"] for frame in header["frames"]], images


def test_a_chunk_holds_the_frames_with_their_times(pictures: Pictures) -> None:
    first, times, images = unpacked(pictures.chunk(1, None))
    assert (first, times) == (CHUNK, [n / 25 for n in range(CHUNK, FRAMES)])
    for number, image in enumerate(images, first):
        assert image.shape == (120, 160, 3)
        assert abs(int(image[10, 80, 0]) - (40 + 4 * (number % 50))) <= 6


def test_a_region_is_cut_out_and_stays_within_the_picture(pictures: Pictures) -> None:
    _, _, images = unpacked(pictures.chunk(0, Region(80, 60, 40, 30)))
    assert images[0].shape == (30, 40, 3)
    assert images[0].mean() < 10, "the lower right quarter is black"
    _, _, images = unpacked(pictures.chunk(0, Region(150, 119, 900, 900)))
    assert images[0].shape == (8, 10, 3)


def test_what_is_no_region() -> None:
    assert Region.parse("1,2,30,40") == Region(1, 2, 30, 40)
    for text in ("", "1,2,3", "1,2,30,-40", "1,2,30,4", "a,b,c,d", "1,2,30,999999", "1,2,30,²0"):
        assert Region.parse(text) is None


def test_chunks_are_kept_up_to_a_limit(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pictures.chunk(0, None)
    assert pictures.chunk(0, None) is first
    monkeypatch.setattr(pictures_module, "CACHE_BYTES", len(first))
    pictures.chunk(1, None)
    assert pictures.chunk(0, None) is not first


def test_large_pictures_are_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures_module, "LARGEST", 80)
    small = Pictures(FrameReader(write_plain(tmp_path / "clip.mp4", 5), np.arange(5) / 25))
    assert unpacked(small.chunk(0, None))[2][0].shape == (60, 80, 3)
