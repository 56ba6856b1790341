from __future__ import annotations

import gc
from pathlib import Path

import av
import numpy as np
import pytest

import stream.sources.decoding
from stream.sources.clock import SourceClock
from stream.sources.decoding import STROBE_WINDOW, Decoding, StrobeDetector, picture_track, rate_of
from tests.faces import grey_picture
from tests.videos import quadrants, stepping, write_tone, write_video


def test_frames_come_in_order_and_are_counted(tmp_path: Path) -> None:
    with av.open(str(write_video(tmp_path / "clip.mp4", stepping(64, 48, 12), rate=25))) as container:
        track = picture_track(container)
        assert track is not None
        assert rate_of(track) == 25
        decoding = Decoding(container, track, SourceClock(1 / 25))
        frames = list(decoding)
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.t for frame in frames] == pytest.approx([n / 25 for n in range(12)])
    assert (decoding.frames, decoding.errors, decoding.damaged, decoding.failure) == (12, 0, 0, None)
    assert (decoding.start, decoding.end, decoding.size, decoding.pixel_format) == (0, frames[-1].t, (64, 48), "yuv420p")
    assert decoding.finished
    assert decoding.packets >= 12


def test_a_file_cut_off_is_read_and_its_damage_counted(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "clip.mp4", list(noise), container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with av.open(str(path)) as container:
        track = picture_track(container)
        assert track is not None
        decoding = Decoding(container, track, SourceClock(1 / 30))
        frames = list(decoding)
    assert 5 < len(frames) < 40
    assert decoding.errors > 0


def test_pictures_beyond_the_limit_are_refused_by_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.sources.decoding, "MAX_PIXELS", 64 * 48 - 1)
    with av.open(str(write_video(tmp_path / "clip.mp4", stepping(64, 48, 12), rate=25))) as container:
        track = picture_track(container)
        assert track is not None
        decoding = Decoding(container, track, SourceClock(1 / 25))
        assert list(decoding) == []
    assert decoding.too_large
    assert decoding.packets == 0, "not a packet is read"


def test_a_decoder_allocates_no_picture_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.sources.decoding, "LIMITS", {"max_pixels": str(64 * 48 - 1)})
    path = write_video(tmp_path / "clip.avi", stepping(64, 48, 12), codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        track = picture_track(container)
        assert track is not None
        decoding = Decoding(container, track, SourceClock(1 / 25))
        assert list(decoding) == []
    assert decoding.errors >= 1


def test_sound_and_covers_are_no_video_tracks(tmp_path: Path) -> None:
    with av.open(str(write_tone(tmp_path / "tone.m4a"))) as container:
        assert picture_track(container) is None
    with av.open(str(write_video(tmp_path / "one.mp4", [quadrants(64, 48)] * 2))) as container:
        track = picture_track(container)
        assert track is not None
        track.disposition = av.stream.Disposition.attached_pic
        assert picture_track(container) is None


def test_the_memory_of_decoded_pictures_is_freed_at_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", stepping(64, 48, 60), codec="mjpeg", pix_fmt="yuvj420p")
    gc.collect()
    gc.disable()
    try:
        with av.open(str(path)) as container:
            track = picture_track(container)
            assert track is not None
            assert len(list(Decoding(container, track, SourceClock(1 / 30)))) == 60
            assert sum(type(one) is av.VideoFrame for one in gc.get_objects()) < 10
    finally:
        gc.enable()


def dark(levels: list[int]) -> list[bool]:
    strobe = StrobeDetector()
    found = [strobe.is_dark(grey_picture(48, 64, level)[..., 0]) for level in levels]
    assert strobe.unlit == sum(found)
    return found


@pytest.mark.parametrize("every", [2, 3, 4])
def test_pictures_between_flashes_are_dark(every: int) -> None:
    levels = [120 if number % every == 0 else 8 for number in range(60)]
    found = dark(levels)[2 * STROBE_WINDOW :]
    assert found == [level == 8 for level in levels[2 * STROBE_WINDOW :]]


def test_a_light_that_stays_on_after_strobing_leaves_no_picture_dark() -> None:
    assert not any(dark([120, 8] * 20 + [120] * 30)[40:])


@pytest.mark.parametrize(
    "levels",
    [
        [100] * 60,
        [100] * 30 + [10] * 30,  # switched off
        [60 + 40 * (number % 2) for number in range(60)],  # flicker
        list(np.linspace(200, 5, 60, dtype=int)),
        ([100] * 10 + [10] * 10) * 3,  # a slow blink
    ],
)
def test_other_changes_of_light_leave_no_picture_dark(levels: list[int]) -> None:
    assert not any(dark(levels))
