"""The Triton kernel that iterates TV-L1: the steps of reference.solve, cut so that a tile's iterations never leave the chip.

A program holds one tile of one pair: u, v, four dual fields and the linear brightness, ten values a pixel, in registers. Each
thread has a patch of PATCH x PATCH pixels, and each pixel of the patch is a tensor of its own with one value a thread. So a
pixel's neighbours are registers of the same thread, but for the patch's edges: these go through shared memory, two values in
one of 64 bits, in two trips an iteration with two barriers each. `engine.ops.tvl1.tiling` says how a level is cut.

The dual fields are theta / tau times the papers'. The linear brightness is kept as its value and gradient divided by the
gradient's length, and the longest step along it.
"""

# mypy: ignore-errors
# ruff: noqa: PLR0917, RUF005, SIM108 - Triton compiles neither starred tuples nor every conditional expression

from __future__ import annotations

import triton
import triton.language as tl

from engine.ops.tvl1.triton_patches import exchanged, exchanged_columns, exchanged_rows, loaded, places, stored


@triton.jit(
    do_not_specialize=[
        "height", "width", "pitch", "rows", "columns", "halo", "down", "across", "iterations", "fresh", "end", "keep"
    ]
)  # fmt: skip
def relax(
    flow_in, flow_out, dual_in, dual_out, bright,
    height, width, pitch, rows, columns, halo, down, across, iterations, fresh, end, keep,
    TAU: tl.constexpr, STEEP: tl.constexpr,
    PATCH: tl.constexpr, PATCHES: tl.constexpr, LAST_ROW: tl.constexpr, LAST_COLUMN: tl.constexpr,
):  # fmt: skip
    """`iterations` iterations of one level, a tile a program; grid (down * across tiles, pairs).

    flow_in and flow_out [N, 2, .., ..], dual_in, dual_out and bright [N, 4, .., ..] are planes of 4 * pitch values a row and as
    many rows as the picture, rounded up to a multiple of 4. A tile has rows x columns patches (at most PATCHES), and two share
    2 * halo. fresh: the dual starts at 0. end: the median filter closes the warp. keep: the dual is wanted afterwards. These
    are 0 or 1, and no compiled version depends on them. LAST_ROW and LAST_COLUMN are the last pixel's place in its patch;
    STEEP is tau / theta.
    """
    pair = tl.program_id(1).to(tl.int64)
    pitch = pitch * 4
    cells = (height + 3).to(tl.int64) // 4 * 4 * pitch
    grid_rows, grid_columns = (height + PATCH - 1) // PATCH, (width + PATCH - 1) // PATCH
    top, first_row, end_row = _tile(tl.program_id(0) // across, down, rows, halo, grid_rows)
    left, first_column, end_column = _tile(tl.program_id(0) % across, across, columns, halo, grid_columns)
    place = tl.arange(0, PATCHES)
    py, px = place // columns, place % columns
    here = py < rows
    mine = (py >= first_row) & (py < end_row) & (px >= first_column) & (px < end_column)
    at = (top + py) * PATCH * pitch + (left + px) * PATCH
    # What is read beyond a tile's own edge is wrong, but lies in the halo; beyond the picture's border it is not used.
    right, under = tl.minimum(place + 1, PATCHES - 1), tl.minimum(place + columns, PATCHES - 1)
    before, above = tl.maximum(place - 1, 0), tl.maximum(place - columns, 0)
    ahead, back = places(right, under, PATCH), places(before, above, PATCH)
    over, beside = places(under, above, PATCH), places(right, before, PATCH)
    first_x, first_y = left + px == 0, top + py == 0
    inner_x, inner_y = tl.where(first_x, 0.0, 1.0), tl.where(first_y, 0.0, 1.0)
    last_x, last_y = left + px == grid_columns - 1, top + py == grid_rows - 1

    flow = flow_in + pair * 2 * cells + at
    u, v = loaded(flow, here, pitch, PATCH), loaded(flow + cells, here, pitch, PATCH)
    light = bright + pair * 4 * cells + at
    constant, gx = loaded(light, here, pitch, PATCH), loaded(light + cells, here, pitch, PATCH)
    gy, bound = loaded(light + 2 * cells, here, pitch, PATCH), loaded(light + 3 * cells, here, pitch, PATCH)
    old = py < tl.where(fresh > 0, 0, rows)
    dual = dual_in + pair * 4 * cells + at
    ux, uy = loaded(dual, old, pitch, PATCH), loaded(dual + cells, old, pitch, PATCH)
    vx, vy = loaded(dual + 2 * cells, old, pitch, PATCH), loaded(dual + 3 * cells, old, pitch, PATCH)
    for _ in range(iterations):
        near_u, near_v = exchanged(ux, vx, uy, vy, PATCH - 1, PATCH - 1, back, PATCH)
        u, v = _descended(u, v, ux, uy, vx, vy, constant, gx, gy, bound, near_u, near_v, inner_x, inner_y, TAU, PATCH)
        near_u, near_v = exchanged(u, v, u, v, 0, 0, ahead, PATCH)
        ux, uy = _ascended(u, ux, uy, near_u, last_x, last_y, STEEP, PATCH, LAST_ROW, LAST_COLUMN)
        vx, vy = _ascended(v, vx, vy, near_v, last_x, last_y, STEEP, PATCH, LAST_ROW, LAST_COLUMN)
    for _ in range(end):
        u, v = _median(u, v, over, beside, first_x, first_y, last_x, last_y, PATCH, LAST_ROW, LAST_COLUMN)
    flow = flow_out + pair * 2 * cells + at
    stored(flow, u, mine, pitch, PATCH)
    stored(flow + cells, v, mine, pitch, PATCH)
    mine = mine & (py < tl.where(keep > 0, rows, 0))
    dual = dual_out + pair * 4 * cells + at
    stored(dual, ux, mine, pitch, PATCH)
    stored(dual + cells, uy, mine, pitch, PATCH)
    stored(dual + 2 * cells, vx, mine, pitch, PATCH)
    stored(dual + 3 * cells, vy, mine, pitch, PATCH)


@triton.jit
def _tile(number, tiles, length, halo, grid):
    """Along one axis, in patches: where a tile begins (the last one ends where the picture does), and which of its patches,
    from the first to before the end, are its own to store."""
    begin = tl.minimum(number * (length - 2 * halo), grid - length)
    following = tl.minimum((number + 1) * (length - 2 * halo), grid - length)
    first = tl.where(number == 0, 0, halo)
    return begin, first, tl.where(number == tiles - 1, length, following + halo - begin)


@triton.jit
def _descended(
    u, v, ux, uy, vx, vy, constant, gx, gy, bound, near_u, near_v, inner_x, inner_y, TAU: tl.constexpr, PATCH: tl.constexpr
):
    """The flow after the brightness that is left over and the divergence of the dual field."""
    new_u, new_v = (), ()
    for k in tl.static_range(PATCH * PATCH):
        rest = tl.clamp(constant[k] - gx[k] * u[k] - gy[k] * v[k], -bound[k], bound[k])
        if k % PATCH == 0:
            left_u, left_v = near_u[k // PATCH] * inner_x, near_v[k // PATCH] * inner_x
        else:
            left_u, left_v = ux[k - 1], vx[k - 1]
        if k < PATCH:
            above_u, above_v = near_u[PATCH + k] * inner_y, near_v[PATCH + k] * inner_y
        else:
            above_u, above_v = uy[k - PATCH], vy[k - PATCH]
        new_u = new_u + (u[k] + gx[k] * rest + TAU * (ux[k] - left_u + (uy[k] - above_u)),)
        new_v = new_v + (v[k] + gy[k] * rest + TAU * (vx[k] - left_v + (vy[k] - above_v)),)
    return new_u, new_v


@triton.jit
def _ascended(
    u, ux, uy, near, last_x, last_y, STEEP: tl.constexpr, PATCH: tl.constexpr, LAST_ROW: tl.constexpr, LAST_COLUMN: tl.constexpr
):
    """One component's dual field, a step along the component's gradient."""
    new_x, new_y = (), ()
    for k in tl.static_range(PATCH * PATCH):
        if k % PATCH == PATCH - 1:
            slope_x = near[k // PATCH] - u[k]
        else:
            slope_x = u[k + 1] - u[k]
        if k // PATCH == PATCH - 1:
            slope_y = near[PATCH + k % PATCH] - u[k]
        else:
            slope_y = u[k + PATCH] - u[k]
        if k % PATCH == LAST_COLUMN:
            slope_x = tl.where(last_x, 0.0, slope_x)
        if k // PATCH == LAST_ROW:
            slope_y = tl.where(last_y, 0.0, slope_y)
        root = tl.rsqrt(1.0 + STEEP * tl.sqrt(slope_x * slope_x + slope_y * slope_y))
        shrink = root * root  # 1 / (1 + STEEP |slope|): a division takes a GPU longer than a reciprocal root
        new_x, new_y = new_x + ((ux[k] + slope_x) * shrink,), new_y + ((uy[k] + slope_y) * shrink,)
    return new_x, new_y


@triton.jit
def _median(
    u, v, over, beside, first_x, first_y, last_x, last_y,
    PATCH: tl.constexpr, LAST_ROW: tl.constexpr, LAST_COLUMN: tl.constexpr,
):  # fmt: skip
    """Medians of 3 x 3: of the columns' sorted threes, the middle of (greatest least, middle middle, least greatest)."""
    near_u, near_v = exchanged_rows(u, v, over, PATCH)
    least_u, middle_u, most_u = _sorted(u, near_u, first_y, last_y, PATCH, LAST_ROW)
    least_v, middle_v, most_v = _sorted(v, near_v, first_y, last_y, PATCH, LAST_ROW)
    near_u, near_v = exchanged_columns(least_u, least_v, beside, PATCH)
    least_u = _of_three(least_u, near_u, first_x, last_x, 1, PATCH, LAST_COLUMN)
    least_v = _of_three(least_v, near_v, first_x, last_x, 1, PATCH, LAST_COLUMN)
    near_u, near_v = exchanged_columns(most_u, most_v, beside, PATCH)
    most_u = _of_three(most_u, near_u, first_x, last_x, -1, PATCH, LAST_COLUMN)
    most_v = _of_three(most_v, near_v, first_x, last_x, -1, PATCH, LAST_COLUMN)
    near_u, near_v = exchanged_columns(middle_u, middle_v, beside, PATCH)
    middle_u = _of_three(middle_u, near_u, first_x, last_x, 0, PATCH, LAST_COLUMN)
    middle_v = _of_three(middle_v, near_v, first_x, last_x, 0, PATCH, LAST_COLUMN)
    new_u, new_v = (), ()
    for k in tl.static_range(PATCH * PATCH):
        low, high = tl.minimum(least_u[k], most_u[k]), tl.maximum(least_u[k], most_u[k])
        new_u = new_u + (tl.maximum(low, tl.minimum(high, middle_u[k])),)
        low, high = tl.minimum(least_v[k], most_v[k]), tl.maximum(least_v[k], most_v[k])
        new_v = new_v + (tl.maximum(low, tl.minimum(high, middle_v[k])),)
    return new_u, new_v


@triton.jit
def _sorted(u, near, first, last, PATCH: tl.constexpr, LAST_ROW: tl.constexpr):
    """Least, middle and greatest of each pixel and those above and under it; the border repeats."""
    least, middle, most = (), (), ()
    for k in tl.static_range(PATCH * PATCH):
        if k < PATCH:
            above = tl.where(first, u[k], near[PATCH + k])
        else:
            above = u[k - PATCH]
        if k // PATCH == PATCH - 1:
            under = near[k % PATCH]
        else:
            under = u[k + PATCH]
        if k // PATCH == LAST_ROW:
            under = tl.where(last, u[k], under)
        low, high = tl.minimum(above, under), tl.maximum(above, under)
        least, most = least + (tl.minimum(low, u[k]),), most + (tl.maximum(high, u[k]),)
        middle = middle + (tl.maximum(low, tl.minimum(high, u[k])),)
    return least, middle, most


@triton.jit
def _of_three(u, near, first, last, WHICH: tl.constexpr, PATCH: tl.constexpr, LAST_COLUMN: tl.constexpr):
    """Of each pixel and those left and right of it the greatest (WHICH 1), middle (0) or least (-1); the border repeats."""
    out = ()
    for k in tl.static_range(PATCH * PATCH):
        if k % PATCH == 0:
            left = tl.where(first, u[k], near[PATCH + k // PATCH])
        else:
            left = u[k - 1]
        if k % PATCH == PATCH - 1:
            right = near[k // PATCH]
        else:
            right = u[k + 1]
        if k % PATCH == LAST_COLUMN:
            right = tl.where(last, u[k], right)
        low, high = tl.minimum(left, right), tl.maximum(left, right)
        if WHICH == 1:
            out = out + (tl.maximum(high, u[k]),)
        elif WHICH == -1:
            out = out + (tl.minimum(low, u[k]),)
        else:
            out = out + (tl.maximum(low, tl.minimum(high, u[k])),)
    return out
