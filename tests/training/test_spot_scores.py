from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from engine.errors import OutputError
from training.datasets.long_tables import CASME2_SQUARED, Annotation
from training.datasets.long_video import LongVideo, LongVideos
from training.datasets.pictures import ClipFolder
from training.spot_loso import Spotted
from training.spot_scores import ROWS, record, score_rows, strs_missing, write_record

FLOW = np.zeros((200, 12, 2), np.float32)


def video(name: str, subject: str, *truth: Annotation) -> LongVideo:
    return LongVideo("casme2-squared", subject, name, 30.0, FLOW, truth)


VIDEOS = (
    video("a1", "a", Annotation(10, 14, 20, "micro", "positive"), Annotation(50, 60, 89, "macro", "negative")),
    video("a2", "a", Annotation(0, 5, 15, "micro"), Annotation(100, None, 119, "macro")),
    video("b1", "b"),
)
FOUND = {
    # micro 10-20: 11 of 11 frames; macro 50-69: 20 of 40 frames, exactly one half
    "a1": [Spotted(10, 21, "positive"), Spotted(50, 70, "uncertain")],
    # 0-16 is macro (17 frames, 16 steps > .5 s) on a micro truth of 16 frames; 100-108 is micro and 9 of 20 frames: nothing
    "a2": [Spotted(0, 17), Spotted(100, 109)],
    "b1": [Spotted(3, 9, probability=0.75)],
}
DATA = LongVideos(CASME2_SQUARED, VIDEOS)


def test_counts_by_kind_summed_and_overall() -> None:
    rows = score_rows(VIDEOS, FOUND)
    counts = {name: (row.pooled.tp, row.pooled.fp, row.pooled.fn) for name, row in rows.items()}
    assert tuple(counts) == ROWS
    assert counts == {"micro": (1, 2, 1), "macro": (1, 1, 1), "micro + macro": (2, 3, 2), "overall": (3, 2, 1)}
    assert rows["overall"].pooled.f1 == pytest.approx(6 / 9)
    assert rows["micro + macro"].pooled.f1 == pytest.approx(4 / 9)


def test_spread_is_over_subjects_with_anything_to_count() -> None:
    rows = score_rows(VIDEOS, FOUND)
    assert rows["overall"].subjects == {"a": pytest.approx(6 / 8), "b": 0.0}
    assert rows["overall"].mean == pytest.approx(3 / 8) and rows["overall"].spread == pytest.approx(0.75 / math.sqrt(2))
    assert list(rows["macro"].subjects) == ["a"] and math.isnan(rows["macro"].spread)


def test_strs_needs_pictures_with_emotions() -> None:
    rows = score_rows(VIDEOS, FOUND)
    assert strs_missing(DATA, rows) == "STRS needs pictures: region flow cannot be recognized"
    folder = ClipFolder(Path(), cropped=False, just_expression=False)
    pictured = [LongVideo(v.database, v.subject, v.name, v.fps, folder, v.truth) for v in VIDEOS]
    assert strs_missing(LongVideos(CASME2_SQUARED, tuple(pictured)), rows) is None
    assert rows["overall"].pooled.confusion == {("positive", "positive"): 1, ("negative", "uncertain"): 1}
    assert rows["overall"].pooled.strs == pytest.approx(6 / 9 * (1 + 0) / 2)
    assert "needs emotions" in str(strs_missing(LongVideos(CASME2_SQUARED, tuple(pictured[2:])), rows))
    nothing = score_rows(VIDEOS, {name: [] for name in FOUND})
    assert "no expression of the three classes was spotted" in str(
        strs_missing(LongVideos(CASME2_SQUARED, tuple(pictured)), nothing)
    )


def test_the_record_has_every_interval_and_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_record(path, record(DATA, FOUND, score_rows(VIDEOS, FOUND), command="apexstream spot-evaluate", seed=3))
    content = json.loads(path.read_text())
    assert (content["seed"], content["input"], content["subjects"], content["strs"]) == (3, "region flow", 2, None)
    assert content["scores"]["macro"]["subject_f1"] == {"mean": 0.5, "spread": None} and "commit" in content["made_by"]
    assert content["videos"]["b1"] == {
        **{"subject": "b", "fps": 30.0, "truth": []},
        "predicted": [{"onset": 3, "offset": 8, "kind": "micro", "label": None, "probability": 0.75}],
    }
    assert content["videos"]["a2"]["truth"][1] == {"onset": 100, "apex": None, "offset": 119, "kind": "macro", "label": None}


def test_an_unwritable_record_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_record(tmp_path, {})
