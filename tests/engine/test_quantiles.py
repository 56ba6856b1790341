from __future__ import annotations

import numpy as np
import pytest

from engine.quantiles import median, percentile

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (30,), (1, 4), (18, 30), (19, 30)])
def test_the_median_is_numpys_to_the_last_bit(shape: tuple[int, ...]) -> None:
    values = RNG.normal(size=shape)
    assert np.array_equal(median(values), np.median(values, axis=0))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 90, 91, 92, 93])
@pytest.mark.parametrize("percent", [0, 10, 75, 100])
def test_the_percentile_is_numpys_to_the_last_bit(count: int, percent: float) -> None:
    values = RNG.normal(size=count)
    assert percentile(values, percent) == np.percentile(values, percent)
