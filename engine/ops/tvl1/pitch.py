"""How far the planes of `compiled.level` are apart, so that loads do not wait for stores to another plane.

Imported with compiled.py, when it is needed.
"""

from __future__ import annotations

from functools import lru_cache

from engine.ops.tvl1.compiled import U_X, U_Y, V_X, V_Y, U, V

PAGE, LINE, CELL = 4096, 64, 4
"""Bytes: addresses that processors take for equal where they compare the lowest twelve bits; a cache line; a float32."""


@lru_cache(maxsize=64)
def plane_pitch(height: int, width: int) -> int:
    """Cells from one plane to the next, for a picture of height x width pixels.

    A processor lets a load pass earlier stores only if its address differs from theirs in the lowest twelve bits; else the load
    waits as if it depended on the store. So planes are apart by what leaves the most bytes between a load and the stores in
    front of it. Without this an iteration takes up to 1.6 times as long, depending on the size (docs/performance.md).
    Intel 64 and IA-32 Architectures Optimization Reference Manual, "4-KByte aliasing".
    """
    stride = width + 1
    least = (height + 1) * stride
    choices = range(least, least + PAGE // CELL, LINE // CELL)
    return max(choices, key=lambda cells: clearance(cells, stride))


def clearance(cells: int, stride: int) -> int:
    """Bytes, modulo PAGE, from the loads of an iteration up to the nearest store, for planes that are `cells` cells apart."""
    at = [plane * cells for plane in range(10)]
    read = [*at, *(at[plane] + 1 for plane in (U_X, V_X)), *(at[plane] + stride for plane in (U_Y, V_Y))]
    apart = [store - load for store in at[:2] for load in read]
    for flow, along_x, along_y in ((U, U_X, U_Y), (V, V_X, V_Y)):
        stores = at[along_x] + 1, at[along_y] + stride
        apart += [store - load for store in stores for load in (at[flow], at[flow] + 1, at[flow] + stride, *stores)]
    return min(CELL * cells % PAGE for cells in apart if cells)
