from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stream.sources.deinterlace import Deinterlacer, InterlaceDetector
from stream.sources.file import open_video
from tests.videos import Picture, write_video

STEP = 6
"""Pixels that the bar moves from field to field."""


def bar(moment: int) -> Picture:
    """[120, 320, 3]: a bar on grey, at another place at each moment."""
    picture = np.full((120, 320, 3), 60, np.uint8)
    picture[:, 20 + STEP * moment : 70 + STEP * moment] = 200
    return picture


def interlaced(number: int) -> Picture:
    """A picture of two fields: even lines of one moment, odd lines of the next."""
    picture = bar(2 * number)
    picture[1::2] = bar(2 * number + 1)[1::2]
    return picture


def combing(luma: Picture) -> float:
    """How much more lines differ from adjacent ones than from those of their own field, mean grey levels."""
    lines = luma.astype(np.float64)
    return float((np.abs(lines[1:-2] - lines[2:-1]) - np.abs(lines[1:-2] - lines[3:])).mean())


def write_interlaced(path: Path, count: int = 16, height: int = 120) -> Path:
    pictures = (interlaced(number)[:height] for number in range(count))
    return write_video(path, pictures, rate=25, options={"x264-params": "interlaced=1:tff=1", "crf": "12"})


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_interlaced_video_is_deinterlaced_and_keeps_its_times(tmp_path: Path, container: str) -> None:
    with open_video(write_interlaced(tmp_path / f"fields.{container}")) as video:
        frames = list(video)
    assert len(frames) == 16
    assert np.diff([frame.t for frame in frames]) == pytest.approx([0.04] * 15, abs=1e-3)
    assert combing(interlaced(3)[..., 0]) > 3
    assert max(combing(frame.grey) for frame in frames) < 1
    assert video.facts.warnings == ("16 pictures interlaced; they were deinterlaced (yadif)",)


def moving(number: int) -> av.VideoFrame:
    """A progressive picture [240, 320] of texture that moves."""
    return as_frame(np.roll(TEXTURE, 2 * number, axis=1))


def fields_of(number: int) -> av.VideoFrame:
    """The same, its fields of two moments."""
    picture = np.roll(TEXTURE, 2 * number, axis=1)
    picture[1::2] = np.roll(TEXTURE, 2 * number + 1, axis=1)[1::2]
    return as_frame(picture)


def as_frame(grey: Picture) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.dstack([grey] * 3), format="rgb24").reformat(format="yuv420p")


GRAIN = np.random.default_rng(2).normal(0, 1, (240, 320)).astype(np.float32)
TEXTURE: Picture = np.clip(120 + 400 * cv2.GaussianBlur(GRAIN, (0, 0), 4), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("make", "expected"), [(moving, False), (fields_of, True)])
def test_interlacing_is_detected_without_a_flag(make: Callable[[int], av.VideoFrame], expected: bool) -> None:
    detector = InterlaceDetector()
    for number in range(60):
        detector.update(make(number))
    assert detector.interlaced is expected


def noisy(grey: Picture, sigma: float, seed: int) -> av.VideoFrame:
    """The picture with a sensor's noise of so many grey levels in each pixel."""
    rng = np.random.default_rng(seed)
    return as_frame(np.clip(grey + rng.normal(0, sigma, grey.shape), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("sigma", [5, 8, 12, 20])
def test_noise_is_not_taken_for_interlacing(sigma: float) -> None:
    detector = InterlaceDetector()
    for number in range(120):
        detector.update(noisy(TEXTURE, sigma, number))
        assert not detector.interlaced


@pytest.mark.parametrize("sigma", [5, 8])
@pytest.mark.parametrize("interlaced_", [False, True])
def test_detection_works_in_noise(sigma: float, interlaced_: bool) -> None:
    detector = InterlaceDetector()
    for number in range(120):
        picture = np.roll(TEXTURE, 2 * number, axis=1)
        if interlaced_:
            picture[1::2] = np.roll(TEXTURE, 2 * number + 1, axis=1)[1::2]
        detector.update(noisy(picture, sigma, number))
    assert detector.interlaced is interlaced_


def test_detection_follows_changes() -> None:
    detector = InterlaceDetector()
    found = []
    for make in (fields_of, moving, fields_of):
        pictures = [make(number) for number in range(61)]
        for picture in pictures * 25:
            detector.update(picture)
        found.append(detector.interlaced)
    assert found == [True, False, True]


def test_unflagged_interlaced_pictures_are_deinterlaced() -> None:
    deinterlacer, whole = Deinterlacer(), []
    for number in range(60):
        picture = fields_of(number)
        picture.pts, picture.time_base = number, Fraction(1, 25)
        whole += [(shown.time, shown) for shown in deinterlacer.take(picture)]
    whole += [(shown.time, shown) for shown in deinterlacer.flush()]
    assert [t for t, _ in whole] == pytest.approx([number / 25 for number in range(60)])
    assert 40 < deinterlacer.unflagged < 60
    assert combing(whole[-1][1].to_ndarray(format="gray")) < combing(fields_of(59).to_ndarray(format="gray")) - 1


def test_progressive_pictures_pass_at_once_and_unchanged() -> None:
    deinterlacer = Deinterlacer()
    picture = av.VideoFrame.from_ndarray(interlaced(0), format="rgb24").reformat(format="yuv420p")
    assert list(deinterlacer.take(picture)) == [picture]
    assert list(deinterlacer.flush()) == []
    assert deinterlacer.interlaced == 0


def test_no_picture_is_lost_when_the_size_changes(tmp_path: Path) -> None:
    deinterlacer, shown = Deinterlacer(), []
    for height in (120, 64):
        with av.open(str(write_interlaced(tmp_path / f"{height}.mp4", 3, height))) as container:
            for picture in container.decode(video=0):
                shown += [(whole.height, whole.time) for whole in deinterlacer.take(picture)]
    shown += [(whole.height, whole.time) for whole in deinterlacer.flush()]
    assert shown == [(120, 0), (120, 0.04), (120, 0.08), (64, 0), (64, 0.04), (64, 0.08)]
