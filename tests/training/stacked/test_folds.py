from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import BackendError
from engine.models.committee import Committee
from tests.flowmaps import write_dataset
from training.datasets import FlowMaps, htnet_3db
from training.device import CPU
from training.fold_record import FoldResult, makers, read_record
from training.loso import evaluate
from training.provenance import made_here
from training.recipe import Recipe
from training.split import Fold
from training.stacked import folds
from training.stacked.fit import bytes_each, fit_stacked
from training.stacked.folds import MOST_BYTES, folds_at_once, in_stacks

META = torch.device("meta")


def recipe(network: str = "ahmsa", **parts: Any) -> Recipe:
    options = {"width": 8, "heads": 2, "repeats": (1, 1, 1)} if network == "ahmsa" else {}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"name": network, "input": "whole" if network == "ahmsa" else "whole-224", "options": options},
            "fit": {"epochs": 5, "batch": 64, "learning_rate": 2e-3, "schedule": "constant"},
            "augment": {"flip": False},
            **parts,
        }
    )


TINY = recipe()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    """Maps of four subjects whose labels have nothing to do with them, so that epochs differ by chance."""
    found = htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=1))
    return replace(found, labels=np.random.default_rng(3).permutation(found.labels))


class Spy:
    """`fit_stacked`, and how many parts it was called with; with more than most it runs out of memory, the allocator with more
    than two and CUDA itself with others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int = 100) -> None:
        self.calls: list[int] = []
        self.most = most
        monkeypatch.setattr(folds, "fit_stacked", self)

    def __call__(self, recipe: Recipe, data: FlowMaps, parts: Sequence[Any], *rest: Any, **options: Any) -> list[Committee]:
        self.calls.append(len(parts))
        if len(parts) > self.most:
            raise (torch.OutOfMemoryError if len(parts) > 2 else RuntimeError)("CUDA error: out of memory")
        return fit_stacked(recipe, data, parts, *rest, **options)


def close(one: FoldResult, other: FoldResult) -> bool:
    """Whether both are of the same maps and have the same logits but for rounding and what Adam makes of it."""
    rows = [(one.logits, other.logits), (one.members, other.members), (one.peeked or [], other.peeked or [])]
    assert (one.subject, one.seed, one.names, one.truth) == (other.subject, other.seed, other.names, other.truth)
    return all(np.allclose(a, b, atol=5e-3) for a, b in rows)


def test_stacked_folds_answer_as_one_by_one(data: FlowMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    steps: list[tuple[str, int, int]] = []
    record = tmp_path / "stacked" / "folds.jsonl"
    options: Any = {"seeds": (0, 1), "select_on_test": True}
    together = evaluate(TINY, data, record, **options, stacked_on=CPU, progress=lambda *step: steps.append(step))
    alone = evaluate(TINY, data, tmp_path / "alone.jsonl", **options)
    assert spy.calls == [4, 4]
    assert all(close(a, b) for a, b in zip(together, alone, strict=True))
    assert any(result.peeked != result.logits for result in together)
    assert makers(record, together) == [{"folds": 8, **made_here("cpu")}]
    assert ("4 folds, epoch 5 of 5", 0, 8) in [(what.split(", loss")[0], *counts) for what, *counts in steps]
    assert steps[-1][1:] == (8, 8)


def test_a_stopped_run_continues_with_the_folds_that_are_missing(
    data: FlowMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "folds.jsonl"
    first = evaluate(TINY, data, record, stacked_on=CPU)
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:2]))
    spy = Spy(monkeypatch)
    again = evaluate(TINY, data, record, stacked_on=CPU)
    assert spy.calls == [3] and again[0] == first[0] and all(close(a, b) for a, b in zip(first, again, strict=True))


def test_fewer_folds_are_fitted_together_where_memory_is_short(
    data: FlowMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch, most=1)
    assert len(evaluate(TINY, data, tmp_path / "folds.jsonl", stacked_on=CPU)) == 4
    assert spy.calls == [4, 2, 1, 1, 1, 1]
    spy.most = 0
    with pytest.raises(BackendError, match="tiny does not fit into the GPU's memory; lower batch under"):
        evaluate(TINY, data, tmp_path / "none.jsonl", stacked_on=CPU)


def test_another_error_of_the_device_is_not_taken_for_a_lack_of_memory(
    data: FlowMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> list[Committee]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(folds, "fit_stacked", lost)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        evaluate(TINY, data, tmp_path / "folds.jsonl", stacked_on=CPU)


@pytest.mark.parametrize(("stacked_on", "finished"), [(CPU, 0), (None, 1)])
def test_without_time_only_what_can_be_finished_is_begun(
    data: FlowMaps, tmp_path: Path, stacked_on: torch.device | None, finished: int
) -> None:
    """On a CPU, where the time is looked at after each fold, that is one; on a device none that would end too late."""
    record = tmp_path / "folds.jsonl"
    results = evaluate(TINY, data, record, stacked_on=stacked_on, seconds=0)
    assert len(results) == finished == len(read_record(record)[1])
    assert len(evaluate(TINY, data, record, stacked_on=stacked_on, seconds=1000)) == 4


def test_as_many_folds_as_there_is_time_for_are_fitted_together(
    data: FlowMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty epochs take a second each for every fold: 80 seconds for all four, 40 for two, and 60 are given."""
    now, spy = [0.0], Spy(monkeypatch)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    real = folds._Clock.progress

    def progress(self: Any, *epoch: Any) -> None:
        now[0] += spy.calls[-1]
        real(self, *epoch)

    monkeypatch.setattr(folds._Clock, "progress", progress)
    long = recipe(fit={"epochs": 20, "batch": 64, "learning_rate": 1e-3})
    assert len(evaluate(long, data, tmp_path / "folds.jsonl", stacked_on=CPU, seconds=60)) == 2
    assert spy.calls == [4, 2, 2] and now[0] == 4 * 4 + 20 * 2 + 4 * 2
    assert len(evaluate(long, data, tmp_path / "folds.jsonl", stacked_on=CPU, seconds=60)) == 4


def test_folds_that_take_other_numbers_of_steps_are_fitted_apart(
    data: FlowMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one subject has one map and the others three, its fold is fitted to 9 and the others' to 7: in batches of 8 that is
    a step more."""
    spy = Spy(monkeypatch)
    short = recipe(fit={"epochs": 1, "batch": 8, "learning_rate": 1e-3})
    evaluate(short, data.take(range(2, len(data))), tmp_path / "folds.jsonl", stacked_on=CPU)
    assert sorted(spy.calls) == [1, 3]


def test_folds_are_divided_among_gpus_into_stacks_of_what_can_be_fitted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [(seed, Fold(f"{seed}{n}", tuple(range(9 if n else 7)), ())) for seed in (0, 1) for n in range(6)]
    short = recipe(fit={"epochs": 1, "batch": 8, "learning_rate": 1e-3})
    for gpus, sizes in ((1, [1, 1, 5, 5]), (2, [1, 1, 5, 5]), (4, [1, 1, 2, 2, 3, 3]), (50, [1] * 12)):
        stacks = in_stacks(short, tasks, gpus)
        assert sorted(map(len, stacks)) == sizes
        assert sorted(fold.name for stack in stacks for _, fold in stack) == [fold.name for _, fold in tasks]
        assert all(len({(seed, len(fold.train)) for seed, fold in stack}) == 1 for stack in stacks)
    monkeypatch.setattr(folds, "MOST_BYTES", 2 * bytes_each(short))
    assert sorted(map(len, in_stacks(short, tasks, 1))) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_how_many_fit_is_a_matter_of_their_parameters() -> None:
    assert folds_at_once(TINY, CPU) == MOST_BYTES // bytes_each(TINY)
    assert folds_at_once(recipe("hfa"), CPU) == 1  # batch norm


@pytest.mark.gpu
def test_folds_are_evaluated_on_a_gpu(data: FlowMaps, tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    together = evaluate(TINY, data, tmp_path / "gpu.jsonl", select_on_test=True, stacked_on=device)
    for result, alone in zip(together, evaluate(TINY, data, tmp_path / "cpu.jsonl", select_on_test=True), strict=True):
        assert np.allclose(result.logits, alone.logits, atol=3e-2) and result.peeked is not None
