from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, InputError
from training.loso import FoldResult
from training.report import (
    calibration,
    fit_temperature,
    per_database,
    pooled,
    probabilities,
    read_summary,
    reliability,
    summarize,
    write_summary,
)


def fold(subject: str, truth: list[int], answers: list[int], seed: int = 0, sure: float = 2.0) -> FoldResult:
    logits = tuple(tuple(sure if k == a else 0.0 for k in range(3)) for a in answers)
    return FoldResult(subject, seed, tuple(f"{subject}-{i}" for i in range(len(truth))), tuple(truth), logits, 1.5)


FOLDS = [fold("casme2/1", [0, 1, 2], [0, 1, 1]), fold("casme2/2", [0, 2], [0, 2]), fold("samm/1", [0, 1, 2], [0, 0, 2])]


def test_scores_pool_the_answers_of_all_folds() -> None:
    assert pooled(FOLDS).confusion.tolist() == [[3, 0, 0], [1, 1, 0], [0, 1, 2]]


def test_each_database_is_pooled_from_its_own_folds() -> None:
    parts = per_database(FOLDS)
    assert list(parts) == ["all", "casme2", "samm"]
    assert parts["casme2"].confusion.sum() == 5 and parts["samm"].confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_a_temperature_undoes_overconfidence() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1.5, (4000, 3))
    chances = probabilities(logits, 1.0)
    truth = np.array([draw.choice(3, p=row) for row in chances])
    assert fit_temperature(logits * 3, truth) == pytest.approx(3.0, rel=0.1)
    calibrated = reliability(probabilities(logits * 3, 3.0), truth, (0.4, 0.6, 0.8, 1.0))
    assert all(abs(row["confidence"] - row["right"]) < 0.05 for row in calibrated)


def test_reliability_counts_every_answer_once() -> None:
    chances = np.array([[0.5, 0.3, 0.2], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0]])
    rows = reliability(chances, np.array([0, 0, 2]), (0.0, 0.5, 0.9, 1.0001))
    assert [row["count"] for row in rows] == [0, 1, 2]
    assert rows[2]["right"] == 0.5


def test_an_uncertain_answer_is_not_counted_as_said() -> None:
    told = calibration([fold("a/1", [0, 1, 2, 0], [0, 1, 2, 0], sure=9.0), fold("a/2", [0, 1], [1, 0], sure=0.01)])
    assert told["said"] == pytest.approx(4 / 6, abs=1e-4) and told["right_when_said"] == 1.0


def test_a_summary_gives_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    second = [
        fold("casme2/1", [0, 1, 2], [0, 1, 2], seed=1),
        *[fold(r.subject, list(r.truth), list(r.truth), 1) for r in FOLDS[1:]],
    ]
    summary = summarize({"recipe": {}, "maps": 8, "data": "d"}, [*FOLDS, *second])
    first = pooled(FOLDS).uf1
    assert summary["uf1"]["mean"] == pytest.approx((first + 1) / 2, abs=1e-4)
    assert summary["uf1"]["spread"] == pytest.approx((1 - first) / 2, abs=1e-4)
    write_summary(summary, tmp_path / "out" / "summary.json")
    assert read_summary(tmp_path / "out" / "summary.json") == summary


@pytest.mark.parametrize("text", ["[]", "{}", "no json"])
def test_what_is_no_summary_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match="not the summary"):
        read_summary(tmp_path / "x.json")


def test_a_temperature_needs_labels() -> None:
    with pytest.raises(InputError, match="one label a row"):
        fit_temperature(np.zeros((3, 3)), np.zeros(2, np.int64))
