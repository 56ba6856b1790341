from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import InputError
from engine.spotting.detections import Detection
from engine.spotting.judge import Judge, JudgeCard, JudgeNetwork
from engine.types import F32
from tests.databases import write_region_flow
from training.datasets.long_tables import Annotation
from training.datasets.long_video import LongVideo, load
from training.datasets.pictures import ClipFolder
from training.judge import JudgeNet, fit
from training.spot_flow import THRESHOLDS, intervals, other_videos, spans_of_flow, spotted, spotter
from training.spot_loso import spot_unseen
from training.spot_scores import score_rows
from training.tapes import tape_of_flow
from training.windows import FlowWindows

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


STEPS = 60
PEOPLE = [made("1", (100, 112), (300, 330)), made("2", (200, 214), (400, 428)), made("3", (150, 180)), made("4")]


@pytest.fixture(scope="module")
def fitted() -> JudgeNet:
    return fit(FlowWindows([tape_of_flow(video) for video in PEOPLE]), STEPS, 0)


def test_expressions_of_an_unseen_subject_are_found() -> None:
    videos = [made("5", (120, 148), (350, 378)), *PEOPLE]
    found = spans_of_flow(PEOPLE, videos[:1], seed=0, steps=STEPS)
    overall = score_rows(videos[:1], found)["overall"].pooled
    assert (overall.tp, overall.fn) == (2, 0) and overall.fp <= 1
    assert all(0.4 < one.probability <= 1 for one in found["5"] if one.probability is not None)


def test_the_evaluation_equals_live_analysis(fitted: JudgeNet) -> None:
    """The judge of live analysis, fed frame by frame, finds the same in the same displacement."""

    class InMemory(JudgeNetwork):
        def __init__(self) -> None:
            card = {
                "name": "fitted",
                "thresholds": {"normal": THRESHOLDS},
                "calibration": (1, 0),
                "data": "made",
                "licence": "none",
                "sha256": "0" * 64,
            }
            self.card = JudgeCard.model_validate(card)

        def __call__(self, rows: F32) -> F32:
            with torch.no_grad():
                out: F32 = torch.sigmoid(fitted(torch.from_numpy(rows.copy())[None]))[0].numpy()
            return out

    video = made("7", (100, 130), (300, 312), (500, 540), frames=1101)
    live, displacement = Judge(InMemory()), tape_of_flow(video).displacement
    stretches = [one for k, place in enumerate(displacement) for one in live.take(k / FPS, place.astype(np.float64), None)]
    found = [spotted(one, FPS) for one in stretches + live.finish()]
    offline = intervals([fitted], video)
    assert len(offline) >= 2
    assert [(one.start, one.end) for one in found] == [(one.start, one.end) for one in offline]


def test_another_database_is_fitted_first_also_in_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.spot_flow.STEPS_BASE", 3)
    monkeypatch.setattr("training.spot_flow.STEPS_TUNED", 2)
    others, done = [replace(made("1", (100, 130)), database="samm-lv")], []
    spot = spotter(others, 0, lambda what, step, steps: done.append((step, steps)))
    assert done == [(step, 2 * 3) for step in range(1, 7)]
    assert spot_unseen(PEOPLE[:2], spot, jobs=2) == spot_unseen(PEOPLE[:2], spot)


def test_detections_become_whole_frames() -> None:
    assert (spotted(Detection(1.0, 1.5, 0.9), 30.0).start, spotted(Detection(1.0, 1.5, 0.9), 30.0).end) == (30, 46)
    assert (spotted(Detection(1.0, 1.5, 0.9), 25.0).start, spotted(Detection(1.0, 1.5, 0.9), 25.0).end) == (25, 38)


def test_other_databases_in_the_folder_are_found(tmp_path: Path) -> None:
    assert other_videos("samm-lv", tmp_path) == []
    motion = np.full((40, 12, 2), 0.001, np.float32)
    write_region_flow(tmp_path, "casme2-squared", {"casme_015_0101": motion}, [("casme_015_0101", "micro", 3, 5, 9)])
    write_region_flow(tmp_path, "samm-lv", {"samm_006_1": motion}, [("samm_006_1", "micro", 3, 5, 9)])
    assert [video.database for video in other_videos("samm-lv", tmp_path)] == ["casme2-squared"]


def test_pictures_are_an_input_error() -> None:
    video = LongVideo("samm-lv", "006", "006_1", 200.0, ClipFolder(Path(), False, False), ())
    with pytest.raises(InputError, match="006_1 holds pictures; region flow is needed"):
        spans_of_flow([video], [], 0)


@pytest.mark.data
def test_real_region_flow_is_better_than_chance(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three subjects of SAMM-LV, a short fit to CAS(ME)^2 first."""
    monkeypatch.setattr("training.spot_flow.STEPS_BASE", 50)
    monkeypatch.setattr("training.spot_flow.STEPS_TUNED", 10)
    folder = data_dir / "roi-flow"
    few = [video for video in load("samm-lv", folder).videos if video.subject in ("006", "007", "009")]
    found = spot_unseen(few, spotter(other_videos("samm-lv", folder), 0))
    assert score_rows(few, found)["overall"].pooled.f1 > 0.1
