from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from engine.errors import InputError, OutputError, SourceError
from engine.types import Event, Face
from stream.recorded.analyze import analyze
from stream.recorded.annotated.output import AnnotatedVideo
from stream.recorded.annotated.strip import PANEL, Layout
from stream.recorded.colours import colour_of
from stream.sources.file import open_video
from tests.browser import chromium
from tests.events import an_event
from tests.stream.recorded.annotated.test_spool import a_face, unregistered
from tests.stream.recorded.annotated.test_strip import columns_like
from tests.videos import Picture, read_flashes, stepping, write_flashes, write_video

ROOT = Path(__file__).resolve().parents[4]
TIMES = [k / 30 for k in range(75)]
FLASHES = [TIMES[15], TIMES[60]]


SEEK = """(video, { t, expected }) => new Promise(done => {
    const shown = (now, { mediaTime }) => {
        if (Math.abs(mediaTime - expected) < 0.002) done(mediaTime);
        else video.requestVideoFrameCallback(shown);
    };
    video.requestVideoFrameCallback(shown);
    setTimeout(() => done(`nothing but other pictures than that of ${expected} s`), 20000);
    video.currentTime = t;
})"""
"""Shows the picture of a moment, and answers with its time."""


def pictures_of(path: Path) -> list[Picture]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def annotated(video: Path, folder: Path, faces: Sequence[Face] = (), events: Sequence[Event] = (), **options: Any) -> Path:
    """The video that comes of one with these faces in each frame and these events."""
    folder.mkdir(exist_ok=True)
    output = AnnotatedVideo(video, folder, **options)
    try:
        with open_video(video) as source:
            for frame in source:
                output.frame(frame, faces, [unregistered(face) for face in faces], source.origin)
        for event in events:
            output.event(event, source.origin)
        output.finish({"problem": None, "video": {"clock_restarts": []}})
    finally:
        output.close()
    return folder / "annotated.mp4"


def test_a_rendered_face_is_annotated(rendered_clip: Path, tmp_path: Path) -> None:
    report = analyze(rendered_clip, tmp_path, outputs=[AnnotatedVideo(rendered_clip, tmp_path)])
    made = tmp_path / "annotated.mp4"
    assert times_of(made) == pytest.approx(times_of(rendered_clip), abs=2e-5)
    layout, pictures = Layout.of(640, 360, 1), pictures_of(made)
    originals = pictures_of(rendered_clip)
    assert pictures[0].shape == (layout.whole, 640, 3)
    event = report.events[0]
    lane = pictures[event.apex.frame][layout.height : layout.height + layout.lane]
    assert columns_like(lane, colour_of(event.label))
    drawn = np.abs(pictures[event.apex.frame][:360].astype(int) - originals[event.apex.frame]).mean(axis=2) > 40
    assert 0.005 < drawn.mean() < 0.2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_label_is_shown_from_onset_to_offset_though_it_is_known_later(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", stepping(320, 240, 60))
    event = an_event(1, label="surprise")
    made = annotated(video, tmp_path / "out", [a_face(0)], [event])
    shown = [bool(columns_like(picture[64:96], colour_of("surprise"), 24)) for picture in pictures_of(made)]
    assert event.offset is not None
    assert shown == [event.onset.frame <= k <= event.offset.frame for k in range(60)]


@pytest.mark.parametrize(
    ("name", "sound", "start", "heard_from"),
    [
        ("a.mp4", "aac", 0.0, 0.4),
        ("a.ts", "aac", 36_000.0, 0.2),
        ("a.mov", "pcm_s16le", 0.0, 0.3),
        ("a.mkv", "flac", 7.5, -0.2),
    ],
)
def test_pictures_and_sound_are_in_sync_and_start_at_0(
    name: str, sound: str, start: float, heard_from: float, tmp_path: Path
) -> None:
    video = write_flashes(tmp_path / name, TIMES, FLASHES, sound=sound, start=start, heard_from=heard_from)
    made = annotated(video, tmp_path / "out")
    seen, heard = read_flashes(made)
    origin = start + min(0.0, heard_from)
    assert seen == pytest.approx([start + flash - origin for flash in FLASHES], abs=0.002)
    assert heard == pytest.approx(seen, abs=0.02)
    with av.open(str(made)) as container:
        assert container.start_time == pytest.approx(0, abs=2000)


def test_pictures_and_sound_are_in_sync_where_time_stamps_restart(tmp_path: Path) -> None:
    first = write_flashes(tmp_path / "a.ts", TIMES, FLASHES, start=50.0)
    second = write_flashes(tmp_path / "b.ts", TIMES, FLASHES, start=3.0)
    (tmp_path / "joined.ts").write_bytes(first.read_bytes() + second.read_bytes())
    folder = tmp_path / "out"
    report = analyze(tmp_path / "joined.ts", folder, outputs=[AnnotatedVideo(tmp_path / "joined.ts", folder)])
    assert len(report.summary["video"]["clock_restarts"]) == 1
    seen, heard = read_flashes(folder / "annotated.mp4")
    assert np.diff(seen) == pytest.approx([1.5, 1.0, 1.5], abs=0.002)
    assert heard == pytest.approx(seen, abs=0.02)


def test_a_browser_plays_it_with_its_sound_and_finds_each_moment(tmp_path: Path) -> None:
    video = write_flashes(tmp_path / "a.mov", TIMES, FLASHES, sound="pcm_s16le", heard_from=0.3)
    made = annotated(video, tmp_path / "out")
    with sync_playwright() as driver, chromium(driver, "--autoplay-policy=no-user-gesture-required") as browser:
        page = browser.new_page(viewport={"width": 160, "height": 160})
        page.goto(made.as_uri())
        player = page.locator("video")
        page.wait_for_function("() => document.querySelector('video').readyState >= 2")
        assert player.evaluate("video => video.duration") == pytest.approx(2.5, abs=0.05)
        for number in (14, 15, 59, 60):
            shown = player.evaluate(SEEK, {"t": TIMES[number] + 0.01, "expected": TIMES[number]})
            assert shown == pytest.approx(TIMES[number], abs=0.002)
        player.evaluate("video => new Promise(done => { video.onended = done; video.currentTime = 2.2; video.play(); })")
        assert player.evaluate("video => [video.error, video.webkitAudioDecodedByteCount > 0]") == [None, True]


def test_an_uneven_rate_keeps_its_times(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(1).uniform(0.01, 0.08, 60)).tolist()
    video = write_flashes(tmp_path / "a.mkv", times, [times[10], times[40]], sound="libopus")
    made = annotated(video, tmp_path / "out")
    assert times_of(made) == pytest.approx(times_of(video), abs=2e-5)
    seen, heard = read_flashes(made)
    assert heard == pytest.approx(seen, abs=0.02)


def test_rotation_is_applied_and_odd_sizes_are_padded(tmp_path: Path) -> None:
    turned = write_video(tmp_path / "t.mp4", stepping(160, 120, 4), rotation=90)
    picture = pictures_of(annotated(turned, tmp_path / "turned"))[0]
    assert picture.shape[1] == 120 and picture[150, 40:55].mean() > 200, "the white corner is at the bottom left"
    odd = write_video(tmp_path / "o.mkv", [np.full((121, 161, 3), 200, np.uint8)] * 4, codec="ffv1", pix_fmt="bgr0")
    picture = pictures_of(annotated(odd, tmp_path / "odd"))[0]
    assert picture.shape[1] == 162 and picture.shape[0] % 2 == 0
    assert np.abs(picture[:122].astype(int) - 200).max() < 12


def test_a_size_that_changes_is_shown_in_the_largest(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", stepping(160, 120, 4))
    folder, output = tmp_path / "out", AnnotatedVideo(video, tmp_path / "out")
    folder.mkdir()
    with open_video(video) as source:
        for frame in source:
            output.frame(frame, [], [], 0.0)
    output._size = (320, 240)
    output.finish({"problem": None, "video": {"clock_restarts": []}})
    output.close()
    picture = pictures_of(folder / "annotated.mp4")[0]
    assert picture.shape[1] == 320
    assert picture[:50].max() < 20 and picture[190, 90].min() < 100 < picture[100, 100].max()


def test_a_truncated_file_is_annotated_as_far_as_it_goes(tmp_path: Path) -> None:
    video = write_video(tmp_path / "long.mp4", stepping(320, 240, 120), container_options={"movflags": "faststart"})
    data = video.read_bytes()
    video.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    report = analyze(video, tmp_path / "out", outputs=[AnnotatedVideo(video, tmp_path / "out")])
    assert report.problem is not None
    assert len(times_of(tmp_path / "out" / "annotated.mp4")) == report.summary["video"]["frames"]


def test_the_second_pass_says_how_far_it_is(tmp_path: Path) -> None:
    video, seen = write_video(tmp_path / "a.mp4", stepping(64, 48, 5)), []
    annotated(video, tmp_path / "out", progress=lambda done, count: seen.append((done, count)))
    assert seen == [(k, 5) for k in range(1, 6)]


def test_stopping_the_analysis_leaves_no_video(tmp_path: Path) -> None:
    video, stop = write_video(tmp_path / "a.mp4", stepping(64, 48, 5)), threading.Event()
    stop.set()
    assert not annotated(video, tmp_path / "out", stop=stop).exists()


def test_stopping_the_second_pass_leaves_no_video_and_says_so(tmp_path: Path) -> None:
    video, stop = write_video(tmp_path / "a.mp4", stepping(64, 48, 5)), threading.Event()
    with pytest.raises(OutputError, match=r"annotated\.mp4 is not written: stopped by the user"):
        annotated(video, tmp_path / "out", stop=stop, progress=lambda done, _: stop.set() if done == 3 else None)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_an_earlier_run_left_is_removed(tmp_path: Path) -> None:
    video, folder = write_video(tmp_path / "a.mp4", stepping(64, 48, 5)), tmp_path / "out"
    (folder / ".annotated.mp4.killed").mkdir(parents=True)
    (folder / ".annotated.mp4.killed" / "annotated.mp4").touch()
    (folder / "annotated.mp4").touch()
    with pytest.raises(ValueError, match="stop here"):
        annotated(video, folder, progress=stop_here)
    assert list(folder.iterdir()) == []


def stop_here(done: int, count: int) -> None:
    raise ValueError("stop here")


def test_a_video_that_is_gone_or_shorter_by_then_is_reported(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", stepping(64, 48, 5))
    folder, output = tmp_path / "out", AnnotatedVideo(video, tmp_path / "out")
    folder.mkdir()
    with open_video(video) as source:
        for frame in source:
            output.frame(frame, [], [], 0.0)
    write_video(video, stepping(64, 48, 3))
    with pytest.raises(SourceError, match="2 of 5 pictures could not be read again"):
        output.finish({"problem": None, "video": {"clock_restarts": []}})
    video.unlink()
    with pytest.raises(SourceError, match="there is no such file"):
        output.finish({"problem": None, "video": {"clock_restarts": []}})
    output.close()
    assert list(folder.iterdir()) == []


def test_what_can_be_read_only_once_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ts")
    with pytest.raises(InputError, match="can be read only once, so it cannot be annotated; leave out --annotate"):
        AnnotatedVideo(tmp_path / "pipe.ts", tmp_path)


def test_a_full_disk_is_reported_and_leaves_no_half_video(tmp_path: Path) -> None:
    """A limit on file size in a process of its own stands for the disk: the kernel refuses the same write with an error."""
    write_video(tmp_path / "a.mp4", [np.random.default_rng(k).integers(0, 255, (120, 160, 3), np.uint8) for k in range(30)])
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from engine.errors import OutputError; from tests.stream.recorded.annotated.test_output import annotated\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n    annotated(folder / 'a.mp4', folder / 'out')\nexcept OutputError as error: print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == f"{tmp_path / 'out' / 'annotated.mp4'} cannot be written: file too large\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_drawn_where_there_is_no_face(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", [np.full((120, 160, 3), 128, np.uint8)] * 3)
    picture = pictures_of(annotated(video, tmp_path / "out"))[0]
    assert np.abs(picture[:118].astype(int) - 128).max() < 6
    assert columns_like(picture[122:], PANEL)
