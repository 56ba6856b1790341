"""Iterations on chip: the borders of pictures that end anywhere in a patch, and the median filter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.engine.ops.tvl1.test_gpu import ONE_LEVEL, SHORT, expected, noise, solved


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(9, 12), (10, 11)])
@pytest.mark.parametrize("median", [1, 3])
def test_pictures_that_end_anywhere_in_a_patch(shape: tuple[int, int], median: int) -> None:
    method = dataclasses.replace(SHORT, levels=1, warps=1, median=median)
    fixed, moving = noise(2, 1, *shape, seed=3)
    np.testing.assert_allclose(solved(fixed, moving, method), expected(fixed, moving, method), atol=ONE_LEVEL)
