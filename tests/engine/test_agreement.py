from __future__ import annotations

import pytest

from engine.agreement import cohen_kappa


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
