from __future__ import annotations

import pytest

from engine.errors import InputError
from training.split import Fold, check_apart, development_split, group_folds, leave_one_subject_out

SUBJECTS = ["a/1", "a/2", "a/1", "b/1", "b/2", "b/2", "a/3", "b/1"]


def test_each_subject_is_tested_once_by_what_never_saw_it() -> None:
    folds = leave_one_subject_out(SUBJECTS)
    assert [f.name for f in folds] == ["a/1", "a/2", "b/1", "b/2", "a/3"]
    assert sorted(i for f in folds for i in f.test) == list(range(len(SUBJECTS)))
    for fold in folds:
        assert not {SUBJECTS[i] for i in fold.train} & {SUBJECTS[i] for i in fold.test}
        assert len(fold.train) + len(fold.test) == len(SUBJECTS)


def test_the_same_number_in_two_databases_is_two_people() -> None:
    assert next(f for f in leave_one_subject_out(SUBJECTS) if f.name == "a/1").test == (0, 2)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_groups_divide_the_subjects(count: int) -> None:
    folds = group_folds(SUBJECTS, count, seed=4)
    assert len(folds) == count and sorted(i for f in folds for i in f.test) == list(range(len(SUBJECTS)))
    for fold in folds:
        assert not {SUBJECTS[i] for i in fold.train} & {SUBJECTS[i] for i in fold.test}


def test_a_seed_draws_the_same_groups_again() -> None:
    assert group_folds(SUBJECTS, 3, seed=4) == group_folds(SUBJECTS, 3, seed=4)
    assert group_folds(SUBJECTS, 3, seed=4) != group_folds(SUBJECTS, 3, seed=5)


def test_a_development_split_takes_whole_people_of_each_database() -> None:
    subjects = [f"{d}/{n % 6}" for d in "ab" for n in range(18)]
    chosen = development_split(subjects, [s[0] for s in subjects], 0.5, seed=1)
    inside = {subjects[i] for i in chosen}
    outside = {s for i, s in enumerate(subjects) if i not in set(chosen)}
    assert not inside & outside
    assert sum(s.startswith("a") for s in inside) == sum(s.startswith("b") for s in inside) == 3


def test_every_division_by_subject_is_apart() -> None:
    for folds in (leave_one_subject_out(SUBJECTS), group_folds(SUBJECTS, 3, seed=4)):
        check_apart(folds, SUBJECTS, [s[0] for s in SUBJECTS])


@pytest.mark.parametrize(
    ("folds", "databases", "message"),
    [
        ([Fold("x", (0, 1, 3), (2,))], "aaabbbab", "fold x fits to its own test subject, a/1;"),
        ([Fold("x", (1, 3), (0,)), Fold("y", (4, 5), (2,))], "aaabbbab", "subject a/1 is tested in two folds"),
        ([], "aaabbbaa", "subject b/1 is in two databases, b and a;"),
    ],
    ids=["on both sides", "tested twice", "in two databases"],
)
def test_a_subject_in_two_places_is_refused(folds: list[Fold], databases: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_apart(folds, SUBJECTS, list(databases))


def test_impossible_divisions_are_refused() -> None:
    with pytest.raises(InputError, match="at least two subjects"):
        leave_one_subject_out(["a/1", "a/1"])
    with pytest.raises(InputError, match="2 to 5"):
        group_folds(SUBJECTS, 6, seed=0)
