from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from engine.activity.speech import SILENT, SPEAKS, Lips
from engine.registration.regions import REGION_NAMES
from engine.types import F64, Crop, Mark

Course = Callable[[F64], F64]


def mouth_crops(t: F64, opening: F64, *, noise: float = 0.04, seed: int = 0) -> list[Crop]:
    """Crops of a mouth that opens by so many pixels of the crop: lips, chin, corners and jaw go with it."""
    rng = np.random.default_rng(seed)
    motion = rng.normal(0, noise, (len(t), len(REGION_NAMES), 2))
    for name, (u, v) in {
        "upper_lip": (0.0, -0.1),
        "lower_lip": (0.0, 0.6),
        "chin": (0.0, 0.8),
        "lip_corner_left": (0.25, 0.1),
        "lip_corner_right": (-0.25, 0.1),
    }.items():
        motion[:, REGION_NAMES.index(name)] += opening[:, None] * np.array([u, v])
    jaw = np.clip(0.03 * opening + rng.normal(0, 0.002, len(t)), 0, 1)
    return [
        Crop(
            face=0,
            mark=Mark(k, float(t[k])),
            pixels=np.zeros((128, 128), np.uint8),
            transform=np.eye(2, 3),
            landmarks=np.zeros((478, 3), np.float32),
            motion=motion[k].astype(np.float32),
            eye_opening=0.3,
            turn=np.zeros(4, np.float32),
            residual=0.1,
            anchor=0,
            blendshapes={"jawOpen": float(jaw[k])},
        )
        for k in range(len(t))
    ]


def times(fps: float, seconds: float) -> F64:
    return np.arange(0, seconds, 1 / fps)


def syllables(t: F64, start: float, stop: float, hz: float = 4.5, px: float = 5.0) -> F64:
    """Opening of a mouth that speaks: syllables whose height and length vary."""
    phase = hz * (t - start) + 0.3 * np.sin(1.7 * (t - start))
    height = px * (0.7 + 0.3 * np.sin(2.9 * t))
    return np.where((t >= start) & (t <= stop), height * (1 - np.cos(2 * np.pi * phase)) / 2, 0.0)


def bump(t: F64, start: float, stop: float, px: float) -> F64:
    """One excursion there and back."""
    share = np.clip((t - start) / (stop - start), 0, 1)
    return np.asarray(px * (1 - np.cos(2 * np.pi * share)) / 2)


@pytest.mark.parametrize(("voice", "speaks"), [(0.0, False), (0.1, False), (0.5, True), (None, True)])
def test_lips_speak_only_with_a_voice_where_sound_is_known(voice: float | None, speaks: bool) -> None:
    t, lips = times(30, 4), Lips()
    for crop in mouth_crops(t, syllables(t, 1, 4)):
        lips.observe(crop, voice)
    assert (lips.since is not None) is speaks


def watch(crops: list[Crop]) -> tuple[list[tuple[Mark, Mark]], list[bool]]:
    lips, spans, speaks = Lips(), [], []
    for crop in crops:
        span = lips.observe(crop)
        spans += [] if span is None else [span]
        speaks.append(lips.since is not None)
    span = lips.finish()
    return spans + ([] if span is None else [span]), speaks


@pytest.mark.parametrize("fps", [10.0, 15.0, 25.0, 30.0, 60.0])
def test_a_sentence_is_one_speech_from_first_to_last_syllable(fps: float) -> None:
    t = times(fps, 8)
    spans, speaks = watch(mouth_crops(t, syllables(t, 2.0, 5.0, hz=3.6)))
    assert len(spans) == 1
    start, end = spans[0]
    assert start.t == pytest.approx(2.0, abs=0.35)
    assert end.t == pytest.approx(5.0, abs=0.35)
    assert not any(speaks[: int(2.0 * fps)])
    assert all(speaks[int(3.3 * fps) : int(5.0 * fps)])
    assert not any(speaks[int(7.0 * fps) :])


@pytest.mark.parametrize("noise", [0.04, 0.08])
def test_a_still_face_does_not_speak(noise: float) -> None:
    t = times(30, 20)
    lips = Lips()
    for crop in mouth_crops(t, np.zeros_like(t), noise=noise):
        assert lips.observe(crop) is None
        assert lips.level < SILENT


@pytest.mark.parametrize("seconds", [0.4, 0.8, 1.5, 3.0])
def test_one_excursion_is_no_speech(seconds: float) -> None:
    t = times(30, 8)
    spans, speaks = watch(mouth_crops(t, bump(t, 2, 2 + seconds, 8.0)))
    assert not spans
    assert not any(speaks)


def test_a_smile_every_two_seconds_is_no_speech() -> None:
    t = times(30, 12)
    spans, _ = watch(mouth_crops(t, sum((bump(t, k, k + 0.7, 4.0) for k in (1, 3, 5, 7, 9)), np.zeros_like(t))))
    assert not spans


def test_trembling_of_a_mouth_held_open_is_no_speech() -> None:
    t = times(30, 8)
    opening = np.where(t > 1, 12.0, 0.0) + np.where(t > 1, 0.6 * np.sin(2 * np.pi * 3 * t), 0.0)
    spans, _ = watch(mouth_crops(t, opening))
    assert not spans


def test_slow_chewing_motions_of_one_measure_are_no_speech() -> None:
    t = times(30, 6)
    crops = mouth_crops(t, np.zeros_like(t))
    for k, crop in enumerate(crops):
        crop.motion[REGION_NAMES.index("chin"), 1] += 3 * np.sin(2 * np.pi * 3 * t[k])
    spans, _ = watch(crops)
    assert not spans


def test_a_pause_between_words_is_part_of_the_speech_and_a_long_one_is_not() -> None:
    t = times(30, 12)
    short, _ = watch(mouth_crops(t, syllables(t, 1, 3) + syllables(t, 3.6, 6)))
    long, _ = watch(mouth_crops(t, syllables(t, 1, 3) + syllables(t, 7, 10)))
    assert len(short) == 1
    assert len(long) == 2


@pytest.mark.parametrize("pause", [0.9, 1.2, 1.5, 1.8])
def test_speech_after_a_pause_starts_after_the_one_before(pause: float) -> None:
    t = times(25, 14)
    opening = sum((syllables(t, start, start + 1.5) for start in np.arange(1, 12, 1.5 + pause)), np.zeros_like(t))
    spans, _ = watch(mouth_crops(t, opening))
    assert spans
    assert all(one[0].t <= one[1].t for one in spans)
    assert all(before[1].t <= after[0].t for before, after in pairwise(spans))


def test_finish_ends_an_open_speech() -> None:
    t = times(30, 4)
    lips = Lips()
    for crop in mouth_crops(t, syllables(t, 1, 10)):
        assert lips.observe(crop) is None
    assert lips.level > SPEAKS
    span = lips.finish()
    assert span is not None
    assert span[0].t == pytest.approx(1.0, abs=0.35)
    assert 3.5 < span[1].t <= t[-1]
    assert lips.since is None
    assert lips.finish() is None
