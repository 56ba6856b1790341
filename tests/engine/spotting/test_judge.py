from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import WeightsError
from engine.spotting.detections import Detection, Thresholds, detect
from engine.spotting.features import HZ, MESH_FEATURES, REGIONS
from engine.spotting.judge import DELAY, FOLD, Judge, JudgeCard, JudgeNetwork
from engine.types import F32
from training.judge import JudgeNet, answers_to
from training.tapes import rows_of

THRESHOLDS = Thresholds(high=0.8, low=0.6, micro_high=0.6, micro_low=0.4)


def rows(found: Iterable[Detection]) -> list[tuple[int, int]]:
    return [(round(one.start * HZ), round(one.end * HZ)) for one in found]


class Fitted(JudgeNetwork):
    """A network in memory with large answers, so that a random one crosses the thresholds."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.net = JudgeNet().eval()
        with torch.no_grad():
            self.net.leave.weight *= 12
        card = {
            "name": "random",
            "thresholds": {"normal": THRESHOLDS},
            "calibration": (1, 0),
            "data": "none",
            "licence": "none",
            "sha256": "0" * 64,
        }
        self.card = JudgeCard.model_validate(card)

    def __call__(self, rows: F32) -> F32:
        assert len(rows) % FOLD == 0
        with torch.no_grad():
            out: F32 = torch.sigmoid(self.net(torch.from_numpy(rows.copy())[None]))[0].numpy()
        return out


def walk(count: int, seed: int = 0) -> tuple[F32, F32]:
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.normal(0, 0.25, (count, 2 * len(REGIONS))), 0)
    return smooth.astype(np.float32), rng.normal(0, 0.3, (count, len(MESH_FEATURES))).astype(np.float32)


def judged(judge: Judge, displacement: F32, mesh: F32) -> list[Detection]:
    found = []
    for k, (place, features) in enumerate(zip(displacement, mesh, strict=True)):
        found += judge.take(k / HZ, place.astype(np.float64), features.astype(np.float64))
    return found + judge.finish()


@pytest.mark.parametrize("count", [40, 299, 901])
def test_judging_row_by_row_equals_judging_a_whole_video(count: int) -> None:
    """Long ones too, of which most rows are dropped meanwhile."""
    network = Fitted()
    displacement, mesh = walk(count)
    whole = detect(answers_to(network.net, rows_of(displacement, mesh)), THRESHOLDS)
    assert whole or count < 100
    found = judged(Judge(network), displacement, mesh)
    assert rows(found) == rows(whole)
    assert np.allclose([one.answer for one in found], [one.answer for one in whole], atol=1e-3)


def test_after_finish_the_judge_starts_over() -> None:
    judge, (displacement, mesh) = Judge(Fitted()), walk(500)
    first = judged(judge, displacement, mesh)
    assert judge.open_since is None
    assert rows(judged(judge, displacement, mesh)) == rows(first)
    assert Judge(Fitted()).finish() == []


def test_detections_come_once_all_their_answers_are_known() -> None:
    network, (displacement, mesh) = Fitted(), walk(900, seed=1)
    judge = Judge(network)
    for k, (place, features) in enumerate(zip(displacement, mesh, strict=True)):
        for one in judge.take(k / HZ, place.astype(np.float64), features.astype(np.float64)):
            assert one.end <= judge.answered_until
        assert judge.answered_until <= (k - DELAY) / HZ + 1e-9
        assert judge.open_since is None or judge.open_since <= k / HZ


def test_max_answer_is_the_greatest_answer_of_a_time() -> None:
    network, (displacement, mesh) = Fitted(), walk(900, seed=2)
    every, judge = answers_to(network.net, rows_of(displacement, mesh)), Judge(network)
    for k, (place, features) in enumerate(zip(displacement, mesh, strict=True)):
        judge.take(k / HZ, place.astype(np.float64), features.astype(np.float64))
    for first, last in ((750, 780), (800, 800), (700, 850)):
        assert judge.max_answer(first / HZ, last / HZ) == pytest.approx(float(every[first : last + 1, 0].max()), abs=1e-3)
        early = float(every[first : last + 1, 4].max())
        assert judge.max_answer(first / HZ, last / HZ, "early") == pytest.approx(early, abs=1e-3)
    assert judge.max_answer(100.0, 101.0) == judge.max_answer(-2.0, -1.0) == 0


def test_an_unusable_network_is_a_weights_error(tmp_path: Path) -> None:
    path = tmp_path / "judge.onnx"
    with pytest.raises(WeightsError, match=r"judge\.onnx|judge\.json"):
        JudgeNetwork(path)
    path.write_bytes(b"no network")
    digest = hashlib.sha256(b"no network").hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"name": "incomplete", "sha256": digest}))
    with pytest.raises(WeightsError, match=r"judge\.json cannot be used: thresholds: Field required"):
        JudgeNetwork(path)
