from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.types import Frame, Layout
from stream.sources.facts import VideoFacts
from stream.sources.file import open_video
from stream.sources.pixels import square_size
from tests.oddities import with_matrix
from tests.videos import Picture, quadrants, write_video

COLOUR_TOLERANCE = 20
"""Measured: at most 13 grey levels between the pictures written and read at 64 x 48 through H.264 and 4:2:0."""


def read(path: Path) -> tuple[list[Frame], VideoFacts]:
    with open_video(path) as source:
        return list(source), source.facts


def corners(rgb: Picture) -> Picture:
    """[4, 3] colours in the middle of the four quadrants: top left, top right, bottom left, bottom right."""
    rows, columns = rgb.shape[0] // 4, rgb.shape[1] // 4
    return rgb[[rows, rows, 3 * rows, 3 * rows], [columns, 3 * columns, columns, 3 * columns]]


def assert_alike(found: Picture, expected: Picture) -> None:
    assert found.shape == expected.shape
    assert np.abs(corners(found).astype(int) - corners(expected)).max() <= COLOUR_TOLERANCE


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "layout"),
    [
        ("mp4", "libx264", "yuv420p", "i420"),
        ("mkv", "mjpeg", "yuvj420p", "i420"),
        ("mp4", "libx264", "yuv420p10le", "i420"),
        ("mp4", "libx264", "yuv422p", "i420"),
        ("mp4", "libx264", "yuv444p", "i420"),
        ("mp4", "libx264", "nv12", "i420"),
        ("mkv", "ffv1", "bgra", "rgb"),
        ("webm", "libvpx-vp9", "yuv420p", "i420"),
        ("mov", "png", "rgb24", "rgb"),
    ],
)
def test_pixel_formats_keep_their_colours(tmp_path: Path, suffix: str, codec: str, pix_fmt: str, layout: Layout) -> None:
    picture = quadrants(64, 48)
    frames, _ = read(write_video(tmp_path / f"clip.{suffix}", [picture] * 3, codec=codec, pix_fmt=pix_fmt))
    assert len(frames) == 3
    assert frames[-1].layout == layout
    assert_alike(frames[-1].rgb, picture)


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "gray16le"])
def test_grey_video_stays_grey(tmp_path: Path, pix_fmt: str) -> None:
    picture = quadrants(64, 48)
    frames, _ = read(write_video(tmp_path / "clip.mkv", [picture] * 3, codec="ffv1", pix_fmt=pix_fmt))
    assert frames[0].layout == "grey"
    expected = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    assert np.abs(corners(frames[0].rgb)[:, 0].astype(int) - corners(cv2.merge([expected] * 3))[:, 0]).max() <= COLOUR_TOLERANCE


@pytest.mark.parametrize(("width", "height"), [(16, 16), (18, 14), (66, 46), (64, 50), (4096, 2304)])
def test_even_sizes(tmp_path: Path, width: int, height: int) -> None:
    frames, _ = read(write_video(tmp_path / "clip.mp4", [quadrants(width, height)] * 2, options={"preset": "ultrafast"}))
    assert (frames[0].width, frames[0].height, frames[0].layout) == (width, height, "i420")
    assert_alike(frames[0].rgb, quadrants(width, height))


@pytest.mark.parametrize(("pix_fmt", "codec"), [("yuv420p", "ffv1"), ("yuv444p", "libx264"), ("gray", "ffv1")])
def test_odd_sizes(tmp_path: Path, pix_fmt: str, codec: str) -> None:
    frames, _ = read(write_video(tmp_path / "clip.mkv", [quadrants(63, 47)] * 2, codec=codec, pix_fmt=pix_fmt))
    assert frames[0].rgb.shape == (47, 63, 3)
    if pix_fmt != "gray":
        assert_alike(frames[0].rgb, quadrants(63, 47))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "gray", "yuv444p"])
@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_in_the_file_is_applied(tmp_path: Path, rotation: int, pix_fmt: str) -> None:
    picture = quadrants(64, 48)
    frames, facts = read(write_video(tmp_path / "clip.mp4", [picture] * 2, rotation=rotation, pix_fmt=pix_fmt))
    upright = np.rot90(picture, rotation // 90)
    assert frames[0].rgb.shape == upright.shape
    assert (facts.width, facts.height) == (upright.shape[1], upright.shape[0])
    if pix_fmt == "gray":
        assert np.argmax(corners(frames[0].rgb)[:, 0]) == np.argmax(corners(upright).sum(1))
    else:
        assert_alike(frames[0].rgb, upright)


SQUARED = [
    ((1, 0, 0, 1), lambda p: p),
    ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    ((1, 0, 0, -1), lambda p: p[::-1]),
    ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    ((0, -1, 1, 0), np.rot90),
    ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    ((0, -1, -1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
]
"""Display matrices (a, b, c, d), x' = a x + c y and y' = b x + d y, and what they make of a picture."""


@pytest.mark.parametrize(("matrix", "shown"), SQUARED, ids=[str(matrix) for matrix, _ in SQUARED])
def test_each_display_matrix_is_applied_as_a_whole(
    tmp_path: Path, matrix: tuple[int, int, int, int], shown: Callable[[Picture], Picture]
) -> None:
    picture = quadrants(64, 48)
    path = with_matrix(write_video(tmp_path / "plain.mp4", [picture] * 2), tmp_path / "clip.mp4", matrix)
    frames, _ = read(path)
    assert_alike(frames[0].rgb, shown(picture))
    with open_video(path) as source:
        list(source)
        a, b, c, d = matrix
        mirrored = a * d - b * c < 0
        assert any("mirrored" in warning for warning in source.facts.warnings) == mirrored
        before = np.ascontiguousarray(picture[:, ::-1]) if mirrored else picture
        assert_alike(np.rot90(before, source.facts.rotation // 90), shown(picture))


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (None, (720, 576)),
        (16 / 15, (768, 576)),
        (64 / 45, (1024, 576)),
        (8 / 9, (720, 648)),
        (1.005, (720, 576)),
        (30.0, (720, 576)),
        (0.01, (720, 576)),
    ],
)
def test_sizes_with_square_pixels(aspect: float | None, size: tuple[int, int]) -> None:
    assert square_size(720, 576, aspect) == size


@pytest.mark.parametrize("rotation", [None, 90])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "gray"])
def test_a_picture_of_oblong_pixels_is_stretched(tmp_path: Path, pix_fmt: str, rotation: int | None) -> None:
    options = {"x264-params": "sar=4/3"}
    path = tmp_path / "clip.mp4"
    write_video(path, [quadrants(48, 48)] * 2, pix_fmt=pix_fmt, options=options, rotation=rotation)
    frames, facts = read(path)
    wide = quadrants(64, 48)
    assert (facts.width, facts.height) == ((64, 48) if rotation is None else (48, 64))
    if pix_fmt != "gray":
        assert_alike(frames[0].rgb, wide if rotation is None else np.rot90(wide))
