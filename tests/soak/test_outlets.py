from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import av
import pytest

from tests.soak.outlets import FPS, LEAST_DELAY_S, Camera, delays, figures, measure, pieces, violations


def received(onset: int, start: float, late_ms: float) -> tuple[dict[str, Any], float]:
    """An event whose LSL times are late_ms behind the capture, received 5 ms after it was emitted."""
    marks = {"onset": onset, "apex": onset + 3, "offset": onset + 9}
    event: dict[str, Any] = {moment: {"frame": frame, "t": frame / FPS} for moment, frame in marks.items()}
    event["lsl"] = {moment: start + frame / FPS + late_ms / 1000 for moment, frame in marks.items()}
    return {**event, "emitted_at": "2026-01-31T09:00:00.000Z"}, 1769850000.005


def test_a_constant_delay_is_told_from_jitter() -> None:
    found = figures([received(30, 500.0, 12.0), received(90, 500.0, 12.0), received(150, 500.0, 14.0)], 500.0, [3.0, 4.0])
    assert found["expressions"] == 3 and found["lsl_constant_ms"] == pytest.approx(12.0, abs=0.01)
    assert found["lsl_jitter_ms"]["worst"] == pytest.approx(2.0, abs=0.01)
    assert found["lsl_latency_ms"]["p50"] == pytest.approx(5.0, abs=0.1)
    assert found["mqtt_latency_ms"] == {"count": 2, "p50": 3.5, "p95": 4.0, "worst": 4.0}
    assert violations(found) == []


def test_what_is_beyond_the_limits_is_reported() -> None:
    found = figures([received(30, 500.0, 12.0), received(90, 500.0, 12.0), received(150, 500.0, 24.0)], 500.0, [300.0])
    assert violations(found) == [
        "95 of 100 of LSL's times differ by up to 12 ms from the constant delay",
        "95 of 100 events came within 300 ms",
    ]
    assert violations(figures([], 500.0, [])) == ["no expression came"]


def test_each_picture_is_sent_when_it_arrives(rendered_clip: Path) -> None:
    pictures = list(pieces(rendered_clip))
    assert len(pictures) == 8 * FPS + 1, "and what the encoder kept"
    with av.open(io.BytesIO(b"".join(pictures)), "r") as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == 8 * FPS
    assert [round(FPS * (t - times[0])) for t in times if t is not None and times[0] is not None] == list(range(8 * FPS))

    class Clocked(io.BytesIO):
        at: list[float] = []  # noqa: RUF012 - one instance

        def write(self, data: Any) -> int:
            self.at.append(time.monotonic())
            return super().write(data)

    late = delays(4, seed=1)
    assert min(late) >= LEAST_DELAY_S and delays(4, seed=1) == late
    camera, client = Camera(pictures[:4], late), Clocked()
    camera.awaited.set()
    camera.send(client)
    assert camera.started is not None and camera.done.is_set()
    assert all(at >= camera.started + k / FPS + late[k] for k, at in enumerate(client.at))
    camera.send(client)
    assert len(client.at) == 4, "a second client gets nothing"


def test_the_outlets_of_a_service_are_measured_from_outside(rendered_clip: Path, tmp_path: Path) -> None:
    pictures = list(pieces(rendered_clip))
    found = measure(Camera(pictures, delays(len(pictures), 0)), tmp_path)
    assert found["expressions"] == found["mqtt_latency_ms"]["count"] >= 2
    assert found["lsl_jitter_ms"]["worst"] < 50, "on a machine that is busy with other tests"
    assert 0 < found["lsl_constant_ms"] < 1000
