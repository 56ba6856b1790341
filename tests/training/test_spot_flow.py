from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from training.datasets.long_tables import Annotation
from training.datasets.long_video import LongVideo, load
from training.datasets.pictures import ClipFolder
from training.spot_flow import Choice, loudness, spans, spans_of_flow
from training.spot_loso import spot_unseen
from training.spot_scores import judge

FPS = 30.0


def made(subject: str, *expressions: tuple[int, int], frames: int = 600) -> LongVideo:
    """Both mouth corners go 4 px aside and back, over noise."""
    motion = np.random.default_rng(int(subject)).normal(0, 0.01, (frames, 12, 2))
    for onset, offset in expressions:
        half = (offset - onset) // 2
        motion[onset + 1 : onset + 1 + half, [8, 10], 0] += 4 / half
        motion[onset + 1 + half : onset + 1 + 2 * half, [8, 10], 0] -= 4 / half
    truth = tuple(Annotation(a, None, b, "micro" if b - a <= 15 else "macro") for a, b in expressions)
    return LongVideo("casme2-squared", subject, subject, FPS, motion.astype(np.float32), truth)


def test_expressions_of_an_unseen_subject_are_found_by_what_others_taught() -> None:
    videos = [made("1", (100, 112), (300, 330)), made("2", (200, 214)), made("3", (150, 180)), made("4")]
    rows = judge(videos, spot_unseen(videos, spans_of_flow))
    assert (rows["overall"].pooled.tp, rows["overall"].pooled.fp, rows["overall"].pooled.fn) == (4, 0, 0)


def test_a_still_face_is_quiet_and_loudness_is_in_pixels() -> None:
    assert loudness(made("4"), 1.5).max() < 0.5
    assert 3 < loudness(made("1", (100, 112)), 1.5).max() < 4.2


def test_spans_by_hand() -> None:
    curve = np.array([0, 0, 0.2, 0.7, 1.5, 2.0, 1.2, 0.7, 0, 0, 1.1, 0, 0], np.float64)
    (only,) = spans(curve, 10.0, Choice(1.5, 1.0, 0.3))
    assert (only.start, only.end) == (3, 8)


def test_what_comes_later_changes_no_finished_interval() -> None:
    curve = loudness(made("1", (100, 112), (300, 330)), 1.5)
    whole = list(spans(curve, FPS, Choice(1.5, 1.0, 0.3)))
    for cut in range(1, len(curve), 7):
        before = list(spans(curve[:cut], FPS, Choice(1.5, 1.0, 0.3)))
        assert [one for one in before if one.end < cut] == [one for one in whole if one.end < cut]
    assert np.array_equal(loudness(made("1", (100, 112), (300, 330)), 1.5)[:200], curve[:200])


def test_pictures_are_refused() -> None:
    video = LongVideo("samm-lv", "006", "006_1", 200.0, ClipFolder(Path(), False, False), ())
    with pytest.raises(InputError, match="006_1 holds pictures; region flow is needed"):
        spans_of_flow([video], [], 0)


@pytest.mark.data
def test_real_region_flow_is_better_than_chance(data_dir: Path) -> None:
    """The first three subjects of SAMM-LV, so that it takes seconds."""
    videos = load("samm-lv", data_dir / "roi-flow").videos
    few = [video for video in videos if video.subject in ("006", "007", "009")]
    assert judge(few, spot_unseen(few, spans_of_flow))["overall"].pooled.f1 > 0.1
