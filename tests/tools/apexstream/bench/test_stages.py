from __future__ import annotations

from pathlib import Path

import cv2

from apexstream.bench.stages import measure, single_threaded

NAMES = ["decoding", "landmarks", "registration", "spotting", "flow (TV-L1)", "strain and features", "network"]


def test_every_stage_is_timed_once(rendered_clip: Path) -> None:
    found = list(measure(rendered_clip, 40))
    assert [stage.name for stage in found] == NAMES
    assert all(stage.ms > 0 for stage in found)
    assert [stage.name for stage in found if stage.plain_ms is None] == ["registration", "spotting"]
    flow = next(stage for stage in found if stage.name == "flow (TV-L1)")
    assert flow.ratio is not None and flow.ratio > 5


def test_threads_are_given_back() -> None:
    cv2.setNumThreads(2)
    with single_threaded():
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == 2
