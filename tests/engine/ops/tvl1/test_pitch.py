"""How far planes are apart."""

from __future__ import annotations

import numpy as np
import pytest

from engine.ops.tvl1 import compiled
from engine.ops.tvl1.method import gaussian
from engine.ops.tvl1.pitch import CELL, PAGE, clearance, plane_pitch


@pytest.mark.parametrize("shape", [(128, 128), (90, 90), (63, 63), (44, 44), (31, 31), (127, 63), (255, 1023)])
def test_planes_are_apart_by_what_keeps_loads_clear_of_stores(shape: tuple[int, int]) -> None:
    height, width = shape
    least = (height + 1) * (width + 1)
    cells = plane_pitch(height, width)
    assert least <= cells <= least + PAGE // CELL
    assert clearance(cells, width + 1) > 300
    assert clearance(cells, width + 1) >= clearance(least, width + 1)


def test_the_distance_of_the_planes_changes_no_number() -> None:
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 31, 31)).astype(np.float32)
    rest = (np.zeros((2, 31, 31), np.float32), gaussian(0.5), 2, 5, 3, *map(np.float32, (0.03, 0.25, 1.7, 0)))
    tight, apart = (
        compiled.solver()(pictures, rest[0], np.array([[31, 31, cells]], np.int64), *rest[1:])
        for cells in (32 * 32, plane_pitch(31, 31))
    )
    np.testing.assert_array_equal(tight, apart)
