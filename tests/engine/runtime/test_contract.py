from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import ArrayError
from engine.runtime.contract import checked

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
