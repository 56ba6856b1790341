"""Tiles: together they cover a level, each pixel is settled by one of them, and no launch reaches past its halo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ops.tvl1.method import METHOD, Method, sizes
from engine.ops.tvl1.tiling import LARGEST, Tiling, cycles, tile


def written(tiling: Tiling, height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """How many tiles write each patch, by the kernel's rule: all but the halo, except at the picture's border."""
    grid = -(-height // tiling.side), -(-width // tiling.side)
    count = np.zeros(grid, int)
    for down in range(tiling.down):
        first_row, end_row = _own(down, tiling.down, tiling.rows, tiling.halo, grid[0])
        for across in range(tiling.across):
            first_column, end_column = _own(across, tiling.across, tiling.columns, tiling.halo, grid[1])
            count[first_row:end_row, first_column:end_column] += 1
    return count


def _own(number: int, tiles: int, length: int, halo: int, grid: int) -> tuple[int, int]:
    """The first patch that tile `number` of a line writes, and the one after its last."""
    begin, following = (min(n * (length - 2 * halo), grid - length) for n in (number, number + 1))
    first, end = begin + halo * (number > 0), grid if number == tiles - 1 else following + halo
    assert 0 <= begin <= first <= end
    assert end <= begin + length - halo * (number < tiles - 1)
    return first, end


@settings(max_examples=80, deadline=None)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    method=st.builds(Method, iterations=st.integers(1, 30), median=st.sampled_from([1, 3])),
    pairs=st.integers(1, 600), largest=st.sampled_from([64, 128, LARGEST]), side=st.sampled_from([2, 4]),
)  # fmt: skip
def test_tiles_cover_every_pixel_and_settle_each_once(
    size: tuple[int, int], method: Method, pairs: int, largest: int, side: int
) -> None:
    (height, width), iterations, median = size, method.iterations, method.median
    tiling = tile(size, method, pairs, largest=largest, sides=(side,))
    assert sum(tiling.launches) == iterations
    assert min(tiling.launches) > 0
    assert tiling.rows * tiling.columns <= tiling.patches <= largest
    assert tiling.patches.bit_count() == 1
    if tiling.down * tiling.across > 1:
        assert tiling.halo * side >= max(tiling.launches)
        assert tiling.halo * side >= tiling.launches[-1] + (median > 1)
    else:
        assert (tiling.rows, tiling.columns, tiling.halo) == (-(-height // side), -(-width // side), 0)
    assert (written(tiling, height, width) == 1).all()


def test_one_pair_is_spread_and_many_pairs_are_not() -> None:
    alone, many = tile((128, 128), pairs=1), tile((128, 128), pairs=64)
    assert alone.down * alone.across > 4 * many.down * many.across
    for other, pairs in ((alone, 64), (many, 1)):
        assert cycles(other, METHOD, pairs, 132) > cycles(tile((128, 128), pairs=pairs), METHOD, pairs, 132)


def test_a_face_needs_few_tiles() -> None:
    tilings = [tile(size, pairs=64) for size in sizes(128, 128)]
    work = sum(t.down * t.across * t.rows * t.columns * t.side**2 for t in tilings)
    assert work < 1.7 * sum(h * w for h, w in sizes(128, 128))


@pytest.mark.parametrize("size", [(1, 32_000), (32_000, 1), (32_000, 32_000)])
def test_the_longest_pictures_have_a_tiling(size: tuple[int, int]) -> None:
    tiling = tile(size)
    for tiles, length, side in ((tiling.down, tiling.rows, size[0]), (tiling.across, tiling.columns, size[1])):
        covered = tiles * (length - 2 * tiling.halo) + 2 * tiling.halo if tiles > 1 else length
        assert covered * tiling.side >= side
