from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import ArrayError, BackendError
from engine.runtime.contract import Runner, checked
from engine.types import F32

SHAPE = (3, 28, 28)


def test_fitting_maps_pass_unchanged_and_contiguous() -> None:
    maps = np.random.default_rng(0).random((2, 3, 28, 28), np.float32)[..., ::-1]
    passed = checked(maps, SHAPE)
    assert np.array_equal(passed, maps) and passed.flags.c_contiguous


@pytest.mark.parametrize(
    ("maps", "says"),
    [
        (np.zeros((1, 3, 28, 28)), "float32 array, not float64"),
        ([[0.0]], "float32 array, not list"),
        (np.zeros((3, 28, 28), np.float32), r"\[B, 3, 28, 28\], not \[3, 28, 28\]"),
        (np.zeros((1, 3, 14, 28), np.float32), r"not \[1, 3, 14, 28\]"),
        (np.full((1, 3, 28, 28), np.nan, np.float32), "not finite"),
        (np.full((1, 3, 28, 28), np.inf, np.float32), "not finite"),
    ],
)
def test_anything_else_is_refused(maps: Any, says: str) -> None:
    with pytest.raises(ArrayError, match=says):
        checked(maps, SHAPE)


class Broken(Runner):
    """Its answers are no numbers."""

    classes, input_shape = ("one", "other"), SHAPE

    def _run(self, maps: F32) -> F32:
        return np.full((len(maps), 2), np.nan, np.float32)


def test_answers_that_are_no_numbers_are_a_failure_of_the_backend() -> None:
    with pytest.raises(BackendError, match="answers are not finite"):
        Broken()(np.zeros((1, *SHAPE), np.float32))


def test_no_maps_have_no_answers() -> None:
    assert Broken()(np.zeros((0, *SHAPE), np.float32)).shape == (0, 2)
