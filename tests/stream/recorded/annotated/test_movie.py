from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from stream.recorded.annotated.movie import Colours, Movie
from stream.recorded.annotated.sound import OutputClock, Sound
from tests.videos import stepping, write_video


def silent(tmp_path: Path) -> Sound:
    return Sound(tmp_path / "none.mp4", OutputClock(0.0))


def picture(level: int) -> np.ndarray:
    return np.full((72, 64), level, np.uint8)


def test_each_picture_keeps_its_time(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.1, 0.1333, 2.5, 2.5417]
    with Movie(tmp_path / "a.mp4", silent(tmp_path), (64, 48), 25, Colours()) as movie:
        for number, t in enumerate(times):
            movie.write(picture(40 + 30 * number), t, 0.04)
        movie.finish(3.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        track = container.streams.video[0]
        frames = list(container.decode(track))
        assert [frame.time for frame in frames] == pytest.approx(times, abs=2e-5)
        assert [round(float(frame.to_ndarray()[:48].mean()), -1) for frame in frames] == [40, 70, 100, 130, 160, 190]
        assert (track.codec_context.name, track.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert track.duration * track.time_base == pytest.approx(2.5417 + 0.04, abs=1e-3)


def test_the_index_comes_before_the_pictures(tmp_path: Path) -> None:
    with Movie(tmp_path / "a.mp4", silent(tmp_path), (64, 48), 25, Colours()) as movie:
        movie.write(picture(100), 0.0, 0.04)
        movie.finish(1.0)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_there_are_pictures_to_jump_to(tmp_path: Path) -> None:
    with Movie(tmp_path / "a.mp4", silent(tmp_path), (64, 48), 10, Colours()) as movie:
        for number in range(60):
            movie.write(picture(100), number / 10, 0.1)
        movie.finish(6.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = [packet.pts * packet.time_base for packet in container.demux(video=0) if packet.is_keyframe and packet.size]
    assert [float(key) for key in keys] == pytest.approx([0, 2, 4])


def test_colours_are_meant_as_in_the_original(tmp_path: Path) -> None:
    original = write_video(
        tmp_path / "o.mp4", stepping(64, 48, 3), pix_fmt="yuvj420p", options={"x264-params": "colormatrix=bt709"}
    )
    with av.open(str(original)) as container:
        context = container.streams.video[0].codec_context
        kept, converted = Colours.of(context, kept=True), Colours.of(context, kept=False)
    assert (kept.range, kept.space) == (2, 1) and converted.range == 1
    with Movie(tmp_path / "a.mp4", silent(tmp_path), (64, 48), 25, kept) as movie:
        movie.write(picture(100), 0.0, 0.04)
        movie.finish(1.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_range, context.colorspace) == (2, 1)


def test_what_failed_is_raised_and_not_the_closing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="drawing failed"),
        Movie(tmp_path / "a.mp4", silent(tmp_path), (64, 48), 25, Colours()),
    ):
        raise ValueError("drawing failed")
