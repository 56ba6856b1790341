"""The Triton kernels that prepare TV-L1's iterations (`triton_relax`): the pyramid, and the linear brightness around a flow."""

# mypy: ignore-errors
# ruff: noqa: PLR0917

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
    for down in tl.static_range(-REACH, REACH + 1):
        line = base + _within(y + down, height) * width
        part = tl.zeros([BLOCK], tl.float32)
        for right in tl.static_range(-REACH, REACH + 1):
            part += tl.load(weights + REACH + right) * tl.load(line + _within(x + right, width), mask=here, other=0.0)
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
        if tl.program_id(0) * BLOCK < small:
            here = at < small
            py, px = _covering(at // next_width, height, next_height), _covering(at % next_width, width, next_width)
            value, _, _ = _cubic(base, base, base, px, py, height, width, width, 1)
            tl.store(following + number * small + at, value, mask=here)


@triton.jit
def _slope(near, near_back, far, far_back, here):
    """The five-point derivative from pointers to the four pixels around."""
    inner = tl.load(near, mask=here, other=0.0) - tl.load(near_back, mask=here, other=0.0)
    outer = tl.load(far, mask=here, other=0.0) - tl.load(far_back, mask=here, other=0.0)
    return (8 * inner - outer) * (1.0 / 12)


@triton.jit(do_not_specialize=["pairs", "height", "width", "pitch", "below_height", "below_width", "below_pitch", "enlarge"])
def expand(
    pictures, slopes, below, flow, bright,
    pairs, height, width, pitch, below_height, below_width, below_pitch, enlarge, BOUND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The linear brightness around a flow, as `triton_relax.relax` takes it, into bright; grid (blocks of planes, pairs).

    pictures [2, N, H, W] (fixed, moving) and slopes [2, N, 2, H, W] as `descend` leaves them; flow [N, 2, .., ..] and bright
    [N, 4, .., ..] in planes of 4 * pitch values a row and as many rows as the picture, rounded up to a multiple of 4. With
    enlarge (0 or 1) the flow is made first, from that of the level below, [N, 2, .., ..] (its height 0: there is none).
    BOUND is lambda theta. CPU equivalents: reference.expand and reference.enlarge.
    """
    pair = tl.program_id(1).to(tl.int64)
    pitch, below_pitch = pitch * 4, below_pitch * 4
    cells = (height + 3).to(tl.int64) // 4 * 4 * pitch
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < cells
    y, x = tl.minimum(at // pitch, height - 1), tl.minimum(at % pitch, width - 1)  # padding repeats the border
    flow += pair * 2 * cells
    bright += pair * 4 * cells
    if enlarge > 0:
        u, v = _enlarged(below, pair, x, y, height, width, below_height, below_width, below_pitch)
        tl.store(flow + at, u, mask=here)
        tl.store(flow + cells + at, v, mask=here)
    else:
        u = tl.load(flow + y * pitch + x)
        v = tl.load(flow + cells + y * pitch + x)
    constant, gx, gy = _expanded(pictures, slopes, u, v, x, y, pair, pairs, height, width)
    square = tl.maximum(gx * gx + gy * gy, 1e-9)
    shorter = tl.rsqrt(square)
    tl.store(bright + at, -constant * shorter, mask=here)
    tl.store(bright + cells + at, gx * shorter, mask=here)
    tl.store(bright + 2 * cells + at, gy * shorter, mask=here)
    tl.store(bright + 3 * cells + at, BOUND * tl.sqrt(square), mask=here)


@triton.jit
def _expanded(pictures, slopes, u, v, x, y, pair, pairs, height, width):
    """The linear brightness around the flow: constant part and gradient; CPU equivalent: reference.expand."""
    cells = height.to(tl.int64) * width
    at = y * width + x
    px, py = x + u, y + v
    inside = (px >= 0) & (px <= width - 1) & (py >= 0) & (py <= height - 1)
    picture = pictures + (pairs + pair) * cells
    slope = slopes + (pairs + pair) * 2 * cells
    warped, gx, gy = _cubic(picture, slope, slope + cells, px, py, height, width, width, 3)
    fixed_slope = slopes + pair * 2 * cells + at
    gx = tl.where(inside, 0.5 * (gx + tl.load(fixed_slope)), 0.0)
    gy = tl.where(inside, 0.5 * (gy + tl.load(fixed_slope + cells)), 0.0)
    return warped - tl.load(pictures + pair * cells + at) - gx * u - gy * v, gx, gy


@triton.jit
def _enlarged(flow, pair, x, y, height, width, below_height, below_width, below_pitch):
    """The flow of the level below in this level's pixels; 0 where there is no level below (h = 0)."""
    cells = (below_height + 3).to(tl.int64) // 4 * 4 * below_pitch
    flow += pair * 2 * cells
    rows, columns = tl.maximum(below_height, 1), tl.maximum(below_width, 1)
    py, px = _covering(y, rows, height), _covering(x, columns, width)
    u, v, _ = _cubic(flow, flow + cells, flow, px, py, rows, columns, below_pitch, 2)
    u, v = u * (width / columns.to(tl.float32)), v * (height / rows.to(tl.float32))
    there = y < below_height * height  # everywhere or nowhere
    return tl.where(there, u, 0.0), tl.where(there, v, 0.0)


@triton.jit
def _covering(at, length, cells):
    """Where the middle of cell `at` of `cells` lies among `length` pixels that cover the same line."""
    return (at.to(tl.float32) + 0.5) * (length.to(tl.float32) / cells.to(tl.float32)) - 0.5


@triton.jit
def _cubic(first, second, third, px, py, height, width, pitch, COUNT: tl.constexpr):
    """Cubic interpolation (Keys) of COUNT pictures [H, W] at places (x, y), the border repeated; rows are pitch values apart.

    CPU equivalent: reference.sample.
    """
    left, top = tl.floor(px), tl.floor(py)
    across, down = _keys(px - left), _keys(py - top)
    column, row = left.to(tl.int32), top.to(tl.int32)
    one, two, three = px * 0.0, px * 0.0, px * 0.0
    columns = (_within(column - 1, width), _within(column, width), _within(column + 1, width), _within(column + 2, width))
    for k in tl.static_range(4):
        line = _within(row + (k - 1), height) * pitch
        one += down[k] * _line(first + line, columns, across)
        if COUNT > 1:
            two += down[k] * _line(second + line, columns, across)
        if COUNT > 2:
            three += down[k] * _line(third + line, columns, across)
    return one, two, three


@triton.jit
def _line(row, columns, weights):
    near = tl.load(row + columns[1]) * weights[1] + tl.load(row + columns[2]) * weights[2]
    return near + tl.load(row + columns[0]) * weights[0] + tl.load(row + columns[3]) * weights[3]


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
