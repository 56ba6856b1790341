from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError, OutputError
from engine.weights import DEFAULT
from training.answers import Answers, gather
from training.calibration import calibrate
from training.fold_record import FoldResult, read_record
from training.report import (
    FIXED,
    LEAK,
    Assessment,
    assess,
    protocol,
    read_summary,
    result_rows,
    verdict,
    without_maps,
    write_predictions,
    write_recipe,
    write_summary,
)
from training.split import development_split

HEADER = {"recipe": {"name": "r", "model": {"members": 2}}, "maps": 8, "data": "d"}


def summarize(header: dict[str, Any], folds: list[FoldResult]) -> dict[str, Any]:
    return assess(header, folds).summary


def fold(subject: str, truth: list[int], answers: list[int], seed: int = 0, sure: float = 2.0) -> FoldResult:
    logits = tuple(tuple(sure if k == a else 0.0 for k in range(3)) for a in answers)
    return FoldResult(subject, seed, tuple(f"{subject}-{i}" for i in range(len(truth))), tuple(truth), logits, 1.5)


FOLDS = [fold("casme2/1", [0, 1, 2], [0, 1, 1]), fold("casme2/2", [0, 2], [0, 2]), fold("samm/1", [0, 1, 2], [0, 0, 2])]
SECOND = [fold(f.subject, list(f.truth), list(f.truth), seed=1) for f in FOLDS]


def test_scores_pool_the_answers_of_all_folds_and_of_each_database() -> None:
    parts = summarize(HEADER, FOLDS)["seeds"]["0"]
    assert list(parts) == ["all", "casme2", "samm"]
    assert parts["all"]["confusion"] == [[3, 0, 0], [1, 1, 0], [0, 1, 2]]
    assert parts["samm"]["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_a_class_without_maps_is_noted_where_it_counts() -> None:
    assert without_maps(summarize(HEADER, FOLDS)) == []
    second = fold("samm/2", [0], [0])
    sparse = summarize(HEADER, [fold("casme2/1", [0, 1, 1], [0, 1, 1]), fold("samm/1", [0, 0], [0, 2]), second])
    assert without_maps(sparse) == [
        "No map of the data is surprise, which counts with 0 in its UF1 and UAR.",
        "No map of casme2 is surprise, which counts with 0 in its UF1 and UAR.",
        "No map of samm is positive or surprise, which counts with 0 in its UF1 and UAR.",
    ]


def test_a_summary_gives_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    summary = summarize(HEADER, [*FOLDS, *SECOND])
    first = gather(FOLDS)[0].scores().uf1
    assert summary["uf1"] == {"mean": round((first + 1) / 2, 4), "spread": round((1 - first) / 2**0.5, 4)}
    samm = gather(FOLDS)[0].scores(database="samm").uar
    assert summary["databases"]["samm"]["uar"]["mean"] == pytest.approx((samm + 1) / 2, abs=1e-4)
    assert (summary["databases"]["casme2"]["maps"], summary["databases"]["casme2"]["subjects"]) == (5, 2)
    write_summary(summary, tmp_path / "out" / "summary.json")
    assert read_summary(tmp_path / "out" / "summary.json") == summary


def test_one_seed_has_no_spread() -> None:
    assert summarize(HEADER, FOLDS)["uf1"]["spread"] is None


def test_missing_parts_of_a_record_are_null() -> None:
    summary = summarize(HEADER, FOLDS)
    assert summary["single"] is None and summary["kernel"] is None and summary["peeked"] is None
    assert [what for what, _, _ in result_rows(summary)] == ["committee of 2"]


def tables() -> list[Answers]:
    """Two seeds; a committee of a network that is always right and one that always says 0; and what peeking would give."""
    out = []
    for answers in gather([*FOLDS, *SECOND]):
        right = np.eye(3)[answers.truth] * 3
        members = np.stack([right, np.tile([2.0, 0.0, 0.0], (len(right), 1))], axis=1)
        pairs = (answers.names, answers.databases, answers.subjects, answers.truth, answers.logits, members, None, right)
        out.append(Answers(answers.seed, *pairs))
    return out


def test_single_networks_and_the_leak_stand_beside_the_committee(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.report.gather", lambda results, data: tables())
    summary = summarize(HEADER, [*FOLDS, *SECOND])
    alone = 2 * 3 / (8 + 3) / 3  # F1 of class 0, of which 3 of 8 are, when it is always said; the other two classes get none
    assert summary["single"]["runs"] == 4
    assert summary["single"]["uf1"]["mean"] == pytest.approx((1 + alone) / 2, abs=1e-4)
    assert summary["peeked"]["label"] == LEAK and summary["peeked"]["uf1"] == {"mean": 1.0, "spread": 0.0}
    assert summary["uf1"]["mean"] < 1
    confidence = [(what, how) for what, how, _ in result_rows(summary)]
    assert confidence == [("committee of 2", FIXED), ("one network alone (4 runs)", FIXED), ("peeking", LEAK)]


def test_a_kernel_machine_has_figures_of_its_own() -> None:
    right = [tuple(tuple(float(k == label) for k in range(3)) for label in f.truth) for f in FOLDS]
    summary = summarize(HEADER, [replace(f, kernel=rows) for f, rows in zip(FOLDS, right, strict=True)])
    assert summary["kernel"]["databases"]["samm"]["uar"]["mean"] == 1.0
    confidence = [(what, part["uf1"]["mean"]) for what, _, part in result_rows(summary)]
    assert confidence[0] == ("committee of 2 and a kernel machine", summary["uf1"]["mean"])
    assert confidence[1] == ("the kernel machine alone", 1.0)


def composite(wrong: set[str], seed: int = 0) -> list[FoldResult]:
    """442 maps of 68 people; those of the people in wrong are answered with the next class."""
    people = [f"{database}/{n}" for database, count in (("smic", 16), ("samm", 28), ("casme2", 24)) for n in range(count)]
    folds = []
    for number, person in enumerate(people):
        truth = [(number + i) % 3 for i in range(6 + (number < 442 - 68 * 6))]
        folds.append(fold(person, truth, [(t + (person in wrong)) % 3 for t in truth], seed))
    return folds


def test_subjects_without_trials_are_scored_apart_from_development_subjects() -> None:
    owners = [(f.subject, f.subject.split("/")[0]) for f in composite(set()) for _ in f.names]
    subjects, databases = zip(*owners, strict=True)
    chosen = {subjects[i] for i in development_split(subjects, databases, share=0.5, seed=2026)}
    summary = summarize({**HEADER, "maps": 442}, [*composite(set(subjects) - chosen), *composite(set(), seed=1)])
    half, other = summary["untouched"], summary["development"]
    assert (half["subjects"], other["subjects"], half["maps"] + other["maps"]) == (34, 34, 442)
    assert other["uf1"] == {"mean": 1.0, "spread": 0.0} and half["uar"] == {"mean": 0.5, "spread": round(0.5**0.5, 4)}
    assert set(half["databases"]) == {"smic", "samm", "casme2"} and half["databases"]["samm"]["subjects"] == 14
    confidence = [what for what, _, _ in result_rows(summary)]
    assert confidence == ["committee of 2", "its 34 other subjects", "its 34 development subjects"]


def test_other_data_have_no_such_halves() -> None:
    fewer = summarize(HEADER, composite(set())[1:])
    assert fewer["untouched"] is None and fewer["development"] is None


def test_groups_are_not_called_leave_one_subject_out() -> None:
    assert protocol(None).startswith("leave one subject out")
    assert "5 subject-disjoint groups, NOT leave one subject out" in protocol(5)
    assert assess(HEADER, FOLDS, groups=5).summary["protocol"] == protocol(5)


def test_an_uncertain_answer_is_not_counted_as_confident() -> None:
    sure = [fold(f"a/{n}", [0, 1, 2, 0], [0, 1, 2, 0], sure=9.0) for n in range(8)]
    doubtful = [fold(f"b/{n}", [0, 1, 2], [1, 2, 1], sure=0.01) for n in range(4)]
    confidence = summarize(HEADER, [*sure, *doubtful])["confidence"]
    assert confidence["said"] == pytest.approx(32 / 44, abs=1e-4) and confidence["right_when_said"] == 1.0


def test_a_precision_out_of_reach_is_noted() -> None:
    wrong = [fold(f"a/{n}", [0, 1, 2, 0], [1, 2, 0, 1]) for n in range(6)]
    confidence = summarize(HEADER, wrong)["confidence"]
    assert confidence["precision_reached"] is False and confidence["uncertain_below"] == 1.0 and confidence["said"] == 0


def test_predictions_have_one_row_per_map_with_each_seeds_answer(tmp_path: Path) -> None:
    found = assess(HEADER, [*FOLDS, *SECOND])
    write_predictions(found, tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(found.seeds[0].names)
    assert (rows[2]["truth"], rows[2]["seed0_answer"], rows[2]["seed1_answer"]) == ("surprise", "positive", "surprise")
    chances = [float(rows[2][f"seed0_{name}"]) for name in ("negative", "positive", "surprise")]
    assert sum(chances) == pytest.approx(1, abs=1e-3) and max(chances) == chances[1]
    assert rows[5]["subject"] == "samm/1" and rows[5]["database"] == "samm"


def test_the_recipe_is_written_as_evaluated(tmp_path: Path) -> None:
    write_recipe(HEADER, tmp_path / "recipe.json")
    assert json.loads((tmp_path / "recipe.json").read_text()) == HEADER["recipe"]


def test_an_unwritable_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    seeds = gather(FOLDS)
    found = Assessment(seeds, calibrate(seeds), summarize(HEADER, FOLDS))
    inside = tmp_path / "file" / "x"
    for write in (lambda: write_summary(HEADER, inside), lambda: write_recipe(HEADER, inside)):
        with pytest.raises(OutputError, match="cannot be written"):
            write()
    with pytest.raises(OutputError, match="cannot be written"):
        write_predictions(found, inside)


def test_the_shipped_networks_record_gives_its_summary_and_a_calibration_within_chance() -> None:
    records = Path(__file__).parents[2] / "training" / "records"
    confidence = read_summary(records / f"{DEFAULT}.json")
    summary = summarize(*read_record(records / f"{DEFAULT}.folds.jsonl"))
    assert summary["uf1"]["mean"] == confidence["uf1"]["mean"] and summary["uar"]["mean"] == confidence["uar"]["mean"]
    assert summary["confidence"]["within"]
    assert summary["untouched"]["subjects"] == summary["development"]["subjects"] == 34


@pytest.mark.parametrize(
    ("error", "seeds_within", "message"),
    [
        (0.05, 2, "within chance"),
        (0.07, 0, "beyond chance"),
        (0.05, 1, "within chance on the mean, but only 1 of 2 seeds are"),
    ],
)
def test_chance_is_tested_on_the_mean_and_on_every_seed(error: float, seeds_within: int, message: str) -> None:
    within = error < 0.06 and seeds_within == 2
    confidence = {
        "within": within,
        "error": {"mean": error},
        "perfect": {"p95": 0.06},
        "seeds_within": seeds_within,
        "seeds": [{}, {}],
    }
    assert verdict(confidence) == message


@pytest.mark.parametrize("text", ["[]", "{}", "no json"])
def test_what_is_no_summary_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match="not the summary"):
        read_summary(tmp_path / "x.json")
