from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream.sources.file import open_video
from stream.sources.packets import packet_times
from tests.videos import stepping, write_video


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_the_times_are_those_of_the_frames(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, stepping(64, 48, 60), options={"bf": "3", "g": "12", "sc_threshold": "0"})
    times = packet_times(path)
    with open_video(path) as source:
        decoded = [frame.t for frame in source]
    assert times is not None
    assert times.all == pytest.approx(decoded, abs=2e-6)
    assert np.all(np.diff(times.all) > 0)
    assert times.key == pytest.approx(times.all[::12], abs=2e-6)


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    given = [0.5, 0.53, 0.9, 1.0, 31.0]
    path = write_video(tmp_path / "v.mkv", stepping(64, 48, 5), times=given, options={"bf": "0"})
    times = packet_times(path)
    assert times is not None
    assert times.all == pytest.approx(given, abs=2e-3)


def test_stamps_that_restart_are_none(tmp_path: Path) -> None:
    one = write_video(tmp_path / "one.ts", stepping(64, 48, 90)).read_bytes()
    (tmp_path / "twice.ts").write_bytes(one + one)
    assert packet_times(tmp_path / "twice.ts") is None


def test_what_is_no_video_has_none(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_text("no video")
    assert packet_times(tmp_path / "v.mp4") is None
    assert packet_times(tmp_path / "none.mp4") is None


def test_progress_ends_near_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.sources.packets.REPORT_EVERY", 10)
    shares: list[float] = []
    packet_times(write_video(tmp_path / "v.mp4", stepping(64, 48, 100)), shares.append)
    assert len(shares) == 10
    assert all(0 <= share <= 1 for share in shares)
    assert shares == sorted(shares)
