from __future__ import annotations

import random
from collections import Counter

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from engine.agreement import cohen_kappa, krippendorff_alpha


def test_the_example_of_the_textbook() -> None:
    """50 grants judged by two readers: 20 both yes, 15 both no, 5 and 10 different."""
    assert cohen_kappa({("y", "y"): 20, ("y", "n"): 5, ("n", "y"): 10, ("n", "n"): 15}) == pytest.approx(0.4)


def test_full_chance_and_no_agreement() -> None:
    assert cohen_kappa({("a", "a"): 3, ("b", "b"): 1}) == 1
    assert cohen_kappa({("a", "a"): 1, ("a", "b"): 1, ("b", "a"): 1, ("b", "b"): 1}) == 0
    assert cohen_kappa({("a", "b"): 1, ("b", "a"): 1}) == -1


@pytest.mark.parametrize("table", [{}, {("a", "a"): 5}, {("a", "b"): 0}])
def test_where_it_is_not_defined(table: dict[tuple[str, str], int]) -> None:
    assert cohen_kappa(table) is None


def test_one_label_against_several_is_chance() -> None:
    assert cohen_kappa({("a", "a"): 5, ("a", "b"): 5}) == 0


def test_kappa_is_that_of_scikit_learn() -> None:
    chance = random.Random(3)
    for number in range(20):
        labels = ("negative", "positive", "surprise", "none")[: 2 + number % 3]
        one, other = (chance.choices(labels, k=30) for _ in range(2))
        table = Counter(zip(one, other, strict=True))
        assert cohen_kappa(table) == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)


def test_alpha_is_that_of_the_reference_implementation() -> None:
    chance = random.Random(4)
    for _ in range(20):
        judged = [[chance.choice(("a", "b", "c", None)) for _ in range(40)] for _ in range(3)]
        units = [[label for label in unit if label is not None] for unit in zip(*judged, strict=True)]
        table = np.array([[np.nan if label is None else "abc".index(label) for label in coder] for coder in judged])
        expected = krippendorff.alpha(reliability_data=table, level_of_measurement="nominal", value_domain=[0, 1, 2])
        assert krippendorff_alpha(units) == pytest.approx(expected, abs=1e-12)


def test_alpha_at_its_ends() -> None:
    assert krippendorff_alpha([["a", "a", "a"], ["b", "b"], ["c"]]) == 1
    assert krippendorff_alpha([]) is krippendorff_alpha([["a"]]) is krippendorff_alpha([["a", "a"]]) is None
