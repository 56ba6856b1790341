"""Tiles: together they cover a level, each pixel is settled by one of them, and no launch reaches past its halo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ops.tvl1.method import METHOD, sizes
from engine.ops.tvl1.tiling import CELLS, Tiling, tile


def written(tiling: Tiling, height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """How many tiles write each pixel, by the kernel's rule: all but the halo, except at the picture's border."""
    count = np.zeros((height, width), int)
    halo = tiling.halo
    for down in range(tiling.down):
        for across in range(tiling.across):
            top, left = down * (tiling.rows - 2 * halo), across * (tiling.columns - 2 * halo)
            first_row, first_column = top + halo * (top > 0), left + halo * (left > 0)
            last_row = height if top + tiling.rows >= height else top + tiling.rows - halo
            last_column = width if left + tiling.columns >= width else left + tiling.columns - halo
            count[first_row:last_row, first_column:last_column] += 1
    return count


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 200), width=st.integers(1, 200), iterations=st.integers(1, 30),
    median=st.booleans(), cells=st.sampled_from([256, 1024, CELLS]),
)  # fmt: skip
def test_tiles_cover_every_pixel_and_settle_each_once(
    height: int, width: int, iterations: int, median: bool, cells: int
) -> None:
    tiling = tile(height, width, iterations, median, cells)
    assert sum(tiling.launches) == iterations
    assert min(tiling.launches) > 0
    assert tiling.rows * tiling.columns <= tiling.cells <= cells
    assert tiling.cells.bit_count() == 1
    if tiling.whole:
        assert (tiling.rows, tiling.columns, tiling.halo) == (height, width, 0)
    else:
        assert tiling.halo >= max(tiling.launches)
        assert tiling.halo >= tiling.launches[-1] + median
    assert (written(tiling, height, width) == 1).all()


def test_what_fits_into_one_tile_stays_in_one() -> None:
    assert tile(64, 64, 20, True).whole
    assert not tile(65, 64, 20, True).whole


def test_a_face_needs_few_tiles() -> None:
    tilings = [tile(*size, METHOD.iterations, METHOD.median > 1) for size in sizes(128, 128)]
    work = sum(t.down * t.across * t.cells for t in tilings)
    assert work < 2.2 * sum(h * w for h, w in sizes(128, 128))


@pytest.mark.parametrize(("height", "width"), [(1, 32_000), (32_000, 1), (32_000, 32_000)])
def test_the_longest_pictures_have_a_tiling(height: int, width: int) -> None:
    tiling = tile(height, width, 20, True)
    assert tiling.down * (tiling.rows - 2 * tiling.halo) + 2 * tiling.halo >= height
    assert tiling.across * (tiling.columns - 2 * tiling.halo) + 2 * tiling.halo >= width
