from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engine.errors import SourceError
from engine.types import Frame
from stream.sources.file import VideoSource, decoder_threads, open_video
from tests.oddities import remuxed
from tests.review import write_plain
from tests.videos import quadrants, stepping, write_tone, write_video


def read(path: Path) -> tuple[list[Frame], VideoSource]:
    with open_video(path) as source:
        return list(source), source


def corrupted(path: Path, start: float, share: float = 0.1) -> Path:
    """The file with noise from the share start of its length on, over a share of it that spans several pictures."""
    data = bytearray(path.read_bytes())
    at, size = int(len(data) * start), int(len(data) * share)
    data[at : at + size] = random.Random(7).randbytes(size)
    path.write_bytes(bytes(data))
    return path


def test_frames_carry_index_time_and_content(tmp_path: Path) -> None:
    pictures = stepping(64, 48, 40)
    frames, source = read(write_video(tmp_path / "clip.mp4", pictures, rate=25))
    assert [frame.index for frame in frames] == list(range(40))
    assert [frame.t for frame in frames] == pytest.approx([n / 25 for n in range(40)])
    assert not any(frame.gap for frame in frames)
    for frame, picture in zip(frames, pictures, strict=True):
        assert abs(int(frame.rgb[4, 32, 0]) - int(picture[4, 32, 0])) <= 4
    assert source.problem is None
    facts = source.facts
    assert (facts.width, facts.height, facts.frames, facts.expected_frames) == (64, 48, 40, 40)
    assert facts.duration == pytest.approx(39 / 25)
    assert facts.measured_fps == pytest.approx(25)


def test_variable_rate_keeps_the_files_times_and_marks_a_lost_second(tmp_path: Path) -> None:
    times = [0.0, 0.03, 0.1, 0.12, 0.2, 1.3, 1.34]
    frames, source = read(write_video(tmp_path / "clip.mp4", stepping(64, 48, 7), times=times))
    assert [frame.t for frame in frames] == pytest.approx(times, abs=1e-4)
    assert [frame.index for frame in frames if frame.gap] == [5]
    assert source.facts.gaps == 1


def in_the_dark(count: int) -> list[float]:
    """Times of a camera that takes twice as long over every eighth picture."""
    return [(number + number // 8) / 30 for number in range(count)]


@pytest.mark.parametrize("container", ["mp4", "ts", "flv"])
def test_a_camera_that_skips_pictures_loses_none(tmp_path: Path, container: str) -> None:
    frames, source = read(write_video(tmp_path / f"dark.{container}", stepping(64, 48, 90), times=in_the_dark(90)))
    facts = source.facts
    assert (len(frames), facts.lost_frames, facts.gaps) == (90, 0, 0)
    assert not any(frame.doubtful for frame in frames)
    assert any("the rate is uneven" in warning for warning in facts.warnings)


@pytest.mark.parametrize("container", ["mp4", "ts", "flv"])
def test_missing_reference_pictures_are_counted(tmp_path: Path, container: str) -> None:
    whole = write_video(tmp_path / "whole.mp4", stepping(64, 48, 90), options={"bf": "0", "g": "30"})
    part = remuxed(whole, tmp_path / f"part.{container}", lambda t: None if round(t * 30) in (40, 41) else t)
    frames, source = read(part)
    assert (len(frames), source.facts.lost_frames, source.facts.gaps) == (88, 2, 1)
    assert [frame.index for frame in frames if frame.doubtful] == list(range(40, 59))  # up to the next key picture


def test_the_sources_clock_is_kept(tmp_path: Path) -> None:
    frames, source = read(write_video(tmp_path / "clip.mkv", stepping(64, 48, 5), times=[7 + n / 30 for n in range(5)]))
    assert frames[0].t == pytest.approx(7, abs=0.001)
    assert source.facts.start == frames[0].t


def test_no_time_stamps(tmp_path: Path) -> None:
    frames, source = read(write_video(tmp_path / "clip.h264", stepping(64, 48, 20)))
    assert [frame.t for frame in frames] == pytest.approx([n / 25 for n in range(20)])
    assert source.facts.warnings == ("the file has no time stamps; 25 frames/s assumed",)


def test_stamps_in_storage_order_become_presentation_order(tmp_path: Path) -> None:
    frames, _ = read(write_video(tmp_path / "clip.avi", stepping(64, 48, 30)))
    steps = np.diff([frame.t for frame in frames])
    assert len(frames) == 30
    assert steps[:-1] == pytest.approx(1 / 30, abs=1e-3)


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    frames, source = read(write_video(tmp_path / "face.png", [quadrants(63, 47)], codec="png", pix_fmt="rgb24"))
    assert len(frames) == 1
    assert np.abs(frames[0].rgb.astype(int) - quadrants(63, 47)).max() <= 2
    assert source.problem is None


def test_pixels_that_are_not_square_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, [quadrants(64, 48)] * 2, options={"x264-params": "sar=4/3"})
    _, source = read(path)
    assert any("not square (4:3)" in warning for warning in source.facts.warnings)


def test_names_with_odd_characters(tmp_path: Path) -> None:
    path = write_video(tmp_path / "plain.mp4", [quadrants(64, 48)] * 2)
    odd = tmp_path / "http:odd name %03d #1 ü.mp4"
    path.rename(odd)
    assert len(read(odd)[0]) == 2


def test_damaged_packets_are_skipped_and_reported(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (60, 96, 128, 3), dtype=np.uint8)
    path = write_video(tmp_path / "clip.mp4", list(noise), options={"g": "10"}, container_options={"movflags": "faststart"})
    frames, source = read(corrupted(path, 0.5))
    assert 30 <= len(frames) < 60
    assert source.facts.decode_errors + source.facts.damaged_frames > 0
    assert source.problem is not None
    assert "damaged" in source.problem
    assert str(path) in source.problem
    assert all(after.t > before.t for before, after in pairwise(frames))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_rest_of_a_file_cut_off_is_read_and_reported(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (90, 48, 64, 3), dtype=np.uint8)
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = write_video(tmp_path / f"clip.{suffix}", list(noise), container_options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, source = read(path)
    assert 20 <= len(frames) < 60
    assert source.problem is not None
    assert str(path) in source.problem


def test_a_broadcast_joined_in_the_middle_is_no_problem(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.ts", stepping(64, 48, 120), options={"g": "25"})
    data = path.read_bytes()
    path.write_bytes(data[188 * (len(data) // 188 // 4) :])
    frames, source = read(path)
    assert 30 <= len(frames) < 120
    assert frames[0].t > 0.5
    assert source.problem is None


def test_stopping_early_is_no_problem_of_the_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", stepping(64, 48, 60))
    with open_video(path) as source:
        next(iter(source))
    assert source.problem is None


def unopenable(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a video\n" * 100)
    elif kind == "sound":
        write_tone(path)
    elif kind == "headless":  # the index lies behind the pictures and is cut off
        write_video(path, stepping(64, 48, 30))
        path.write_bytes(path.read_bytes()[:-400])
    return path


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("missing", "there is no such file"),
        ("folder", "is a folder"),
        ("empty", "is empty"),
        ("text", "cannot be read as a video"),
        ("sound", "has no pictures"),
        ("headless", "cut off"),
    ],
)
def test_what_cannot_be_opened_is_explained_in_one_sentence(tmp_path: Path, kind: str, problem: str) -> None:
    path = unopenable(tmp_path, kind)
    with pytest.raises(SourceError, match=problem) as caught:
        open_video(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_readable_picture_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", stepping(64, 48, 3), container_options={"movflags": "faststart"})
    data = path.read_bytes()
    at = data.index(b"mdat") + 4
    path.write_bytes(data[:at] + bytes(len(data) - at))
    with pytest.raises(SourceError, match="no picture in this file can be decoded"):
        read(path)


@pytest.mark.data
def test_real_video(data_dir: Path) -> None:
    frames, source = read(data_dir / "media" / "WolfgangLanger_Pexels.mp4")
    assert len(frames) == 472
    assert [frame.t for frame in frames] == pytest.approx([n * float(Fraction(1001, 24_000)) for n in range(472)], abs=1e-4)
    assert source.problem is None


@pytest.mark.data
def test_leading_pictures_hidden_by_an_edit_list_are_no_problem(data_dir: Path) -> None:
    frames, source = read(data_dir / "media" / "no_face.mp4")
    assert len(frames) == 95
    assert frames[0].t == 0
    assert source.problem is None


@pytest.mark.parametrize(("size", "threads"), [((640, 360), 1), ((1280, 720), 1), ((1920, 1080), 0)])
def test_large_pictures_are_decoded_on_all_cores(size: tuple[int, int], threads: int) -> None:
    assert decoder_threads(size[0] * size[1]) == threads


def test_reading_goes_on_at_a_key_picture_before_a_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", stepping(64, 48, 60), rate=25, options={"g": "10", "sc_threshold": "0"})
    with open_video(path) as source:
        source.seek(1.0)
        frames = list(source)
        assert (frames[0].index, frames[0].t, len(frames)) == (0, pytest.approx(0.8), 40)
        source.seek(-5.0)
        assert next(iter(source)).t == 0.0


def test_where_stamps_are_in_the_order_of_storage_there_is_no_seeking(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "clip.avi", 40, codec="mpeg4", options={"bf": "2"})
    with open_video(path) as source, pytest.raises(SourceError, match="order of storage"):
        source.seek(1.0)
