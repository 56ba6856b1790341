"""Evaluations within a time budget; the fitting itself is made up here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apexstream.bench.on_gpu import fitting
from apexstream.bench.on_gpu.check import Job, SkippedError
from training import datasets, loso
from training.datasets import FlowMaps
from training.fold_record import FoldResult

SUBJECTS = ("smic/s1", "smic/s2", "samm/s1")


def maps() -> FlowMaps:
    names = tuple(f"map-{k}" for k in range(3))
    arrays = np.zeros((3, 3, 28, 28), np.float32), np.zeros((3, 5, 2), np.float32), np.arange(3)
    return FlowMaps(*arrays, names, ("smic", "smic", "samm"), SUBJECTS)


def fold(number: int, answer: int, peeked: int | None) -> FoldResult:
    rows = np.eye(3).tolist()
    best = None if peeked is None else (tuple(rows[peeked]),)
    return FoldResult(SUBJECTS[number], 0, (f"map-{number}",), (number,), (tuple(rows[answer]),), 1.0, peeked=best)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `loso.evaluate` is called with; its key "results" is what it returns."""
    called: dict[str, Any] = {}

    def evaluate(recipe: object, data: FlowMaps, record: Path, **options: Any) -> list[FoldResult]:
        called.update(options, recipe=recipe, record=record)
        results: list[FoldResult] = called["results"]
        return results

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(fitting, "needs_gpu", lambda: None)
    monkeypatch.setattr(datasets, "load", lambda folder: maps())
    monkeypatch.setattr(loso, "evaluate", evaluate)
    return called


def test_an_evaluation_takes_the_time_that_is_left_and_goes_on_later(evaluated: dict[str, Any], tmp_path: Path) -> None:
    job = Job(tmp_path, tmp_path / "gpu.json", lambda: 33.0)
    evaluated["results"] = [fold(0, 0, 0), fold(1, 2, 1)]
    found = fitting.evaluation(job, "ahmsa-paper", None)
    assert (found["folds"], found["of"], found["finished"], found["maps"]) == (2, 3, False, 2)
    assert evaluated["seconds"] == 33 and evaluated["select_on_test"] and evaluated["recipe"].name == "ahmsa-paper"
    assert evaluated["record"] == tmp_path / "gpu" / "ahmsa-paper" / "folds.jsonl"
    evaluated["results"].append(fold(2, 2, 2))
    found = fitting.evaluation(job, "ahmsa-paper", None)
    assert found["finished"] and found["last_epoch"] == {"uf1": 0.5556, "uar": 0.6667}
    assert found["best_epoch_on_test"] == {"uf1": 1.0, "uar": 1.0}


def test_nothing_is_scored_where_nothing_was_done(evaluated: dict[str, Any], tmp_path: Path) -> None:
    evaluated["results"] = []
    found = fitting.evaluation(Job(tmp_path, tmp_path / "gpu.json", lambda: 1.0), "hfa", 2)
    assert found == {"folds": 0, "of": 2, "finished": False, "maps": 0}
    assert evaluated["groups"] == 2


@pytest.mark.usefixtures("evaluated")
def test_without_flow_maps(tmp_path: Path) -> None:
    with pytest.raises(SkippedError, match="--data FOLDER"):
        fitting.evaluation(Job(None, tmp_path / "gpu.json", lambda: 60.0), "htnet", None)


def test_progress_is_told_from_time_to_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fitting, "SAY_EVERY", 0.0)
    fitting._progress("htnet")("epoch 3", 1, 68)
    monkeypatch.setattr(fitting, "SAY_EVERY", 1e6)
    fitting._progress("htnet")("epoch 4", 1, 68)
    assert capsys.readouterr().out == "  htnet: 1 of 68, epoch 3\n"


def test_every_recipe_is_there() -> None:
    assert all((fitting.ROOT / "configs" / "train" / f"{name}.toml").is_file() for name, _ in fitting.RECIPES)
