"""How a level of the pyramid is cut into tiles that a GPU keeps on chip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

CELLS = 4096
"""Pixels of the largest tile: ten float32 fields of it (160 KiB) fit into the registers of one multiprocessor."""
REFILL = 3
"""What a tile's loads and stores cost beside its iterations, in iterations; an estimate."""
START = 5
"""What one more launch costs, in iterations of one tile; an estimate."""
MAX_ACROSS = 2048
"""Tiles in a row that are tried; enough for the longest side."""


@dataclass(frozen=True)
class Tiling:
    """`down` x `across` tiles of `rows` x `columns` pixels that overlap by 2 * halo, and the iterations of each launch.

    cells is the power of two that holds a tile. One tile (halo 0) holds the whole level and takes all iterations at once.
    """

    rows: int
    columns: int
    down: int
    across: int
    halo: int
    cells: int
    launches: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether one tile is the whole level, so that all its warps can stay on chip."""
        return self.down * self.across == 1


@lru_cache(maxsize=64)
def tile(height: int, width: int, iterations: int, median: bool, cells: int = CELLS) -> Tiling:
    """The cheapest way to run a warp's iterations, and the 3 x 3 median after them, over a level of height x width pixels.

    An iteration, and the median, each carry what is wrong at a tile's edge one pixel inward; the halo is as deep as a launch
    goes. Fewer, longer launches cost wider halos: the best is searched.
    """
    if height * width <= cells:
        return Tiling(height, width, 1, 1, 0, _power_of_two(height * width), (iterations,))
    found = [
        option
        for launches in range(1, iterations + 1)
        for across in range(1, min(width, MAX_ACROSS) + 1)
        if (option := _cut((height, width), _spread(iterations, launches), across, median, cells))
    ]
    return min(found, key=_cost)


def _cut(level: tuple[int, int], launches: tuple[int, ...], across: int, median: bool, cells: int) -> Tiling | None:
    """Tiles with the halo that these launches need, `across` in a row; None where the halos leave nothing."""
    height, width = level
    halo = max(*launches, launches[-1] + median)
    columns = -(-(width + 2 * halo * (across - 1)) // across)
    rows = min(cells // columns, height)
    if (across > 1 and columns <= 2 * halo) or (rows < height and rows <= 2 * halo):
        return None
    down = 1 if rows == height else -(-(height - 2 * halo) // (rows - 2 * halo))
    rows = -(-(height + 2 * halo * (down - 1)) // down)
    return Tiling(rows, columns, down, across, halo, _power_of_two(rows * columns), launches)


def _cost(option: Tiling) -> int:
    busy = option.down * option.across * option.cells // 32
    launches = len(option.launches)
    return busy * (sum(option.launches) + REFILL * launches) + START * launches * CELLS // 32


def _spread(iterations: int, launches: int) -> tuple[int, ...]:
    """Iterations over launches as evenly as they go, the last one, which has the median to do, never above another."""
    least, more = divmod(iterations, launches)
    return tuple(least + (number < more) for number in range(launches))


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
