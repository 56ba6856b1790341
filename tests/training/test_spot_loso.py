from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.intervals import Interval
from tests.databases import write_casme2_squared
from training.datasets.long_tables import Annotation
from training.datasets.long_video import LongVideo, load
from training.spot_loso import Found, Spotted, kind_of, live, spot_unseen
from training.spot_scores import score_rows

FLOW = np.zeros((9, 12, 2), np.float32)
VIDEOS = [
    LongVideo("samm-lv", subject, f"{subject}_{k}", 25.0, FLOW, (Annotation(1, 2, 3, "micro"),))
    for subject, count in (("006", 2), ("007", 1), ("010", 1))
    for k in range(count)
]


def reports_its_inputs(train: Sequence[LongVideo], test: Sequence[LongVideo], seed: int) -> Found:
    """Intervals that show the sizes of both sides."""
    assert not {video.subject for video in train} & {video.subject for video in test}
    return {video.name: [Spotted(seed + len(train), 100), Spotted(0, len(test))] for video in test}


def returns_nothing(train: Sequence[LongVideo], test: Sequence[LongVideo], seed: int) -> Found:
    return {}


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_subject_is_spotted_after_training_on_the_others(jobs: int) -> None:
    steps: list[tuple[str, int, int]] = []
    found = spot_unseen(VIDEOS, reports_its_inputs, seed=40, jobs=jobs, progress=lambda *step: steps.append(step))
    assert list(found) == ["006_0", "006_1", "007_0", "010_0"]
    assert found["006_0"] == found["006_1"] == (Spotted(0, 2), Spotted(42, 100))
    assert found["007_0"] == found["010_0"] == (Spotted(0, 1), Spotted(43, 100))
    assert steps[0] == ("subjects", 0, 3) and {what for what, _, _ in steps[1:]} == {"006", "007", "010"}


def test_a_missing_video_and_a_single_subject_are_input_errors() -> None:
    with pytest.raises(InputError, match="the spotter returned no list for 006_0, 006_1"):
        spot_unseen(VIDEOS, returns_nothing)
    with pytest.raises(InputError, match="at least two subjects"):
        spot_unseen(VIDEOS[:2], returns_nothing)


@pytest.mark.parametrize(
    ("last", "fps", "kind"), [(15, 30, "micro"), (16, 30, "macro"), (12, 25, "micro"), (100, 200, "micro")]
)
def test_half_a_second_from_first_to_last_frame_separates_the_kinds(last: int, fps: float, kind: str) -> None:
    assert kind_of(Interval(0, last + 1), fps) == kind


def test_the_live_pipeline_finds_rendered_expressions_in_a_databases_pictures(tmp_path: Path) -> None:
    data = load("casme2-squared", write_casme2_squared(tmp_path))
    found = spot_unseen(data.videos, live)
    overall = score_rows(data.videos, found)["overall"].pooled
    assert (overall.tp, overall.fn) == (2, 0) and overall.fp <= 1
    assert sum(overall.confusion.values()) == 2


def test_the_live_pipeline_needs_pictures() -> None:
    with pytest.raises(InputError, match="006_0 is region flow; the live pipeline needs pictures"):
        live([], VIDEOS[:1], 0)
