"""The Triton kernels of TV-L1: the steps of reference.solve, cut so that a tile's iterations never leave the chip.

`smooth` and `descend` build the pyramid. `relax` does the rest: a program holds one tile of one pair (u, v, four dual fields
and the linear brightness, ten values a pixel) in registers. A tile is a flat run of CELLS values, its rows one after the other,
so that Triton leaves the layout alone; fields travel in pairs, as one value of 64 bits, and to both neighbours at once: an
iteration makes two trips through shared memory, with four barriers. `engine.ops.tvl1.tiling` says how a level is cut.

The dual fields are theta / tau times the papers'.
"""

# mypy: ignore-errors
# ruff: noqa: PLR0915, PLR0917

from __future__ import annotations

import triton
import triton.language as tl

from engine.ops.tvl1.method import CUBIC

A = tl.constexpr(CUBIC)


@triton.jit(do_not_specialize=["height", "width"])
def smooth(source, target, weights, height, width, REACH: tl.constexpr, BLOCK: tl.constexpr):
    """Pictures [M, H, W] convolved with weights [2 * REACH + 1] along y and x; grid (blocks of H * W, M).

    CPU equivalent: reference.smooth.
    """
    cells = height.to(tl.int64) * width
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < cells
    y, x = at // width, at % width
    base = source + tl.program_id(1) * cells
    total = tl.zeros([BLOCK], tl.float32)
    for down in range(-REACH, REACH + 1):
        row = _within(y + down, height) * width
        part = tl.zeros([BLOCK], tl.float32)
        for right in range(-REACH, REACH + 1):
            part += tl.load(weights + REACH + right) * tl.load(base + row + _within(x + right, width), mask=here, other=0.0)
        total += tl.load(weights + REACH + down) * part
    tl.store(target + tl.program_id(1) * cells + at, total, mask=here)


@triton.jit(do_not_specialize=["height", "width", "next_height", "next_width"])
def descend(pictures, slopes, following, height, width, next_height, next_width, SHRINK: tl.constexpr, BLOCK: tl.constexpr):
    """Derivatives [M, 2, H, W] of pictures [M, H, W] and, with SHRINK, the next level [M, h, w]; grid (blocks of H * W, M).

    CPU equivalents: reference.derivatives and reference.resize.
    """
    cells = height.to(tl.int64) * width
    number = tl.program_id(1)
    base = pictures + number * cells
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < cells
    y, x = at // width, at % width
    row, last = y * width, width - 1
    near, near_back = tl.minimum(x + 1, last), tl.maximum(x - 1, 0)
    far, far_back = tl.minimum(x + 2, last), tl.maximum(x - 2, 0)
    slope = _slope(base + row + near, base + row + near_back, base + row + far, base + row + far_back, here)
    tl.store(slopes + number * 2 * cells + at, slope, mask=here)
    last = height - 1
    near, near_back = tl.minimum(y + 1, last) * width, tl.maximum(y - 1, 0) * width
    far, far_back = tl.minimum(y + 2, last) * width, tl.maximum(y - 2, 0) * width
    slope = _slope(base + near + x, base + near_back + x, base + far + x, base + far_back + x, here)
    tl.store(slopes + number * 2 * cells + cells + at, slope, mask=here)
    if SHRINK:
        small = next_height.to(tl.int64) * next_width
        here = at < small
        py, px = _covering(at // next_width, height, next_height), _covering(at % next_width, width, next_width)
        value, _, _ = _cubic(base, base, base, px, py, height, width, 1)
        tl.store(following + number * small + at, value, mask=here)


@triton.jit
def _slope(near, near_back, far, far_back, here):
    """The five-point derivative from pointers to the four pixels around."""
    inner = tl.load(near, mask=here, other=0.0) - tl.load(near_back, mask=here, other=0.0)
    outer = tl.load(far, mask=here, other=0.0) - tl.load(far_back, mask=here, other=0.0)
    return (8 * inner - outer) * (1.0 / 12)


@triton.jit(do_not_specialize=["pairs", "height", "width", "below_height", "below_width", "across", "iterations"])
def relax(
    pictures, slopes, flow_in, flow_out, dual_in, dual_out, bright,
    pairs, height, width, below_height, below_width, across, iterations,
    TAU: tl.constexpr, STEEP: tl.constexpr, BOUND: tl.constexpr,
    WARPS: tl.constexpr, BEGIN: tl.constexpr, ENLARGE: tl.constexpr, FRESH: tl.constexpr, END: tl.constexpr, KEEP: tl.constexpr,
    MEDIAN: tl.constexpr, HALO: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """`iterations` iterations of one level, a tile a program; grid (tiles, pairs), `across` tiles in a row.

    pictures [2, N, H, W] (fixed, moving) and slopes [2, N, 2, H, W] as `descend` leaves them; flow_in and flow_out [N, 2, H, W]
    (flow_in [N, 2, h, w] of the level below with ENLARGE, where h = 0 says that there is none); dual_in and dual_out
    [N, 4, H, W]; bright [N, 3, H, W], the linear brightness between launches. BEGIN: expand around flow_in first. FRESH: the
    dual starts at 0. END: the median filter closes the warp. KEEP: the dual is wanted afterwards. WARPS > 1 repeats beginning,
    iterations and end on chip (one tile only). STEEP is tau / theta, BOUND is lambda theta.
    """
    pair = tl.program_id(1).to(tl.int64)
    cells = height.to(tl.int64) * width
    top = tl.program_id(0) // across * (ROWS - 2 * HALO)
    left = tl.program_id(0) % across * (COLUMNS - 2 * HALO)
    place = tl.arange(0, CELLS)
    row, column = place // COLUMNS, place % COLUMNS
    y, x = row + top, column + left
    here = (row < ROWS) & (y < height) & (x < width)
    at = y * width + x
    # At the picture's border a pixel is its own neighbour: differences are 0 there and the border repeats, as the method asks.
    # At a tile's own edge what is read is wrong, but lies in the halo.
    right = tl.where(here & (x < width - 1) & (column < COLUMNS - 1), place + 1, place)
    under = tl.where(here & (y < height - 1) & (row < ROWS - 1), place + COLUMNS, place)
    before = tl.where(here & (x > 0) & (column > 0), place - 1, place)
    above = tl.where(here & (y > 0) & (row > 0), place - COLUMNS, place)
    ahead, back = _each(right, under), _each(2 * before, 2 * above + 1)  # one trip through shared memory for both

    if ENLARGE:
        u, v = _enlarged(flow_in, pair, x, y, height, width, below_height, below_width, here)
    else:
        u = tl.load(flow_in + pair * 2 * cells + at, mask=here, other=0.0)
        v = tl.load(flow_in + pair * 2 * cells + cells + at, mask=here, other=0.0)
    if FRESH:
        ux, uy = tl.zeros([CELLS], tl.float32), tl.zeros([CELLS], tl.float32)
        vx, vy = tl.zeros([CELLS], tl.float32), tl.zeros([CELLS], tl.float32)
    else:
        dual = dual_in + pair * 4 * cells + at
        ux, uy = tl.load(dual, mask=here, other=0.0), tl.load(dual + cells, mask=here, other=0.0)
        vx, vy = tl.load(dual + 2 * cells, mask=here, other=0.0), tl.load(dual + 3 * cells, mask=here, other=0.0)

    for _ in tl.static_range(WARPS):
        if BEGIN:
            constant, gx, gy = _expand(pictures, slopes, u, v, x, y, pair, pairs, height, width, here)
        else:
            kept = bright + pair * 3 * cells + at
            constant, gx = tl.load(kept, mask=here, other=0.0), tl.load(kept + cells, mask=here, other=0.0)
            gy = tl.load(kept + 2 * cells, mask=here, other=0.0)
        factor = -1.0 / tl.maximum(gx * gx + gy * gy, 1e-9)
        for _ in range(iterations):
            rest = tl.minimum(tl.maximum((constant + gx * u + gy * v) * factor, -BOUND), BOUND)
            near = tl.gather(_each(_packed(ux, vx), _packed(uy, vy)), back, 0)
            from_left_u, from_left_v, from_above_u, from_above_v = _unpacked(near)
            u += gx * rest + TAU * (ux - tl.where(x > 0, from_left_u, 0.0) + uy - tl.where(y > 0, from_above_u, 0.0))
            v += gy * rest + TAU * (vx - tl.where(x > 0, from_left_v, 0.0) + vy - tl.where(y > 0, from_above_v, 0.0))
            right_u, right_v, under_u, under_v = _at(u, v, ahead)
            ux, uy = _ascend(ux, uy, right_u - u, under_u - u, STEEP)
            vx, vy = _ascend(vx, vy, right_v - v, under_v - v, STEEP)
        if END and MEDIAN:
            u, v = _median(u, v, _each(before, right), _each(above, under))

    mine = here & ((row >= HALO) | (y == row)) & ((row < ROWS - HALO) | (y - row + ROWS >= height))
    mine = mine & ((column >= HALO) | (x == column)) & ((column < COLUMNS - HALO) | (x - column + COLUMNS >= width))
    tl.store(flow_out + pair * 2 * cells + at, u, mask=mine)
    tl.store(flow_out + pair * 2 * cells + cells + at, v, mask=mine)
    if KEEP:
        dual = dual_out + pair * 4 * cells + at
        tl.store(dual, ux, mask=mine)
        tl.store(dual + cells, uy, mask=mine)
        tl.store(dual + 2 * cells, vx, mask=mine)
        tl.store(dual + 3 * cells, vy, mask=mine)
    if BEGIN and not END:
        kept = bright + pair * 3 * cells + at
        tl.store(kept, constant, mask=mine)
        tl.store(kept + cells, gx, mask=mine)
        tl.store(kept + 2 * cells, gy, mask=mine)


@triton.jit
def _each(a, b):
    """Two lists of places as one, a place of each in turn."""
    return tl.reshape(tl.join(a, b), (2 * a.shape[0],))


@triton.jit
def _packed(a, b):
    """Two float32 fields as one of 64 bits."""
    first, second = a.to(tl.uint32, bitcast=True).to(tl.uint64), b.to(tl.uint32, bitcast=True).to(tl.uint64)
    return (first << 32) | second


@triton.jit
def _unpacked(both):
    """The two fields of `_packed`, at the first and at the second list of places of `_each`."""
    one, two = tl.split(tl.reshape(both, (both.shape[0] // 2, 2)))
    a_one, b_one = (one >> 32).to(tl.uint32).to(tl.float32, bitcast=True), one.to(tl.uint32).to(tl.float32, bitcast=True)
    a_two, b_two = (two >> 32).to(tl.uint32).to(tl.float32, bitcast=True), two.to(tl.uint32).to(tl.float32, bitcast=True)
    return a_one, b_one, a_two, b_two


@triton.jit
def _at(a, b, places):
    """Fields a and b at two lists of places: (a, b) at the first, (a, b) at the second."""
    return _unpacked(tl.gather(_packed(a, b), places, 0))


@triton.jit
def _ascend(across, down, slope_x, slope_y, STEEP: tl.constexpr):
    """One component's dual field, a step along the component's gradient."""
    square = slope_x * slope_x + slope_y * slope_y
    root = tl.rsqrt(1.0 + STEEP * (square * tl.rsqrt(square + 1e-20)))
    shrink = root * root  # 1 / (1 + STEEP |slope|), by two reciprocal roots, which a GPU has ready
    return (across + slope_x) * shrink, (down + slope_y) * shrink


@triton.jit
def _median(u, v, beside, over):
    """Medians of 3 x 3: of the columns' sorted threes, the middle of (greatest least, middle middle, least greatest)."""
    above_u, above_v, under_u, under_v = _at(u, v, over)
    least_u, least_v = tl.minimum(tl.minimum(above_u, under_u), u), tl.minimum(tl.minimum(above_v, under_v), v)
    most_u, most_v = tl.maximum(tl.maximum(above_u, under_u), u), tl.maximum(tl.maximum(above_v, under_v), v)
    middle_u, middle_v = _middle(above_u, u, under_u), _middle(above_v, v, under_v)
    left_u, left_v, right_u, right_v = _at(least_u, least_v, beside)
    least_u, least_v = tl.maximum(tl.maximum(left_u, right_u), least_u), tl.maximum(tl.maximum(left_v, right_v), least_v)
    left_u, left_v, right_u, right_v = _at(most_u, most_v, beside)
    most_u, most_v = tl.minimum(tl.minimum(left_u, right_u), most_u), tl.minimum(tl.minimum(left_v, right_v), most_v)
    left_u, left_v, right_u, right_v = _at(middle_u, middle_v, beside)
    middle_u, middle_v = _middle(left_u, middle_u, right_u), _middle(left_v, middle_v, right_v)
    return _middle(least_u, middle_u, most_u), _middle(least_v, middle_v, most_v)


@triton.jit
def _middle(a, b, c):
    return tl.maximum(tl.minimum(a, b), tl.minimum(tl.maximum(a, b), c))


@triton.jit
def _expand(pictures, slopes, u, v, x, y, pair, pairs, height, width, here):
    """The linear brightness around the flow: constant part and gradient; CPU equivalent: reference.expand."""
    cells = height.to(tl.int64) * width
    at = y * width + x
    px, py = x + u, y + v
    inside = here & (px >= 0) & (px <= width - 1) & (py >= 0) & (py <= height - 1)
    picture = pictures + (pairs + pair) * cells
    slope = slopes + (pairs + pair) * 2 * cells
    warped, gx, gy = _cubic(picture, slope, slope + cells, px, py, height, width, 3)
    fixed_slope = slopes + pair * 2 * cells + at
    gx = tl.where(inside, 0.5 * (gx + tl.load(fixed_slope, mask=here, other=0.0)), 0.0)
    gy = tl.where(inside, 0.5 * (gy + tl.load(fixed_slope + cells, mask=here, other=0.0)), 0.0)
    fixed = tl.load(pictures + pair * cells + at, mask=here, other=0.0)
    return tl.where(here, warped - fixed - gx * u - gy * v, 0.0), gx, gy


@triton.jit
def _enlarged(flow, pair, x, y, height, width, below_height, below_width, here):
    """The flow [2, h, w] of the level below in this level's pixels; 0 where there is no level below (h = 0)."""
    cells = below_height.to(tl.int64) * below_width
    flow += pair * 2 * cells
    there = here & (y < below_height * height)
    rows, columns = tl.maximum(below_height, 1), tl.maximum(below_width, 1)
    py, px = _covering(y, rows, height), _covering(x, columns, width)
    u, v, _ = _cubic(flow, flow + cells, flow, px, py, rows, columns, 2)
    u, v = u * (width / columns.to(tl.float32)), v * (height / rows.to(tl.float32))
    return tl.where(there, u, 0.0), tl.where(there, v, 0.0)


@triton.jit
def _covering(at, length, cells):
    """Where the middle of cell `at` of `cells` lies among `length` pixels that cover the same line."""
    return (at.to(tl.float32) + 0.5) * (length.to(tl.float32) / cells.to(tl.float32)) - 0.5


@triton.jit
def _cubic(first, second, third, px, py, height, width, COUNT: tl.constexpr):
    """Cubic interpolation (Keys) of COUNT pictures [H, W] at places (x, y), the border repeated.

    CPU equivalent: reference.sample.

    The rows are a loop: all the reads at once would not fit into the registers.
    """
    left, top = tl.floor(px), tl.floor(py)
    across_0, across_1, across_2, across_3 = _keys(px - left)
    down_0, down_1, down_2, down_3 = _keys(py - top)
    column, row = left.to(tl.int32), top.to(tl.int32)
    column_0, column_1 = _within(column - 1, width), _within(column, width)
    column_2, column_3 = _within(column + 1, width), _within(column + 2, width)
    one, two, three = px * 0.0, px * 0.0, px * 0.0
    for down in range(4):
        weight = tl.where(down == 0, down_0, tl.where(down == 1, down_1, tl.where(down == 2, down_2, down_3)))
        line = _within(row + (down - 1), height) * width
        at_0, at_1, at_2, at_3 = line + column_0, line + column_1, line + column_2, line + column_3
        one += weight * _line(first, at_0, at_1, at_2, at_3, across_0, across_1, across_2, across_3)
        if COUNT > 1:
            two += weight * _line(second, at_0, at_1, at_2, at_3, across_0, across_1, across_2, across_3)
        if COUNT > 2:
            three += weight * _line(third, at_0, at_1, at_2, at_3, across_0, across_1, across_2, across_3)
    return one, two, three


@triton.jit
def _line(picture, at_0, at_1, at_2, at_3, across_0, across_1, across_2, across_3):
    near = tl.load(picture + at_1) * across_1 + tl.load(picture + at_2) * across_2
    return near + tl.load(picture + at_0) * across_0 + tl.load(picture + at_3) * across_3


@triton.jit
def _within(place, length):
    return tl.minimum(tl.maximum(place, 0), length - 1)


@triton.jit
def _keys(fraction):
    """Weights of the pixels at -1, 0, 1 and 2 from a place's floor, `fraction` before the place.

    CPU equivalent: reference.keys.
    """
    rest = 1.0 - fraction
    before, last = A * fraction * rest * rest, A * rest * fraction * fraction
    here = ((A + 2) * fraction - (A + 3)) * fraction * fraction + 1.0
    return before, here, 1.0 - here - before - last, last
