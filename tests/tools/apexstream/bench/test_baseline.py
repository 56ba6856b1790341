from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from apexstream.bench.baseline import analyse, default_flow, main, pictures, plain_map
from engine.errors import SourceError
from engine.recognition.flowmap import whole_map
from engine.types import F32


def test_a_video_is_read_with_its_times(rendered_clip: Path) -> None:
    found = [(t, picture.shape) for t, picture in islice(pictures(rendered_clip), 5)]
    times = [t for t, _ in found]
    assert times[0] == pytest.approx(0.0, abs=1e-6) and (np.diff(times) > 0).all()
    assert len({shape for _, shape in found}) == 1 and found[0][1][2] == 3


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be opened"):
        next(pictures(tmp_path / "none.mp4"))


def test_its_flow_and_map_are_those_of_the_engine() -> None:
    rng = np.random.default_rng(3)
    blurred = cv2.GaussianBlur(rng.uniform(0, 255, (128, 128)).astype(np.float32), (0, 0), 3)
    texture: F32 = np.asarray(cv2.normalize(blurred, np.empty(0), 0, 255, cv2.NORM_MINMAX), np.float32)
    moved = np.asarray(np.roll(texture, 1, axis=1), np.float32)
    flow = default_flow(texture, moved)
    assert np.median(flow[0]) == pytest.approx(1, abs=0.1) and np.median(flow[1]) == pytest.approx(0, abs=0.1)
    assert np.allclose(plain_map(flow), whole_map(flow), atol=1e-5)


def test_it_finds_what_the_clip_shows(rendered_clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(rendered_clip)
    found = json.loads(capfd.readouterr().out)
    assert found["frames"] > 0 and found["wall_s"] > 0 and found["cpu_s"] > 0
    assert found["events"] and all(event["onset"] < event["apex"] < event["offset"] for event in found["events"])
    assert analyse(rendered_clip)["events"] == found["events"]


def test_the_mesh_alone_sees_every_picture_and_finds_nothing(rendered_clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(rendered_clip, mesh_alone=True)
    found = json.loads(capfd.readouterr().out)
    assert found["frames"] == sum(1 for _ in pictures(rendered_clip)) and found["events"] == []
    assert found["wall_s"] > 0 and found["cpu_s"] > 0
