from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stream.sources.fields import Deinterlacer, Weave
from stream.sources.file import open_video
from tests.videos import Picture, write_video

STEP = 6
"""Pixels that the bar moves from field to field."""


def bar(moment: int) -> Picture:
    """[120, 320, 3]: a bar on grey, somewhere else at each moment."""
    picture = np.full((120, 320, 3), 60, np.uint8)
    picture[:, 20 + STEP * moment : 70 + STEP * moment] = 200
    return picture


def woven(number: int) -> Picture:
    """A picture of two fields: even lines of one moment, odd lines of the next."""
    picture = bar(2 * number)
    picture[1::2] = bar(2 * number + 1)[1::2]
    return picture


def combing(luma: Picture) -> float:
    """How much lines differ from those beside them more than from those of their own field, mean grey levels."""
    lines = luma.astype(np.float64)
    return float((np.abs(lines[1:-2] - lines[2:-1]) - np.abs(lines[1:-2] - lines[3:])).mean())


def write_woven(path: Path, count: int = 16, height: int = 120) -> Path:
    pictures = (woven(number)[:height] for number in range(count))
    return write_video(path, pictures, rate=25, options={"x264-params": "interlaced=1:tff=1", "crf": "12"})


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_interlaced_video_comes_without_combs_and_at_its_times(tmp_path: Path, container: str) -> None:
    with open_video(write_woven(tmp_path / f"fields.{container}")) as video:
        frames = list(video)
    assert len(frames) == 16
    assert np.diff([frame.t for frame in frames]) == pytest.approx([0.04] * 15, abs=1e-3)
    assert combing(woven(3)[..., 0]) > 3
    assert max(combing(frame.grey) for frame in frames) < 1
    assert video.facts.warnings == ("16 pictures interlaced; they were deinterlaced (yadif)",)


def moving(number: int) -> av.VideoFrame:
    """A whole picture [240, 320] of texture that moves."""
    return as_frame(np.roll(TEXTURE, 2 * number, axis=1))


def fields_of(number: int) -> av.VideoFrame:
    """The same, of two moments."""
    picture = np.roll(TEXTURE, 2 * number, axis=1)
    picture[1::2] = np.roll(TEXTURE, 2 * number + 1, axis=1)[1::2]
    return as_frame(picture)


def as_frame(grey: Picture) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.dstack([grey] * 3), format="rgb24").reformat(format="yuv420p")


GRAIN = np.random.default_rng(2).normal(0, 1, (240, 320)).astype(np.float32)
TEXTURE: Picture = np.clip(120 + 400 * cv2.GaussianBlur(GRAIN, (0, 0), 4), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("make", "found"), [(moving, False), (fields_of, True)])
def test_pictures_of_two_moments_are_found_without_a_flag(make: Callable[[int], av.VideoFrame], found: bool) -> None:
    weave = Weave()
    for number in range(60):
        weave.look(make(number))
    assert weave.found is found


def noisy(grey: Picture, sigma: float, seed: int) -> av.VideoFrame:
    """The picture with a sensor's noise of so many grey levels in each pixel."""
    rng = np.random.default_rng(seed)
    return as_frame(np.clip(grey + rng.normal(0, sigma, grey.shape), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("sigma", [5, 8, 12, 20])
def test_noise_is_no_interlacing(sigma: float) -> None:
    weave = Weave()
    for number in range(120):
        weave.look(noisy(TEXTURE, sigma, number))
        assert not weave.found


@pytest.mark.parametrize("sigma", [5, 8])
@pytest.mark.parametrize("woven", [False, True])
def test_noise_hides_neither_kind(sigma: float, woven: bool) -> None:
    weave = Weave()
    for number in range(120):
        picture = np.roll(TEXTURE, 2 * number, axis=1)
        if woven:
            picture[1::2] = np.roll(TEXTURE, 2 * number + 1, axis=1)[1::2]
        weave.look(noisy(picture, sigma, number))
    assert weave.found is woven


def test_what_was_found_is_asked_again() -> None:
    weave = Weave()
    found = []
    for make in (fields_of, moving, fields_of):
        pictures = [make(number) for number in range(61)]
        for picture in pictures * 25:
            weave.look(picture)
        found.append(weave.found)
    assert found == [True, False, True]


def test_what_is_found_is_made_whole() -> None:
    fields, whole = Deinterlacer(), []
    for number in range(60):
        picture = fields_of(number)
        picture.pts, picture.time_base = number, Fraction(1, 25)
        whole += [(shown.time, shown) for shown in fields.take(picture)]
    whole += [(shown.time, shown) for shown in fields.flush()]
    assert [t for t, _ in whole] == pytest.approx([number / 25 for number in range(60)])
    assert 40 < fields.woven < 60
    assert combing(whole[-1][1].to_ndarray(format="gray")) < combing(fields_of(59).to_ndarray(format="gray")) - 1


def test_whole_pictures_pass_at_once_and_untouched() -> None:
    fields = Deinterlacer()
    picture = av.VideoFrame.from_ndarray(woven(0), format="rgb24").reformat(format="yuv420p")
    assert list(fields.take(picture)) == [picture]
    assert list(fields.flush()) == []
    assert fields.interlaced == 0


def test_a_size_that_changes_loses_no_picture(tmp_path: Path) -> None:
    fields, shown = Deinterlacer(), []
    for height in (120, 64):
        with av.open(str(write_woven(tmp_path / f"{height}.mp4", 3, height))) as container:
            for picture in container.decode(video=0):
                shown += [(whole.height, whole.time) for whole in fields.take(picture)]
    shown += [(whole.height, whole.time) for whole in fields.flush()]
    assert shown == [(120, 0), (120, 0.04), (120, 0.08), (64, 0), (64, 0.04), (64, 0.08)]
