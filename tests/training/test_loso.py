from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError, InputError, OutputError
from engine.models.committee import Committee
from tests.flowmaps import write_dataset
from tests.training.test_pool import PoolHere
from training.datasets import FlowMaps, htnet_3db
from training.device import CPU
from training.fit import fit
from training.fold_record import FoldResult, makers, read_record
from training.loso import evaluate
from training.provenance import made_here
from training.recipe import Recipe
from training.split import DEVELOPMENT_SEED, DEVELOPMENT_SHARE, development_split

OPTIONS: dict[str, Any] = {"width": 8, "heads": 2, "repeats": (1, 1, 1)}
PRETRAIN: dict[str, Any] = {"maps": 100, "epochs": 1, "batch": 50, "learning_rate": 1e-3}


def recipe(members: int = 1, epochs: int = 2, **parts: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"name": "ahmsa", "members": members, "input": "whole", "options": OPTIONS},
            "fit": {"epochs": epochs, "batch": 4, "learning_rate": 2e-3},
            **parts,
        }
    )


TINY = recipe()
WHOLE = recipe(2, pretrain={**PRETRAIN, "members": 1}, kernel={"share": 0.3, "centres": 60})
"""With everything that a recipe may have."""


class StoppedError(Exception):
    """Stands for a kill in the middle."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    return htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=1))


@pytest.fixture
def two(data: FlowMaps) -> FlowMaps:
    """The maps of two subjects."""
    return data.take([i for i, s in enumerate(data.subjects) if s.startswith("casme2")])


def answers(results: list[FoldResult]) -> list[FoldResult]:
    """All that was found but the time it took."""
    return [replace(result, seconds=0.0) for result in results]


def shuffled(data: FlowMaps) -> FlowMaps:
    """With labels unrelated to the maps, so that epochs differ by chance only."""
    return replace(data, labels=np.random.default_rng(3).permutation(data.labels))


def stop_at(what: str, count: int) -> Callable[[str, int, int], None]:
    def progress(step: str, done: int, total: int) -> None:
        if step.startswith(what) and done == count:
            raise StoppedError

    return progress


def test_every_map_is_answered_once_a_seed(data: FlowMaps, tmp_path: Path) -> None:
    results = evaluate(TINY, data, tmp_path / "folds.jsonl", seeds=(0, 1))
    assert [(r.seed, r.subject) for r in results] == [(s, p) for s in (0, 1) for p in dict.fromkeys(data.subjects)]
    for seed in (0, 1):
        assert [n for r in results if r.seed == seed for n in r.names] == list(data.names)
        assert [t for r in results if r.seed == seed for t in r.truth] == data.labels.tolist()
    assert np.isfinite([row for r in results for row in r.logits]).all()
    assert all(a.logits != b.logits for a, b in zip(results[:4], results[4:], strict=True))


@pytest.mark.parametrize("groups", [None, 2])
def test_only_development_subjects_are_tested_by_networks_fitted_to_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: int | None
) -> None:
    people = tuple((d, f"{d}{i}") for d in ("smic", "samm") for i in range(4))
    data = htnet_3db.load(write_dataset(tmp_path / "set", per_class=1, subjects=people))
    seen: list[set[str]] = []

    def watched(recipe: Recipe, maps: FlowMaps, **options: Any) -> Committee:
        seen.append(set(maps.subjects))
        return fit(recipe, maps, **options)

    monkeypatch.setattr("training.fold.fit", watched)
    half = development_split(data.subjects, data.databases, DEVELOPMENT_SHARE, DEVELOPMENT_SEED)
    results = evaluate(TINY, data, tmp_path / "folds.jsonl", groups=groups, development=True)
    judged = [set(result.names) for result in results]
    assert sorted(name for names in judged for name in names) == sorted(data.names[i] for i in half)
    assert len(results) == (groups or len({data.subjects[i] for i in half}))
    for names, fitted in zip(judged, seen, strict=True):
        assert fitted == {s for s, name in zip(data.subjects, data.names, strict=True) if name not in names}
    with pytest.raises(ConfigError, match="another development"):
        evaluate(TINY, data, tmp_path / "folds.jsonl", groups=groups)


def test_a_fold_has_the_answers_of_each_part_of_the_committee(two: FlowMaps, tmp_path: Path) -> None:
    for result in evaluate(WHOLE, two, tmp_path / "folds.jsonl"):
        logits, members, kernel = (np.array(v) for v in (result.logits, result.members, result.kernel))
        assert members.shape == (3, 2, 3) and kernel.shape == logits.shape == (3, 3)
        assert np.abs(logits - (0.7 * members.mean(1) + 0.3 * kernel)).max() < 2e-5  # both rounded to 5 places
        assert not np.allclose(members[:, 0], members[:, 1], atol=1e-3) and result.peeked is None
    plain = evaluate(TINY, two, tmp_path / "plain.jsonl")[0]
    assert plain.kernel is None and plain.members == tuple((row,) for row in plain.logits)


def test_a_stopped_run_continues_and_ends_like_an_uninterrupted_one(data: FlowMaps, tmp_path: Path) -> None:
    whole = evaluate(TINY, data, tmp_path / "whole.jsonl")
    record = tmp_path / "broken.jsonl"
    with pytest.raises(StoppedError):
        evaluate(TINY, data, record, progress=stop_at("casme2/sub02", 2))
    with record.open("a") as file:
        file.write('{"fold": {"subject": "samm/0')  # killed while writing the third
    kept = record.read_text().splitlines()[1:3]
    steps: list[tuple[str, int, int]] = []
    resumed = evaluate(TINY, data, record, progress=lambda *step: steps.append(step))
    assert steps == [("subjects", 2, 4), ("samm/006", 3, 4), ("smic/s03", 4, 4)]
    assert answers(resumed) == answers(whole)
    assert record.read_text().splitlines()[1:3] == kept and len(record.read_text().splitlines()) == 5


def test_pre_trained_starts_are_kept_over_a_stop(two: FlowMaps, tmp_path: Path) -> None:
    both = recipe(2, pretrain=PRETRAIN)
    whole = evaluate(both, two, tmp_path / "a" / "folds.jsonl", seeds=(0, 1))
    record = tmp_path / "b" / "folds.jsonl"
    with pytest.raises(StoppedError):
        evaluate(both, two, record, seeds=(0, 1), progress=stop_at("start", 3))
    starts = {path: path.stat().st_mtime_ns for path in record.parent.glob("start-*.pt")}
    assert len(starts) == 3
    with pytest.raises(StoppedError):
        evaluate(both, two, record, seeds=(0, 1), progress=stop_at("casme2", 1))
    assert answers(evaluate(both, two, record, seeds=(0, 1))) == answers(whole)
    assert {path: path.stat().st_mtime_ns for path in starts} == starts
    assert len(list(record.parent.glob("start-*"))) == 4


def test_a_finished_run_fits_nothing_again(two: FlowMaps, tmp_path: Path) -> None:
    record = tmp_path / "folds.jsonl"
    first = evaluate(WHOLE, two, record)
    before = record.read_bytes()
    for start in tmp_path.glob("start-*.pt"):
        start.unlink()
    assert evaluate(WHOLE, two, record) == first and record.read_bytes() == before
    assert not list(tmp_path.glob("start-*.pt"))


def test_several_processes_answer_as_one(two: FlowMaps, tmp_path: Path) -> None:
    one, several = (evaluate(WHOLE, two, tmp_path / f"{jobs}" / "folds.jsonl", jobs=jobs) for jobs in (1, 2))
    assert answers(one) == answers(several)


def test_another_pool_gives_the_same_answers(two: FlowMaps, tmp_path: Path) -> None:
    pool = PoolHere()
    elsewhere = evaluate(recipe(), two, tmp_path / "b.jsonl", open_pool=pool.open)
    assert answers(elsewhere) == answers(evaluate(recipe(), two, tmp_path / "a.jsonl")) and pool.given == [2]


def test_groups_are_tested_by_networks_fitted_to_none_of_them(data: FlowMaps, tmp_path: Path) -> None:
    record = tmp_path / "folds.jsonl"
    results = evaluate(TINY, data, record, groups=2)
    assert [r.subject for r in results] == ["group0", "group1"]
    assert sorted(n for r in results for n in r.names) == sorted(data.names)
    people = [{data.subjects[data.names.index(name)] for name in r.names} for r in results]
    assert [len(p) for p in people] == [2, 2] and not people[0] & people[1]
    assert read_record(record)[0]["groups"] == 2


def test_another_recipe_other_data_or_another_division_are_not_mixed_in(data: FlowMaps, tmp_path: Path) -> None:
    record = tmp_path / "folds.jsonl"
    evaluate(TINY, data, record)
    with pytest.raises(ConfigError, match=r"of another recipe;"):
        evaluate(recipe(epochs=3), data, record)
    with pytest.raises(ConfigError, match=r"of another data and maps;"):
        evaluate(TINY, data.take(range(9)), record)
    with pytest.raises(ConfigError, match=r"of another groups;"):
        evaluate(TINY, data, record, groups=2)
    grouped = tmp_path / "groups.jsonl"
    evaluate(TINY, data, grouped, groups=2)
    with pytest.raises(ConfigError, match=r"of another groups;"):
        evaluate(TINY, data, grouped)


def test_the_test_subject_changes_nothing_in_its_own_fold(data: FlowMaps, tmp_path: Path) -> None:
    """Other labels for one subject leave that subject's answers as they were: nothing of it reaches its fold's fit."""
    labels = data.labels.copy()
    mine = [i for i, s in enumerate(data.subjects) if s == "samm/006"]
    labels[mine] = (labels[mine] + 1) % 3
    with_kernel = recipe(kernel={"centres": 60})
    one = evaluate(with_kernel, data, tmp_path / "1.jsonl")
    other = evaluate(with_kernel, replace(data, labels=labels), tmp_path / "2.jsonl")
    for before, after in zip(one, other, strict=True):
        assert (before.logits == after.logits) == (before.subject == "samm/006")


def test_peeking_is_never_worse_and_changes_no_honest_answer(data: FlowMaps, tmp_path: Path) -> None:
    tried, noise = recipe(epochs=5), shuffled(data)
    honest = evaluate(tried, noise, tmp_path / "honest.jsonl")
    peeking = evaluate(tried, noise, tmp_path / "peeking.jsonl", select_on_test=True)
    assert answers([replace(r, peeked=None) for r in peeking]) == answers(honest)

    def right(rows: tuple[tuple[float, ...], ...] | None, truth: tuple[int, ...]) -> int:
        return int((np.array(rows).argmax(1) == truth).sum())

    pairs = [(right(r.logits, r.truth), right(r.peeked, r.truth)) for r in peeking]
    assert all(leak >= fair for fair, leak in pairs) and any(leak > fair for fair, leak in pairs)


def test_a_fold_that_was_tested_without_peeking_is_tested_again(two: FlowMaps, tmp_path: Path) -> None:
    record = tmp_path / "folds.jsonl"
    honest = evaluate(TINY, two, record)
    peeking = evaluate(TINY, two, record, select_on_test=True)
    assert all(r.peeked is not None for r in peeking)
    before = record.read_bytes()
    assert evaluate(TINY, two, record) == evaluate(TINY, two, record, select_on_test=True) == peeking
    assert record.read_bytes() == before and read_record(record)[1] == peeking
    assert [r.logits for r in honest] == [r.logits for r in peeking]


def test_a_pool_with_gpus_is_given_stacks_of_folds(data: FlowMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU stands for its GPUs."""
    pool, both = PoolHere(gpus=2), recipe(2, pretrain=PRETRAIN)
    monkeypatch.setattr("training.loso.device_name", lambda device: f"a {device}")
    record = tmp_path / "pool" / "folds.jsonl"
    options: Any = {"seeds": (0, 1), "select_on_test": True}
    found = evaluate(both, data, record, **options, open_pool=pool.open)
    alone = evaluate(both, data, tmp_path / "alone" / "folds.jsonl", **options, stacked_on=CPU)
    assert pool.given == [4, 2]  # starts; one stack a seed
    assert np.allclose([r.logits for r in found], [r.logits for r in alone], atol=5e-3)
    assert makers(record, found) == [{"folds": 8, **made_here("a cpu")}]
    late = evaluate(both, data, tmp_path / "late" / "folds.jsonl", **options, open_pool=pool.open, seconds=0)
    assert [result.seed for result in late] == [1] * 4  # that which is done first


def test_one_subject_in_two_databases_is_refused(data: FlowMaps, tmp_path: Path) -> None:
    mixed = replace(data, databases=("samm", *data.databases[1:]))
    with pytest.raises(InputError, match="casme2/sub01 is in two databases, samm and casme2"):
        evaluate(TINY, mixed, tmp_path / "folds.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_record_that_cannot_be_written_is_an_error(two: FlowMaps, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        evaluate(TINY, two, tmp_path / "file" / "folds.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        evaluate(TINY, two, tmp_path / "folder")


def test_a_record_of_an_older_version_continues_if_recipes_have_only_gained_settings(two: FlowMaps, tmp_path: Path) -> None:
    record = tmp_path / "folds.jsonl"
    first = evaluate(TINY, two, record)
    header, *folds = record.read_text().splitlines()
    older = json.loads(header)
    del older["evaluation"]["recipe"]["kernel"], older["evaluation"]["recipe"]["fit"]["schedule"]
    record.write_text("\n".join((json.dumps(older), *folds, "")))
    assert evaluate(TINY, two, record) == first
    assert read_record(record)[0]["recipe"] == TINY.model_dump(mode="json")


def test_a_record_lists_what_fitted_each_fold(two: FlowMaps, tmp_path: Path) -> None:
    record = tmp_path / "folds.jsonl"
    results = evaluate(TINY, two, record, seeds=(0, 1))
    assert makers(record, results) == [{"folds": 4, **made_here("cpu")}]
    header, first, second, *more = record.read_text().splitlines()
    older, other = json.loads(first), json.loads(second)
    del older["made_by"]  # as folds were kept before
    other["made_by"]["commit"] = "c0ffee"
    record.write_text("\n".join((header, json.dumps(older), json.dumps(other), *more, "")))
    assert evaluate(TINY, two, record, seeds=(0, 1)) == results
    found = makers(record, results)
    assert [(each["folds"], each["commit"]) for each in found] == [(1, "unknown"), (1, "c0ffee"), (2, made_here()["commit"])]
    assert makers(record, results[:1]) == [{"folds": 1, "commit": "unknown"}]


@pytest.mark.parametrize("length", [0, 1, 40])
def test_a_record_that_was_cut_off_in_its_first_line_is_restarted(two: FlowMaps, tmp_path: Path, length: int) -> None:
    record = tmp_path / "folds.jsonl"
    first = evaluate(TINY, two, record)
    record.write_bytes(record.read_bytes()[:length])
    assert answers(evaluate(TINY, two, record)) == answers(first) and read_record(record)[0]["maps"] == len(two)


def test_a_file_of_another_kind_is_not_overwritten(two: FlowMaps, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("my notes")
    with pytest.raises(ConfigError, match="not a record of an evaluation"):
        evaluate(TINY, two, tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "my notes"
