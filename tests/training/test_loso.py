from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError
from tests.flowmaps import write_dataset
from training.datasets import FlowMaps, htnet_3db
from training.loso import FoldResult, evaluate, read_record
from training.recipe import Recipe

TINY = Recipe.model_validate(
    {
        "name": "tiny",
        "model": {"name": "ahmsa", "options": {"width": 8, "heads": 2, "repeats": (1, 1, 1)}},
        "fit": {"epochs": 1, "batch": 12, "learning_rate": 1e-3},
    }
)


class StoppedError(Exception):
    """Stands for a kill in the middle."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    return htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=1))


def answers(results: list[FoldResult]) -> list[tuple[str, int, tuple[tuple[float, ...], ...]]]:
    return [(r.subject, r.seed, r.logits) for r in results]


def test_every_map_is_answered_once_a_seed(data: FlowMaps, tmp_path: Path) -> None:
    results = evaluate(TINY, data, tmp_path / "folds.jsonl", seeds=(0, 1))
    assert [(r.seed, r.subject) for r in results] == [(s, p) for s in (0, 1) for p in dict.fromkeys(data.subjects)]
    for seed in (0, 1):
        assert [n for r in results if r.seed == seed for n in r.names] == list(data.names)
        assert [t for r in results if r.seed == seed for t in r.truth] == data.labels.tolist()
    assert np.isfinite([row for r in results for row in r.logits]).all()


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(data: FlowMaps, tmp_path: Path) -> None:
    whole = evaluate(TINY, data, tmp_path / "whole.jsonl")
    record = tmp_path / "broken.jsonl"

    def stop_at_two(done: int, _total: int, _result: FoldResult | None) -> None:
        if done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        evaluate(TINY, data, record, progress=stop_at_two)
    with record.open("a") as file:
        file.write('{"fold": {"subject": "samm/0')  # killed while writing the third
    kept = record.read_text().splitlines()[1:3]
    told: list[int] = []
    resumed = evaluate(TINY, data, record, progress=lambda done, _total, _result: told.append(done))
    assert told == [2, 3, 4]
    assert answers(resumed) == answers(whole)
    assert record.read_text().splitlines()[1:3] == kept and len(record.read_text().splitlines()) == 5


def test_a_finished_run_fits_nothing_again(data: FlowMaps, tmp_path: Path) -> None:
    record = tmp_path / "folds.jsonl"
    first = evaluate(TINY, data, record)
    before = record.read_bytes()
    assert answers(evaluate(TINY, data, record)) == answers(first) and record.read_bytes() == before


def test_several_processes_answer_as_one(data: FlowMaps, tmp_path: Path) -> None:
    part = data.take([i for i, s in enumerate(data.subjects) if s.startswith("casme2")])
    one, two = evaluate(TINY, part, tmp_path / "1.jsonl"), evaluate(TINY, part, tmp_path / "2.jsonl", jobs=2)
    assert answers(one) == answers(two)


def test_another_recipe_or_other_data_are_not_mixed_in(data: FlowMaps, tmp_path: Path) -> None:
    record = tmp_path / "folds.jsonl"
    evaluate(TINY, data, record)
    other = TINY.model_copy(update={"fit": TINY.fit.model_copy(update={"epochs": 2})})
    with pytest.raises(ConfigError, match="of another recipe;"):
        evaluate(other, data, record)
    with pytest.raises(ConfigError, match="of another maps and data"):
        evaluate(TINY, data.take(range(9)), record)


def test_the_judged_subject_changes_nothing_in_its_own_fold(data: FlowMaps, tmp_path: Path) -> None:
    """Other labels for one subject leave that subject's answers as they were: nothing of it reaches its fold's fit."""
    labels = data.labels.copy()
    mine = [i for i, s in enumerate(data.subjects) if s == "samm/006"]
    labels[mine] = (labels[mine] + 1) % 3
    changed = FlowMaps(data.maps, data.keypoints, labels, data.names, data.databases, data.subjects)
    one, two = evaluate(TINY, data, tmp_path / "1.jsonl"), evaluate(TINY, changed, tmp_path / "2.jsonl")
    for before, after in zip(one, two, strict=True):
        assert (before.logits == after.logits) == (before.subject == "samm/006")


@pytest.mark.parametrize("text", ["", "{}\n", json.dumps({"evaluation": {}}) + "\n{}\n", "no json\n"])
def test_what_is_no_record_is_refused(data: FlowMaps, tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a record of an evaluation"):
        read_record(path)
