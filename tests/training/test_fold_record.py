from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import ConfigError, OutputError
from training.fold_record import FoldResult, append_fold, makers, open_record, read_record, with_defaults
from training.provenance import made_here
from training.recipe import Recipe

HEADER = {"recipe": {"name": "tiny"}, "maps": 4, "data": "abc"}
FOLD = FoldResult("casme2/sub01", 0, ("a", "b"), (0, 2), ((1.0, 0.0, 0.5), (0.0, 1.0, 0.5)), 1.5, members=(((1.0, 2.0, 3.0),),))


def test_a_record_continues_where_it_was(tmp_path: Path) -> None:
    record = tmp_path / "new" / "folds.jsonl"
    assert open_record(record, HEADER) == []
    append_fold(record, FOLD, made_here())
    append_fold(record, replace(FOLD, seed=1), {"commit": "c0ffee"})
    assert open_record(record, HEADER) == [FOLD, replace(FOLD, seed=1)]
    assert read_record(record) == (HEADER, [FOLD, replace(FOLD, seed=1)])
    assert makers(record, [FOLD]) == [{"folds": 1, **made_here()}]


def test_of_a_fold_evaluated_twice_the_later_one_counts(tmp_path: Path) -> None:
    record = tmp_path / "folds.jsonl"
    open_record(record, HEADER)
    again = replace(FOLD, peeked=FOLD.logits)
    append_fold(record, FOLD, {})
    append_fold(record, again, {})
    assert open_record(record, HEADER) == [again]


def test_a_line_that_was_cut_off_is_removed(tmp_path: Path) -> None:
    record = tmp_path / "folds.jsonl"
    open_record(record, HEADER)
    append_fold(record, FOLD, {})
    whole = record.read_bytes()
    record.write_bytes(whole + whole[-40:-1])
    assert open_record(record, HEADER) == [FOLD] and record.read_bytes() == whole


def test_another_header_is_refused(tmp_path: Path) -> None:
    open_record(tmp_path / "folds.jsonl", HEADER)
    with pytest.raises(ConfigError, match="is of another data and groups;"):
        open_record(tmp_path / "folds.jsonl", {**HEADER, "data": "def", "groups": 2})


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        open_record(tmp_path / "file" / "folds.jsonl", HEADER)
    with pytest.raises(OutputError, match="cannot be written"):
        append_fold(tmp_path / "none" / "folds.jsonl", FOLD, {})


@pytest.mark.parametrize(
    "text", ["", "{}\n", json.dumps({"evaluation": {}}) + "\n{}\n", "no json\n", '{"evaluation": {}}\n{"fold": []}\n']
)
def test_what_is_not_a_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a record of an evaluation"):
        read_record(path)


def test_of_a_damaged_record_the_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "folds.jsonl"
    path.write_text(json.dumps({"evaluation": {}}) + '\n{"fold": {\n')
    with pytest.raises(ConfigError, match="line 2, is damaged; delete that line, and only its fold is evaluated again"):
        read_record(path)


def test_settings_that_were_added_since_get_their_defaults() -> None:
    fit = {"epochs": 1, "batch": 2, "learning_rate": 1.0}
    older = {"name": "tiny", "model": {"name": "ahmsa"}, "fit": fit}
    assert with_defaults(older) == Recipe.model_validate(older).model_dump(mode="json")
    assert with_defaults({"name": "none"}) == {"name": "none"}
