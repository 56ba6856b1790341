"""How a level of the pyramid is cut into tiles that a GPU keeps on chip, by a model of the time that each way takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from engine.ops.tvl1.method import METHOD, Method

LARGEST = 256
"""Patches of the largest tile, a thread each."""
SMALLEST = 32
"""Patches of the smallest tile: a warp has 32 threads."""
PROCESSORS = 132
"""Multiprocessors of the GPU where none is there to be asked (an H200's)."""


@dataclass(frozen=True)
class Patch:
    """What a thread with side x side pixels costs, by the compiled code (`python -m lab.flow_bench.kernels`).

    instructions, and wavefronts in shared memory for 32 threads, of one iteration; registers of a thread.
    """

    side: int
    instructions: int
    wavefronts: int
    registers: int


PATCHES = (Patch(4, 678, 64, 256), Patch(2, 194, 32, 80))
"""Large patches take the fewest instructions a pixel; small ones let a single pair use more multiprocessors."""

REGISTERS = 65536
"""Of one multiprocessor."""
SCHEDULERS = 4
"""Of one multiprocessor; each starts an instruction of 32 threads per cycle."""
ITERATION = 400
"""Cycles of an iteration in which a tile alone waits for barriers and results; an estimate."""
TRAFFIC, TRAFFIC_WAIT = 30, 2000
"""Cycles of 32 pixels to load and store a tile, and the wait for memory; an estimate."""
MEDIAN = 2
"""What the median filter costs, in iterations."""
LAUNCH = 3500
"""Cycles from the end of one launch to the start of the next; an estimate."""


@dataclass(frozen=True)
class Tiling:
    """`down` x `across` tiles of `rows` x `columns` patches that share 2 * halo patches, and the iterations of each launch.

    patches is the power of two that holds a tile, `side` the pixels of a patch's side. Where one tile
    holds the whole level its halo is 0 and one launch takes all iterations of a warp.
    """

    side: int
    rows: int
    columns: int
    down: int
    across: int
    halo: int
    patches: int
    launches: tuple[int, ...]


@lru_cache(maxsize=256)
def tile(
    level: tuple[int, int],
    method: Method = METHOD,
    pairs: int = 1,
    *,
    processors: int = PROCESSORS,
    largest: int = LARGEST,
    sides: tuple[int, ...] = (4, 2),
) -> Tiling:
    """The fastest way, by the model, to solve a level of (height, width) pixels of `pairs` pairs at once.

    processors are the GPU's multiprocessors; a tile has at most `largest` patches, of one of `sides` pixels a side.

    An iteration, and the median, each carry what is wrong at a tile's edge one pixel inward; the halo is as deep as a launch
    goes. Fewer, longer launches cost wider halos, smaller tiles more of them: the best is searched.
    """
    found = [option for side in sides for option in _options(level, side, method, largest)]
    return min(found, key=lambda option: cycles(option, method, pairs, processors))


def _options(level: tuple[int, int], side: int, method: Method, largest: int) -> Iterator[Tiling]:
    grid = _up(level[0], side), _up(level[1], side)
    if grid[0] * grid[1] <= largest:
        yield Tiling(side, *grid, 1, 1, 0, _power_of_two(grid[0] * grid[1]), (method.iterations,))
    median = int(method.median > 1)
    for halo in range(1, _up(method.iterations + median, side) + 1):
        most = halo * side  # iterations of a launch, the last of which has the median to do as well
        launches = _spread(method.iterations, _up(method.iterations + median, most))
        if max(*launches, launches[-1] + median) > most:
            continue
        for columns in range(1, min(grid[1], largest) + 1):
            if columns == grid[1] or columns > 2 * halo:
                yield from _cut(grid, Tiling(side, 0, columns, 0, 0, halo, 0, launches), largest)


def _cut(grid: tuple[int, int], given: Tiling, largest: int) -> Iterator[Tiling]:
    """The tilings, as `given` in all but rows and numbers, for tiles of every size that the halos leave room for."""
    across = _number(grid[1], given.columns, given.halo)
    patches = SMALLEST
    while patches <= largest:
        rows = min(patches // given.columns, grid[0])
        if rows == grid[0] or rows > 2 * given.halo:
            down = _number(grid[0], rows, given.halo)
            rows = _up(grid[0] + 2 * given.halo * (down - 1), down)
            if down * across > 1:
                yield replace(given, rows=rows, down=down, across=across, patches=patches)
        patches *= 2


def _number(length: int, tile_length: int, halo: int) -> int:
    """How many tiles in a line cover `length`, where two share 2 * halo."""
    return 1 if tile_length == length else _up(length - 2 * halo, tile_length - 2 * halo)


def cycles(option: Tiling, method: Method, pairs: int, processors: int) -> float:
    """Cycles that a level takes: the programs of a multiprocessor run as many at a time as its registers hold."""
    patch = next(patch for patch in PATCHES if patch.side == option.side)
    programs = _up(option.down * option.across * pairs, processors)
    at_once = max(1, REGISTERS // (patch.registers * option.patches))
    times = [_group(option, patch, method, min(at_once, programs))] * (programs // at_once)
    if programs % at_once:
        times.append(_group(option, patch, method, programs % at_once))
    return sum(times) + method.warps * len(option.launches) * LAUNCH


def _group(option: Tiling, patch: Patch, method: Method, programs: int) -> float:
    """Cycles of a level's launches for programs that share a multiprocessor."""
    warps = programs * option.patches // 32
    iteration = ITERATION + _up(warps, SCHEDULERS) * patch.instructions + warps * patch.wavefronts
    traffic = TRAFFIC_WAIT + patch.side**2 * warps * TRAFFIC
    iterations = method.iterations + (MEDIAN if method.median > 1 else 0)
    return method.warps * (iterations * iteration + len(option.launches) * traffic)


def _spread(iterations: int, launches: int) -> tuple[int, ...]:
    """Iterations over launches as evenly as they go, the last one, which has the median to do, never above another."""
    least, more = divmod(iterations, launches)
    return tuple(least + (number < more) for number in range(launches))


def _up(number: int, by: int) -> int:
    return -(-number // by)


def _power_of_two(number: int) -> int:
    return max(SMALLEST, 1 << (number - 1).bit_length())
