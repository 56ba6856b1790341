"""Triton kernels of the steps from crops to a network's input; launched by `flowmap_gpu`, each with its CPU equivalent.

Crops are [N, SIDE, SIDE], flows [N, 2, SIDE, SIDE], meshes [N, MESH, 3] in crop pixels, all float32 and contiguous.
"""

# mypy: ignore-errors
# ruff: noqa: PLR0917

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def match(before, after, window, matched, PIXELS: tl.constexpr, LEAST: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr):
    """`after` with the brightness and contrast of `before`, one program a moment; CPU equivalent: likeness.like.

    window [PIXELS] are weights whose sum is 1; PIXELS is a multiple of BLOCK.
    """
    first = tl.program_id(0) * PIXELS
    lane = tl.arange(0, BLOCK)
    sum_a, sum_b = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, PIXELS, BLOCK):
        weight = tl.load(window + start + lane)
        sum_a += weight * tl.load(after + first + start + lane)
        sum_b += weight * tl.load(before + first + start + lane)
    mean_a, mean_b = tl.sum(sum_a, 0), tl.sum(sum_b, 0)
    sum_a, sum_b = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, PIXELS, BLOCK):
        weight = tl.load(window + start + lane)
        off_a = tl.load(after + first + start + lane) - mean_a
        off_b = tl.load(before + first + start + lane) - mean_b
        sum_a += weight * off_a * off_a
        sum_b += weight * off_b * off_b
    gain = tl.sqrt(tl.sum(sum_b, 0) / tl.maximum(tl.sum(sum_a, 0), 1e-6))
    gain = tl.minimum(tl.maximum(gain, LEAST), MOST)
    for start in range(0, PIXELS, BLOCK):
        grey = (tl.load(after + first + start + lane) - mean_a) * gain + mean_b
        tl.store(matched + first + start + lane, tl.minimum(tl.maximum(grey, 0.0), 255.0))


@triton.jit
def compare(
    before, after, flow, found,
    SIDE: tl.constexpr, ACROSS: tl.constexpr, PATCH: tl.constexpr, STEP: tl.constexpr, SMOOTH: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """How alike each patch is once the flow is undone: found [N, ACROSS * ACROSS], one program a patch.

    CPU equivalent: likeness.explained, before its percentile. BLOCK is a power of two, PATCH or more.
    """
    number = tl.program_id(0) // (ACROSS * ACROSS)
    patch = tl.program_id(0) % (ACROSS * ACROSS)
    rows, columns = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    here = (rows < PATCH) & (columns < PATCH)
    row, column = STEP // 2 + patch // ACROSS * STEP + rows, STEP // 2 + patch % ACROSS * STEP + columns
    at = row * SIDE + column
    model = tl.load(before + number * SIDE * SIDE + at, mask=here, other=0.0)
    x = column + tl.load(flow + number * 2 * SIDE * SIDE + at, mask=here, other=0.0)
    y = row + tl.load(flow + (number * 2 + 1) * SIDE * SIDE + at, mask=here, other=0.0)
    left, top = tl.floor(x), tl.floor(y)
    picture = after + number * SIDE * SIDE
    above = _or_black(picture, top, left, here, SIDE) * (left + 1 - x) + _or_black(picture, top, left + 1, here, SIDE) * (
        x - left
    )
    below = _or_black(picture, top + 1, left, here, SIDE) * (left + 1 - x)
    below += _or_black(picture, top + 1, left + 1, here, SIDE) * (x - left)
    undone = above * (top + 1 - y) + below * (y - top)
    count: tl.constexpr = PATCH * PATCH
    model = tl.where(here, model - _total(model, here) / count, 0.0)
    undone = tl.where(here, undone - _total(undone, here) / count, 0.0)
    spread = tl.sqrt(_total(model * model, here) / count * (_total(undone * undone, here) / count))
    alike = tl.where(spread <= SMOOTH, 1.0, _total(model * undone, here) / count / tl.maximum(spread, SMOOTH))
    tl.store(found + tl.program_id(0), alike)


@triton.jit
def _total(values, here):
    return tl.sum(tl.sum(tl.where(here, values, 0.0), 1), 0)


@triton.jit
def _or_black(picture, row, column, here, SIDE: tl.constexpr):
    """The picture's pixels at whole rows and columns (float32), 0 outside of it."""
    inside = here & (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
    at = tl.where(inside, row, 0.0).to(tl.int32) * SIDE + tl.where(inside, column, 0.0).to(tl.int32)
    return tl.load(picture + at, mask=inside, other=0.0)


@triton.jit
def fit(
    flow, mesh, tracked, votes, terms,
    MESH: tl.constexpr, POINTS: tl.constexpr, HEADS: tl.constexpr, SIDE: tl.constexpr, TAPS: tl.constexpr,
    MIDDLE: tl.constexpr, ROUNDS: tl.constexpr, LINEAR: tl.constexpr, SHIFT: tl.constexpr, TURN: tl.constexpr,
    FINEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The head's motion left in a flow: terms [N, 7] float64 (a, b, tx, ty, yaw, pitch, level), one program a moment.

    CPU equivalents: residual.take_out_head up to its fit, head.fit_head. tracked [POINTS] int32 are points of the mesh, the
    first HEADS of them the head's own, votes [POINTS] float64 their weights; MIDDLE is where the crop's model has its origin;
    LINEAR, SHIFT and TURN are the ridge penalties of its three pairs of terms; BLOCK is a power of two, POINTS or more.

    With points and displacements as complex numbers z and D, and depth d, the model is D = alpha z + t + q d with
    alpha = a + i b, t = tx + i ty, q = yaw + i pitch: normal equations of three complex unknowns, eliminated in turn.
    """
    number = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    here, heads = lane < POINTS, lane < HEADS
    point = mesh + (number * MESH + tl.load(tracked + lane, mask=here, other=0)) * 3
    x, y = tl.load(point, mask=here, other=0.0), tl.load(point + 1, mask=here, other=0.0)
    z = tl.load(point + 2, mask=here, other=0.0).to(tl.float64)
    inside = (x >= 0) & (x <= SIDE - 1) & (y >= 0) & (y <= SIDE - 1)
    trust = tl.where(inside, tl.load(votes + lane, mask=here, other=0.0), 0.0)
    level = tl.sum(tl.where(heads, z, 0.0), 0) / HEADS
    u = _mean_around(flow + number * 2 * SIDE * SIDE, x, y, here, SIDE, TAPS).to(tl.float64)
    v = _mean_around(flow + (number * 2 + 1) * SIDE * SIDE, x, y, here, SIDE, TAPS).to(tl.float64)
    x, y, depth = x.to(tl.float64) - MIDDLE, y.to(tl.float64) - MIDDLE, z - level
    voters = tl.sum((heads & (trust > 0)).to(tl.int32), 0)
    weight, coarsest, zero = trust, 1.0, level * 0
    a, b, tx, ty, yaw, pitch = zero, zero, zero, zero, zero, zero
    for _ in range(ROUNDS):
        a, b, tx, ty, yaw, pitch = _solved(x, y, depth, u, v, weight, LINEAR, SHIFT, TURN)
        left_u = u - (a * x - b * y + tx + yaw * depth)
        left_v = v - (b * x + a * y + ty + pitch * depth)
        residual = tl.sqrt(left_u * left_u + left_v * left_v)
        middle = _median(tl.where(heads & (trust > 0), residual, float("inf")), voters, lane)
        scale = tl.maximum(tl.maximum(tl.where(voters > 0, 1.5 * middle, 1.0), FINEST), coarsest)
        ratio = residual / (2 * scale)
        falling = 1 + ratio * ratio
        weight = trust / (falling * falling)
        coarsest *= 0.5
    out = terms + number * 7
    tl.store(out, a)
    tl.store(out + 1, b)
    tl.store(out + 2, tx)
    tl.store(out + 3, ty)
    tl.store(out + 4, yaw)
    tl.store(out + 5, pitch)
    tl.store(out + 6, level)


@triton.jit
def _mean_around(channel, x, y, here, SIDE: tl.constexpr, TAPS: tl.constexpr):
    """A channel [SIDE, SIDE] averaged over TAPS x TAPS pixels, mirrored at its border, and read bilinearly at (x, y)."""
    x, y = tl.minimum(tl.maximum(x, 0.0), SIDE - 1.0), tl.minimum(tl.maximum(y, 0.0), SIDE - 1.0)
    left, top = tl.minimum(tl.floor(x), SIDE - 2.0), tl.minimum(tl.floor(y), SIDE - 2.0)
    total = tl.zeros_like(x)
    for row in range(TAPS + 1):
        down = tl.where(row == 0, top + 1 - y, tl.where(row == TAPS, y - top, 1.0))
        start = channel + _mirrored(top.to(tl.int32) + row - TAPS // 2, SIDE) * SIDE
        line = tl.zeros_like(x)
        for column in range(TAPS + 1):
            across = tl.where(column == 0, left + 1 - x, tl.where(column == TAPS, x - left, 1.0))
            line += across * tl.load(start + _mirrored(left.to(tl.int32) + column - TAPS // 2, SIDE), mask=here, other=0.0)
        total += down * line
    return total / (TAPS * TAPS)


@triton.jit
def _mirrored(place, SIDE: tl.constexpr):
    place = tl.where(place < 0, -place, place)
    return tl.where(place >= SIDE, 2 * (SIDE - 1) - place, place)


@triton.jit
def _solved(x, y, depth, u, v, weight, LINEAR: tl.constexpr, SHIFT: tl.constexpr, TURN: tl.constexpr):
    """The terms of the weighted fit with its ridge."""
    weight_x, weight_y, weight_d = weight * x, weight * y, weight * depth
    count = tl.sum(weight, 0) + SHIFT
    sum_x, sum_y, sum_d = tl.sum(weight_x, 0) / count, tl.sum(weight_y, 0) / count, tl.sum(weight_d, 0) / count
    sum_u, sum_v = tl.sum(weight * u, 0), tl.sum(weight * v, 0)
    square = tl.sum(weight_x * x + weight_y * y, 0) + LINEAR - (sum_x * sum_x + sum_y * sum_y) * count
    cross_x = tl.sum(weight_x * depth, 0) - sum_x * sum_d * count
    cross_y = tl.sum(weight_y * depth, 0) - sum_y * sum_d * count
    along = tl.sum(weight_x * u + weight_y * v, 0) - (sum_x * sum_u + sum_y * sum_v)
    around = tl.sum(weight_x * v - weight_y * u, 0) - (sum_x * sum_v - sum_y * sum_u)
    deep = tl.sum(weight_d * depth, 0) + TURN - sum_d * sum_d * count - (cross_x * cross_x + cross_y * cross_y) / square
    yaw = (tl.sum(weight_d * u, 0) - sum_d * sum_u - (cross_x * along - cross_y * around) / square) / deep
    pitch = (tl.sum(weight_d * v, 0) - sum_d * sum_v - (cross_x * around + cross_y * along) / square) / deep
    a = (along - (cross_x * yaw + cross_y * pitch)) / square
    b = (around - (cross_x * pitch - cross_y * yaw)) / square
    tx = sum_u / count - (a * sum_x - b * sum_y) - yaw * sum_d
    ty = sum_v / count - (a * sum_y + b * sum_x) - pitch * sum_d
    return a, b, tx, ty, yaw, pitch


@triton.jit
def _median(values, count, lane):
    """The median of the `count` least values, by the rank of each; equal ones rank by their lane."""
    short = values.to(tl.float32)
    one, other = short[:, None], short[None, :]
    before = (other < one) | ((other == one) & (lane[None, :] < lane[:, None]))
    rank = tl.sum(before.to(tl.int32), 1)
    finite = tl.where(values < float("inf"), values, 0.0)
    low = tl.sum(tl.where(rank == (count - 1) // 2, finite, 0.0), 0)
    high = tl.sum(tl.where(rank == count // 2, finite, 0.0), 0)
    return 0.5 * (low + high)


@triton.jit
def place(mesh, sums, MESH: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr):
    """Adds each mesh point to the pixel where it lies: sums [N, 2, SIDE, SIDE], zero before, of points and of their depths.

    CPU equivalent: residual.relief, before its blurs. One program a moment; BLOCK is a power of two, MESH or more.
    """
    number = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    here = lane < MESH
    point = mesh + (number * MESH + lane) * 3
    column = _nearest(tl.load(point, mask=here, other=0.0), SIDE)
    row = _nearest(tl.load(point + 1, mask=here, other=0.0), SIDE)
    at = sums + number * 2 * SIDE * SIDE + row * SIDE + column
    tl.atomic_add(at, tl.where(here, 1.0, 0.0), mask=here)
    tl.atomic_add(at + SIDE * SIDE, tl.load(point + 2, mask=here, other=0.0), mask=here)


@triton.jit
def _nearest(place, SIDE: tl.constexpr):
    return tl.floor(tl.minimum(tl.maximum(place, 0.0), SIDE - 1.0) + 0.5).to(tl.int32)


@triton.jit
def subtract(flow, terms, sums, own, SIDE: tl.constexpr, MIDDLE: tl.constexpr, BLOCK: tl.constexpr):
    """Flows less the head's motion, `own`; CPU equivalent: the end of residual.take_out_head.

    terms [N, 7] are those of `fit`, sums [N, 2, SIDE, SIDE] the blurred ones of `place`. Grid (N, SIDE * SIDE / BLOCK).
    """
    number = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x, y = at % SIDE - MIDDLE, at // SIDE - MIDDLE
    term = terms + number * 7
    a, b = tl.load(term).to(tl.float32), tl.load(term + 1).to(tl.float32)
    tx, ty = tl.load(term + 2).to(tl.float32), tl.load(term + 3).to(tl.float32)
    yaw, pitch = tl.load(term + 4).to(tl.float32), tl.load(term + 5).to(tl.float32)
    first = number * 2 * SIDE * SIDE + at
    second = first + SIDE * SIDE
    depth = tl.load(sums + second) / tl.maximum(tl.load(sums + first), 1e-12) - tl.load(term + 6).to(tl.float32)
    tl.store(own + first, tl.load(flow + first) - (a * x + tx - b * y) - yaw * depth)
    tl.store(own + second, tl.load(flow + second) - (b * x + ty + a * y) - pitch * depth)


@triton.jit
def read(cells, places, inputs, COUNT: tl.constexpr, CELLS: tl.constexpr, BLOCK: tl.constexpr, ALL: tl.constexpr):
    """Cells [N, 3, CELLS, CELLS], each channel scaled to 0..1, read bilinearly at places [N, COUNT, 2] of (x, y): inputs
    [N, 3, COUNT].

    CPU equivalents: the end of flowmap.whole_map, flowmap.sample. Grid (3 N, COUNT / BLOCK); ALL is a power of two of
    CELLS * CELLS or more.
    """
    channel = cells + tl.program_id(0) * CELLS * CELLS
    lane = tl.arange(0, ALL)
    there = lane < CELLS * CELLS
    low = tl.min(tl.load(channel + lane, mask=there, other=float("inf")), 0)
    high = tl.max(tl.load(channel + lane, mask=there, other=float("-inf")), 0)
    flat = high - low <= 1e-6 * tl.maximum(tl.maximum(tl.abs(low), tl.abs(high)), 1.0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = at < COUNT
    place = places + (tl.program_id(0) // 3 * COUNT + at) * 2
    x = tl.minimum(tl.maximum(tl.load(place, mask=here, other=0.0), 0.0), CELLS - 1.0)
    y = tl.minimum(tl.maximum(tl.load(place + 1, mask=here, other=0.0), 0.0), CELLS - 1.0)
    left, top = tl.minimum(tl.floor(x), CELLS - 2.0), tl.minimum(tl.floor(y), CELLS - 2.0)
    corner = channel + top.to(tl.int32) * CELLS + left.to(tl.int32)
    above = tl.load(corner, mask=here) * (left + 1 - x) + tl.load(corner + 1, mask=here) * (x - left)
    below = tl.load(corner + CELLS, mask=here) * (left + 1 - x) + tl.load(corner + CELLS + 1, mask=here) * (x - left)
    value = above * (top + 1 - y) + below * (y - top)
    scaled = tl.where(flat, 0.0, (value - low) / tl.where(flat, 1.0, high - low))
    tl.store(inputs + tl.program_id(0) * COUNT + at, scaled, mask=here)
