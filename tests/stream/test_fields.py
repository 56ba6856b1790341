from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from stream.fields import Deinterlacer
from stream.source import open_video
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
