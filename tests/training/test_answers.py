from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import InputError
from training.answers import gather
from training.datasets import FlowMaps
from training.fold_record import FoldResult

ONE = ((3.0, 0.0, 0.0), (0.0, 3.0, 0.0))
FOLDS = [
    FoldResult("casme2/1", 0, ("a", "b"), (0, 1), ONE, 1.0),
    FoldResult("samm/7", 0, ("c",), (2,), ((0.0, 1.0, 2.0),), 1.0),
]
MAPS = FlowMaps(
    np.zeros((3, 3, 28, 28), np.float32),
    np.zeros((3, 5, 2), np.float32),
    np.array([0, 1, 2]),
    names=("a", "b", "c"),
    databases=("casme2", "casme2", "samm"),
    subjects=("casme2/1", "casme2/1", "samm/7"),
)


def test_each_map_stands_with_its_subject_and_database() -> None:
    (table,) = gather(FOLDS)
    assert table.names == ("a", "b", "c") and table.subjects == ("casme2/1", "casme2/1", "samm/7")
    assert table.databases == ("casme2", "casme2", "samm") and table.truth.tolist() == [0, 1, 2]
    assert table.members is None and table.peeked is None


def test_scores_pool_the_answers_of_all_folds_or_of_one_database() -> None:
    (table,) = gather(FOLDS)
    assert table.scores().confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert table.scores(database="samm").confusion.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert table.scores(-table.logits, "casme2").accuracy == 0


def test_a_group_of_subjects_is_taken_apart_again() -> None:
    (first, second) = FOLDS
    group = FoldResult("group0", 0, first.names + second.names, (0, 1, 2), first.logits + second.logits, 2.0)
    (table,) = gather([group], MAPS)
    assert table.subjects == MAPS.subjects and table.databases == MAPS.databases


def test_seeds_are_put_into_the_first_ones_order() -> None:
    later = [replace(fold, seed=1) for fold in reversed(FOLDS)]
    first, second = gather([*FOLDS, *later])
    assert second.seed == 1 and second.names == first.names
    assert np.array_equal(second.logits, first.logits) and np.array_equal(second.truth, first.truth)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([], "no fold"),
        ([*FOLDS, FOLDS[0]], "casme2/1/a was tested twice"),
        ([*FOLDS, replace(FOLDS[0], seed=1)], "seed 1 tested other maps"),
        ([replace(FOLDS[1], logits=((0.0, 1.0),))], "not one row of 3"),
        ([replace(FOLDS[1], logits=((0.0, 1.0, float("nan")),))], "not finite"),
    ],
)
def test_what_does_not_fit_together_is_refused(folds: list[FoldResult], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gather(folds)


@pytest.mark.parametrize("fold", [replace(FOLDS[1], names=("x",)), replace(FOLDS[1], names=("a",))])
def test_maps_that_the_data_do_not_give_to_the_subject_are_refused(fold: FoldResult) -> None:
    with pytest.raises(InputError, match="which the data do not contain"):
        gather([fold], MAPS)
