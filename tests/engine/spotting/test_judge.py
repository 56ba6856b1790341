from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import WeightsError
from engine.spotting.features import HZ, MESH_FEATURES, REGIONS
from engine.spotting.judge import (
    ANSWERS,
    DELAY,
    FOLD,
    Detection,
    DetectionMerger,
    Judge,
    JudgeCard,
    JudgeNetwork,
    Thresholds,
    detect,
    overlap,
)
from engine.types import F32
from training.judge import JudgeNet, answers_to
from training.tapes import rows_of

THRESHOLDS = Thresholds(high=0.8, low=0.6, micro_high=0.6, micro_low=0.4)


def answers(*stretches: tuple[int, int, float, int], count: int = 120) -> F32:
    """[count, 5] zeros but for stretches (first row, last row, value, answer)."""
    out = np.zeros((count, len(ANSWERS)), np.float32)
    for first, last, value, answer in stretches:
        out[first : last + 1, answer] = value
    return out


def rows(found: Any) -> list[tuple[int, int]]:
    return [(round(one.start * HZ), round(one.end * HZ)) for one in found]


def test_a_stretch_reaches_down_to_the_lower_threshold() -> None:
    """Of the mean of three rows: at an edge two thirds of .7 lie below it."""
    row = answers((20, 60, 0.7, 0), (35, 45, 0.95, 0))
    (one,) = detect(row, THRESHOLDS)
    assert rows([one]) == [(21, 59)] and one.answer == pytest.approx(0.95)
    assert detect(answers((20, 60, 0.75, 0)), THRESHOLDS) == []


def test_stretches_shorter_than_an_expression_and_times_that_do_not_begin_at_0() -> None:
    assert detect(answers((20, 22, 0.99, 0)), THRESHOLDS) == []
    (one,) = detect(answers((20, 40, 0.99, 0)), THRESHOLDS, start_t=10.0)
    assert one.start == pytest.approx(10 + 20 / HZ) and one.end == pytest.approx(10 + 40 / HZ)


def test_a_stretch_ends_after_the_longest_time() -> None:
    stretches = DetectionMerger(THRESHOLDS, longest_s=1.0)
    found = [one for k in range(80) for one in stretches.take(k / HZ, 0.9, 0.0)] + stretches.finish()
    assert len(found) == 1 and found[0].cut and found[0].end - found[0].start <= 1.0 + 1e-6, (
        "what goes on is no other expression"
    )


@pytest.mark.parametrize(
    ("long", "short", "expected"),
    [
        ((20, 40), (70, 80), [(20, 40), (70, 80)]),  # apart: both
        ((20, 40), (24, 38), [(24, 38)]),  # much shared: the short one takes its place
        ((20, 80), (24, 36), [(20, 80)]),  # little shared: the long one stays
        ((20, 80), (60, 90), [(20, 80)]),  # no short stretch: longer than a micro-expression
    ],
)
def test_a_short_stretch_beside_a_long_one(
    long: tuple[int, int], short: tuple[int, int], expected: list[tuple[int, int]]
) -> None:
    assert rows(detect(answers((*long, 0.96, 0), (*short, 0.96, 3)), THRESHOLDS)) == expected


def test_overlap_by_hand() -> None:
    assert overlap(Detection(0, 9 / HZ, 1), Detection(5 / HZ, 14 / HZ, 1)) == pytest.approx(5 / 15)
    assert overlap(Detection(0, 1, 1), Detection(2, 3, 1)) == 0


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
    for k, (place, look) in enumerate(zip(displacement, mesh, strict=True)):
        found += judge.take(k / HZ, place.astype(np.float64), look.astype(np.float64))
    return found + judge.finish()


@pytest.mark.parametrize("count", [40, 299, 901])
def test_what_is_judged_in_pieces_is_what_is_judged_at_once(count: int) -> None:
    """Long ones too, of which most rows are forgotten meanwhile."""
    network = Fitted()
    displacement, mesh = walk(count)
    whole = detect(answers_to(network.net, rows_of(displacement, mesh)), THRESHOLDS)
    assert whole or count < 100
    found = judged(Judge(network), displacement, mesh)
    assert rows(found) == rows(whole)
    assert np.allclose([one.answer for one in found], [one.answer for one in whole], atol=1e-3)


def test_after_the_end_it_begins_again() -> None:
    judge, (displacement, mesh) = Judge(Fitted()), walk(500)
    first = judged(judge, displacement, mesh)
    assert judge.since is None
    assert rows(judged(judge, displacement, mesh)) == rows(first)
    assert Judge(Fitted()).finish() == []


def test_stretches_come_when_they_are_sure_and_what_is_open_is_known() -> None:
    network, (displacement, mesh) = Fitted(), walk(900, seed=1)
    judge = Judge(network)
    for k, (place, look) in enumerate(zip(displacement, mesh, strict=True)):
        for one in judge.take(k / HZ, place.astype(np.float64), look.astype(np.float64)):
            assert one.end <= judge.judged_until
        assert judge.judged_until <= (k - DELAY) / HZ + 1e-9
        assert judge.since is None or judge.since <= k / HZ


def test_peaks_are_the_greatest_answers_of_a_time() -> None:
    network, (displacement, mesh) = Fitted(), walk(900, seed=2)
    every, judge = answers_to(network.net, rows_of(displacement, mesh)), Judge(network)
    for k, (place, look) in enumerate(zip(displacement, mesh, strict=True)):
        judge.take(k / HZ, place.astype(np.float64), look.astype(np.float64))
    for first, last in ((750, 780), (800, 800), (700, 850)):
        assert judge.peak(first / HZ, last / HZ) == pytest.approx(float(every[first : last + 1, 0].max()), abs=1e-3)
        early = float(every[first : last + 1, 4].max())
        assert judge.peak(first / HZ, last / HZ, "early") == pytest.approx(early, abs=1e-3)
    assert judge.peak(100.0, 101.0) == judge.peak(-2.0, -1.0) == 0


def test_a_network_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    path = tmp_path / "judge.onnx"
    with pytest.raises(WeightsError, match=r"judge\.onnx|judge\.json"):
        JudgeNetwork(path)
    path.write_bytes(b"no network")
    digest = hashlib.sha256(b"no network").hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"name": "half a card", "sha256": digest}))
    with pytest.raises(WeightsError, match=r"judge\.json cannot be used: thresholds: Field required"):
        JudgeNetwork(path)


def test_a_short_answer_that_lasts_holds_nothing_back() -> None:
    stretches = DetectionMerger(THRESHOLDS, longest_s=1.0)
    found = [one for k in range(90) for one in stretches.take(k / HZ, 0.9 if k < 45 else 0.0, 0.9 if k > 10 else 0.0)]
    assert len(found) == 1


@pytest.mark.parametrize("rows_short", range(10, 18))
def test_a_long_and_a_short_answer_to_one_motion_are_one_stretch(rows_short: int) -> None:
    """Also where the short one lasts just as long as a micro-expression may, and ends after the long one."""
    for start in range(5, 75):
        stop = start + rows_short
        rows = [(0.95 if start <= k < stop - 1 else 0.0, 0.95 if start <= k < stop else 0.0) for k in range(110)]
        stretches = DetectionMerger(THRESHOLDS)
        assert len([one for k, row in enumerate(rows) for one in stretches.take(k / HZ, *row)]) == 1
