from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest

import stream.sources.voice
from engine.types import F64
from stream.sources.voice import RATE, Voice
from tests.videos import stepping, write_video


def vowel(seconds: float) -> F64:
    """Something like a spoken vowel: a buzz of 120 Hz through three resonances, four syllables a second."""
    t = np.arange(round(seconds * RATE)) / RATE
    formants = [sum(1 / (1 + ((120 * k - f) / 90) ** 2) for f in (700, 1200, 2600)) for k in range(1, 30)]
    buzz = np.sum([gain * np.cos(2 * np.pi * 120 * k * t) for k, gain in enumerate(formants, 1)], axis=0)
    return np.asarray(0.3 * buzz / np.abs(buzz).max() * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)))


def hiss(seconds: float, loud: float = 0.002) -> F64:
    """The silence of a room."""
    return np.random.default_rng(0).normal(0, loud, round(seconds * RATE))


def write_sound(path: Path, samples: F64, *, start: float = 0.0) -> Path:
    """A file with nothing but this sound, which begins at start seconds."""
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        whole = (samples * 32767).astype(np.int16)
        for first in range(0, len(whole), 1024):
            frame = av.AudioFrame.from_ndarray(whole[None, first : first + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, first + round(start * RATE)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def heard(path: Path, times: Sequence[float]) -> list[float | None]:
    with closing(Voice(path)) as voice:
        return [voice.at(t) for t in times]


@pytest.mark.parametrize("start", [0.0, 2.5])
def test_a_voice_is_heard_where_it_sounds(tmp_path: Path, start: float) -> None:
    path = write_sound(tmp_path / "sound.mkv", np.concatenate([hiss(2), vowel(2), hiss(2)]), start=start)
    times = np.arange(0.1, 5.9, 0.04).tolist()
    for t, value in zip(times, heard(path, [start + t for t in times]), strict=True):
        assert value is not None
        if 0.8 < t < 1.6 or t > 4.8:  # it learns at first how the room sounds, and hangs on for a moment
            assert value < 0.2
        if 2.2 < t < 3.8:
            assert value > 0.8


def test_a_muted_track_is_unknown(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "muted.mkv", np.concatenate([np.zeros(2 * RATE), vowel(1)]))
    assert heard(path, [0.5, 1.0]) == [None, None]
    assert heard(path, [2.5])[0] == 1.0


def test_beyond_the_sound_is_unknown(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "short.mkv", vowel(1))
    early, late = heard(path, [0.5, 3.0])
    assert early == 1.0
    assert late is None


def test_without_sound_or_file_is_unknown(tmp_path: Path) -> None:
    silent = write_video(tmp_path / "silent.mp4", stepping(64, 48, 10))
    (tmp_path / "text.mkv").write_text("no sound at all")
    for path in (silent, tmp_path / "text.mkv", tmp_path / "missing.mkv"):
        assert heard(path, [0.1, 0.2]) == [None, None]


def test_a_damaged_end_keeps_what_was_heard_before(tmp_path: Path) -> None:
    whole = write_sound(tmp_path / "whole.mkv", vowel(4)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert heard(tmp_path / "cut.mkv", [1.0, 3.5]) == [1.0, None]


def test_memory_does_not_grow_with_the_sound(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "long.mkv", hiss(40))
    with closing(Voice(path)) as voice:
        for t in np.arange(0.0, 40.0, 0.1):
            voice.at(float(t))
        assert len(voice._times) < 600


@pytest.mark.parametrize("restart", [0.0, 40_000.0])
def test_where_stamps_restart_the_sound_continues_as_the_pictures_do(monkeypatch: pytest.MonkeyPatch, restart: float) -> None:
    second = np.zeros(RATE, np.int16)
    stamps = [100.0, 101.0, restart, restart + 1.0]
    monkeypatch.setattr(stream.sources.voice, "_sound", lambda container: iter([(stamp, second) for stamp in stamps]))
    middles = [middle for middle, _ in Voice._listen(cast(Any, None))]
    assert middles == sorted(middles)
    assert (middles[0], middles[-1]) == (pytest.approx(100.015, abs=0.03), pytest.approx(104, abs=0.1))
