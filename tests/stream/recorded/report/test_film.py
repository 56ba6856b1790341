from __future__ import annotations

import base64
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine.errors import OutputError
from engine.types import U8, Crop, Event, Evidence, Mark
from stream.recorded.report import film
from stream.recorded.report.film import FRAMES, MAX_BYTES, flow, strip
from tests.events import an_event
from tests.reports import a_crop


def grey(value: int) -> U8:
    return np.full((128, 128), value, np.uint8)


def crop(frame: int) -> Crop:
    """A crop as bright as its frame's number, ten times."""
    return a_crop(Mark(frame, frame / 30), pixels=grey(10 * frame))


def event() -> Event:
    right = np.stack([np.full((128, 128), 2.0, np.float32), np.zeros((128, 128), np.float32)])
    return an_event(1, onset=Mark(4, 0.13), apex=Mark(16, 0.53), evidence=Evidence(grey(40), grey(160), right))


def decoded(text: str) -> U8:
    data = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)


def brightness(count: int, text: str) -> list[float]:
    picture = decoded(text)
    assert picture.shape == (128 * count, 128, 3)
    return [float(picture[128 * k : 128 * (k + 1)].mean()) for k in range(count)]


def test_a_strip_goes_evenly_from_onset_to_apex() -> None:
    count, text = strip(event(), [crop(frame) for frame in range(25)])
    assert count == FRAMES
    assert brightness(count, text) == pytest.approx([40, 70, 100, 130, 160], abs=6)


@pytest.mark.parametrize(
    ("frames", "shown"),
    [([], [40, 160]), ([10], [40, 100, 160]), ([1, 4, 16, 20], [40, 160]), ([6, 9], [40, 60, 90, 160])],
)
def test_a_strip_shows_what_there_is(frames: list[int], shown: list[int]) -> None:
    count, text = strip(event(), [crop(frame) for frame in frames])
    assert brightness(count, text) == pytest.approx(shown, abs=6)


@pytest.mark.parametrize("sigma", [8, 20, 60, 120])
def test_noise_does_not_make_a_report_large(sigma: int) -> None:
    noise = np.random.default_rng(sigma)

    def noisy() -> U8:
        return np.asarray(np.clip(noise.normal(128, sigma, (128, 128)), 0, 255), np.uint8)

    rough = replace(event(), evidence=Evidence(noisy(), noisy(), np.zeros((2, 128, 128), np.float32)))
    count, text = strip(rough, [replace(crop(frame), pixels=noisy()) for frame in range(5, 16)])
    assert count >= 2
    assert len(base64.b64decode(text)) <= MAX_BYTES


def test_the_flow_is_in_colours() -> None:
    assert decoded(flow(event())).mean(axis=(0, 1)) == pytest.approx([255, 0, 0], abs=12)  # to the right: red


def test_without_evidence_there_are_no_pictures() -> None:
    assert strip(replace(event(), evidence=None), [crop(10)]) == (0, "")
    assert flow(replace(event(), evidence=None)) == ""


def test_an_opencv_without_webp_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film.cv2, "imencode", lambda *_: (False, np.empty(0, np.uint8)))
    with pytest.raises(OutputError, match="WebP"):
        strip(event(), [])
