"""Patches of either size: what their threads exchange, load and store."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.engine.ops.tvl1.test_gpu import ONE_LEVEL, SHORT, expected, noise, solved


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("shape", "largest"), [((14, 23), 256), ((30, 21), 32)])
def test_patches_of_four_by_four_give_what_those_of_two_by_two_give(shape: tuple[int, int], largest: int) -> None:
    method = dataclasses.replace(SHORT, levels=1, warps=1)
    fixed, moving = noise(2, 1, *shape, seed=4)
    flow = solved(fixed, moving, method, largest, side=4)
    np.testing.assert_allclose(flow, solved(fixed, moving, method), atol=1e-6)
    np.testing.assert_allclose(flow, expected(fixed, moving, method), atol=ONE_LEVEL)
