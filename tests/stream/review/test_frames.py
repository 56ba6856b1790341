from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import SourceError
from engine.types import F64, Frame, Mark
from stream.recorded.results import Results, read_results
from stream.review import frames as frames_module
from stream.review.database import ReviewDatabase
from stream.review.frames import FrameReader, frame_times
from stream.sources.file import open_video
from tests.review import events_at, results_of, write_plain, write_results, write_strobing

VIDEOS = {
    "h264.mp4": {},
    "few key pictures.mp4": {"options": {"g": "1000", "sc_threshold": "0"}},
    "hevc.mkv": {"codec": "libx265", "pix_fmt": "yuv422p10le"},
    "motion jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "stamps in the order of storage.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg1.mpg": {"codec": "mpeg1video", "options": {"bf": "2"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "no stamps.h264": {},
    "windows.wmv": {"codec": "wmv2"},
    "web.webm": {"codec": "libvpx", "options": {"deadline": "realtime"}},
}


MARKS = {"onset": 0, "apex": 6, "offset": 12}


def as_analysed(video: Path) -> list[Frame]:
    with open_video(video) as source:
        return list(source)


def read_times(video: Path, results: Path) -> F64:
    with ReviewDatabase.open(results) as database:
        return frame_times(video, read_results(results), database, lambda share: None)


@pytest.mark.parametrize("name", VIDEOS)
def test_any_frame_of_any_video_is_the_one_that_was_analysed(name: str, tmp_path: Path) -> None:
    video = write_plain(tmp_path / name, 200, **VIDEOS[name])
    analysed = as_analysed(video)
    times = read_times(video, results_of(video, tmp_path / "results", [10, 150]))
    assert times.tolist() == [frame.t for frame in analysed]
    reader = FrameReader(video, times)
    for first, last in ((120, 130), (131, 140), (20, 26), (0, 3), (190, 250), (60, 61)):
        read = list(reader.read(first, last))
        assert [frame.index for frame in read] == list(range(first, min(last, len(analysed) - 1) + 1))
        assert all(np.array_equal(frame.grey, analysed[frame.index].grey) for frame in read), (first, last)
    reader.close()


def test_times_are_kept_until_the_video_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_plain(tmp_path / "clip.mp4", 60)
    results = results_of(video, tmp_path / "results", [10])
    found = read_times(video, results)
    with monkeypatch.context() as context:
        context.setattr(frames_module, "packet_times", lambda *_: pytest.fail("the video was read again"))
        assert np.array_equal(read_times(video, results), found)
    write_plain(video, 61)
    assert len(read_times(video, results)) == 61


def test_another_video_is_refused(tmp_path: Path) -> None:
    video = write_plain(tmp_path / "clip.mp4", 60)
    results = results_of(video, tmp_path / "results", [40])
    with pytest.raises(SourceError, match="is not the video that was analysed"):
        read_times(write_plain(tmp_path / "other.mp4", 45), results)
    with pytest.raises(SourceError, match=r"it has 90 frames instead of 60"):
        read_times(write_plain(tmp_path / "longer.mp4", 90), results)
    with pytest.raises(SourceError, match=r"no such file.*--video"):
        read_times(tmp_path / "missing.mp4", results)


def test_a_video_with_pictures_of_another_size_is_refused(tmp_path: Path) -> None:
    """As the annotated video of the same results, whose frames have the same times."""
    video = write_plain(tmp_path / "clip.mp4", 60)
    results = results_of(video, tmp_path / "results", [40])
    with pytest.raises(
        SourceError, match="is not the video that was analysed: its pictures have 160 x 160 pixels instead of 160 x 120"
    ):
        read_times(write_plain(tmp_path / "annotated.mp4", 60, height=160), results)


@pytest.mark.parametrize("name", ["clip.mp4", "no stamps.h264"])
def test_pictures_after_them_stand_for_dark_ones_between_flashes(name: str, tmp_path: Path) -> None:
    video = write_strobing(tmp_path / name, 120)
    analysed = {frame.index: frame for frame in as_analysed(video)}
    assert 60 in analysed and 61 not in analysed
    events = [
        replace(event, **{mark: Mark(60 + more, round(analysed[60 + more].t, 6)) for mark, more in MARKS.items()})
        for event in events_at([60])
    ]
    with open_video(video) as source:
        assert len(list(source)) == len(analysed)
        results = write_results(tmp_path / "results", events, video=video, **asdict(source.facts))
    times = read_times(video, results)
    assert 119 <= len(times) <= 120 and np.all(np.diff(times) > 0)
    reader = FrameReader(video, times)
    for first in (48, 72, 24):
        read = list(reader.read(first, first + 23))
        assert [frame.index for frame in read] == list(range(first, first + 24))
        assert [frame.t for frame in read] == times[first : first + 24].tolist()
        shown = [analysed[index] if index in analysed else analysed[index + 1] for index in range(first, first + 24)]
        assert all(np.array_equal(one.grey, other.grey) for one, other in zip(read, shown, strict=True))
    reader.close()


def test_progress_is_told_while_the_video_is_decoded(tmp_path: Path) -> None:
    video = write_plain(tmp_path / "no stamps.h264", 250)
    results: Results = read_results(results_of(video, tmp_path / "results", [10]))
    shares: list[float] = []
    with ReviewDatabase.open(results.folder) as database:
        frame_times(video, results, database, shares.append)
    assert shares == [0.4, 0.8]


def test_a_video_cut_off_since_is_reported(tmp_path: Path) -> None:
    video = write_plain(tmp_path / "clip.mp4", 60)
    times = np.array([frame.t for frame in as_analysed(video)])
    reader = FrameReader(video, np.append(times, times[-1] + 0.04))
    with pytest.raises(SourceError, match="ends before frame 60"):
        list(reader.read(50, 60))
    assert not reader.seekable


def test_frames_that_the_analysis_skipped_are_skipped(tmp_path: Path) -> None:
    """As the dark pictures of a camera with a strobing light."""
    video = write_plain(tmp_path / "clip.mp4", 60, options={"g": "10"})
    analysed = [replace(frame, index=number) for number, frame in enumerate(as_analysed(video)[::2])]
    reader = FrameReader(video, np.array([frame.t for frame in analysed]))
    read = list(reader.read(12, 20))
    assert [frame.index for frame in read] == list(range(12, 21))
    assert all(np.array_equal(frame.grey, analysed[frame.index].grey) for frame in read)
