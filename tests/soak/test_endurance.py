from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from tests.soak.endurance import PHOTOS, Sample, Watched, figures, long_video, violations


def watched(*, growth: float = 0.0, drift_s: float = 0.0, threads: int = 20, reconnects: int = 0, drops: int = 3) -> Watched:
    """A run of 600 s: what is held grows, and the sources drift, evenly."""
    seen = Watched(ended_s=0.5)
    for at in range(0, 601, 5):
        late = 0 if at < 300 else 1
        seen.samples.append(Sample(at, 400 * (1 + growth * at / 600), 20 + late * (threads - 20), 30, load=1.0 + late))
    for photo in PHOTOS:
        seen.lag[photo] = [100.0 + drift_s * k / 6000 + 0.01 * (k % 3) for k in range(6000)]
        seen.finals[photo] = 7
        seen.status[photo] = {"frames": 18000, "drops": drops, "reconnects": reconnects}
    return seen


def judge(**changes: Any) -> list[str]:
    return violations(figures(watched(**changes), 600))


def test_a_sound_run_has_no_violations() -> None:
    assert judge() == []
    assert judge(growth=0.015, drift_s=0.03) == []


def test_what_grows_or_drifts_is_reported() -> None:
    (growth,) = judge(growth=0.05)
    assert growth.startswith("memory grew by 4.")
    assert judge(threads=22) == ["threads grew from 20 to 22"]
    drifts = judge(drift_s=-0.2)
    assert [drift.split(":")[0] for drift in drifts] == list(PHOTOS) and "-0.1" in drifts[0]
    assert judge(reconnects=2) == [f"{photo}: it was lost 2 times" for photo in PHOTOS]


def test_pictures_dropped_are_reported_with_the_load_of_the_machine() -> None:
    found = figures(watched(drops=179), 600)
    assert found["load"] == {"median": 2.0, "worst": 2.0} and found["sources"][PHOTOS[0]]["dropped"] == 0.0099
    assert violations(found) == []
    assert judge(drops=4500) == [
        f"{photo}: 25.0% of its pictures were dropped (the machine's load was 2.0 in the median)" for photo in PHOTOS
    ]


def test_a_source_that_sends_nothing_is_reported() -> None:
    seen = watched()
    seen.lag[PHOTOS[0]].clear()
    assert violations(figures(seen, 600)) == [f"{PHOTOS[0]}: nothing came"]


def test_a_long_video_is_one_stream_whose_time_goes_on(tmp_path: Path) -> None:
    path = long_video(tmp_path / "long.mp4", "hopper", 7, clip_s=3)
    with av.open(str(path)) as video:
        times = [frame.time for frame in video.decode(video=0)]
    assert len(times) == 3 * 90
    steps = [b - a for a, b in pairwise(times)]
    assert max(abs(step - 1 / 30) for step in steps) < 2e-3
