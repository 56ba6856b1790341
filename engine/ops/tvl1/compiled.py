"""The machine code of cpu.solve: the steps of reference.solve, compiled by numba. Only cpu.py imports this, when it is needed.

All loops run over contiguous float32 so that LLVM turns them into SIMD. The interpreter's lock is free for the whole call,
nothing is shared between calls and no thread is started: streams run side by side, one core each, and so do the pairs of a
batch (`cpu.solve_batch`). Halving one pair would not pay: its iterations take about as long as waking a thread for each.

A level keeps its planes in one array, cells [10, pitch], of which (H + 1) * stride are used, a row being one cell longer than
the picture's and the planes one row, so that an iteration is two loops over all pixels without a case for the border:
- flow, at i: the cell behind a row and the row below the picture repeat the last pixel, so that the difference there is 0;
- dual fields, theta / tau times the papers', along x at i + 1 and along y at i + stride: what lies in front of the first pixel
  is 0, as `divergence` asks;
- the linear brightness, at i: 0 behind the row.
`pitch.plane_pitch` keeps loads out of the way of stores.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# ruff: noqa: PLR0917

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.machine import FAST, compiled, part
from engine.ops.tvl1.method import CUBIC

ZERO, ONE, TWO, THREE, HALF, EIGHT = (np.float32(n) for n in (0, 1, 2, 3, 0.5, 8))
TWELFTH, FLAT, KEYS = np.float32(1 / 12), np.float32(1e-9), np.float32(CUBIC)
# Unsigned, because an index that may be negative costs numba a comparison at every access, and LLVM its vectors.
NEXT, FOUR = np.uintp(1), np.uintp(4)
U, V, U_X, U_Y, V_X, V_Y, CONSTANT, ACROSS, DOWN, FACTOR = (np.uintp(n) for n in range(10))


@part(FAST)
def clamped(y, height):
    """The row that stands for row y, inside or outside of the picture."""
    return min(max(y, 0), height - 1)


@part(FAST)
def blur(pictures, weights):
    """[N, H, W] -> the same, convolved with the weights [2 * reach + 1] along y and x. Equivalent: reference.smooth."""
    count, height, width = pictures.shape
    reach = len(weights) // 2
    out = np.empty_like(pictures)
    padded = np.empty(width + 2 * reach, np.float32)
    for n in range(count):
        for y in range(height):
            padded[:] = ZERO
            for k in range(len(weights)):
                row, weight = clamped(y + k - reach, height), weights[k]
                for x in range(width):
                    padded[x + reach] += weight * pictures[n, row, x]
            for x in range(reach):
                padded[x], padded[x + width + reach] = padded[reach], padded[width + reach - 1]
            for x in range(width):
                out[n, y, x] = ZERO
            for k in range(len(weights)):
                weight = weights[k]
                for x in range(width):
                    out[n, y, x] += weight * padded[x + k]
    return out


@part(FAST)
def slopes(picture):
    """[H, W] -> [2, H, W] along x and y. Equivalent: reference.derivatives."""
    height, width = picture.shape
    out = np.empty((2, height, width), np.float32)
    padded = np.empty(width + 4, np.float32)
    for y in range(height):
        for x in range(width):
            padded[x + 2] = picture[y, x]
        padded[0] = padded[1] = padded[2]
        padded[width + 2] = padded[width + 3] = padded[width + 1]
        for x in range(width):
            out[0, y, x] = (EIGHT * (padded[x + 3] - padded[x + 1]) - (padded[x + 4] - padded[x])) * TWELFTH
        a, b, c, d = clamped(y - 2, height), clamped(y - 1, height), clamped(y + 1, height), clamped(y + 2, height)
        for x in range(width):
            out[1, y, x] = (EIGHT * (picture[c, x] - picture[b, x]) - (picture[d, x] - picture[a, x])) * TWELFTH
    return out


@part(FAST)
def cubic_weights(f):
    """Keys' weights of the four pixels around a place that lies the fraction f behind the second one."""
    g = ONE - f
    second = ((KEYS + TWO) * f - (KEYS + THREE)) * f * f + ONE
    third = ((KEYS + TWO) * g - (KEYS + THREE)) * g * g + ONE
    return KEYS * f * g * g, second, third, KEYS * g * f * f


@part(FAST)
def resampling(before, after):
    """For each of `after` pixels the four of `before` that make it [after, 4] and their weights [after, 4]."""
    index, weight = np.empty((after, 4), np.uintp), np.empty((after, 4), np.float32)
    for x in range(after):
        place = np.float32((x + 0.5) * (before / after) - 0.5)
        left = math.floor(place)
        w = cubic_weights(np.float32(place - np.float32(left)))
        for k in range(4):
            index[x, k] = clamped(left + k - 1, before)
            weight[x, k] = w[k]
    return index, weight


@part(FAST)
def resized(pictures, height, width):
    """[N, h, w] -> [N, height, width]. Equivalent: reference.resize."""
    count, before_height, before_width = pictures.shape
    rows, down = resampling(before_height, height)
    columns, across = resampling(before_width, width)
    out = np.empty((count, height, width), np.float32)
    line = np.empty(before_width, np.float32)
    for n in range(count):
        for y in range(height):
            a, b, c, d = rows[y, 0], rows[y, 1], rows[y, 2], rows[y, 3]
            e, f, g, h = down[y, 0], down[y, 1], down[y, 2], down[y, 3]
            for x in range(before_width):
                line[x] = e * pictures[n, a, x] + f * pictures[n, b, x] + g * pictures[n, c, x] + h * pictures[n, d, x]
            for x in range(width):
                left = across[x, 0] * line[columns[x, 0]] + across[x, 1] * line[columns[x, 1]]
                out[n, y, x] = left + across[x, 2] * line[columns[x, 2]] + across[x, 3] * line[columns[x, 3]]
    return out


@part(FAST)
def enlarged(flow, height, width):
    """A flow [2, h, w] for a picture of another size, its lengths in that one's pixels. Equivalent: reference.enlarge."""
    _, before_height, before_width = flow.shape
    if before_height == height and before_width == width:
        return flow
    out = resized(flow, height, width)
    for n in range(2):
        scale = np.float32(height / before_height if n else width / before_width)
        for y in range(height):
            for x in range(width):
                out[n, y, x] *= scale
    return out


@intrinsic
def put(context, out, at, pixel):
    """out[at : at + 4] = three numbers and a 0, as one vector: else LLVM scatters those of several pixels."""

    def generate(compiler, builder, signature, values):
        out, at, pixel = values
        target = compiler.make_array(signature.args[0])(compiler, builder, out).data
        vector = ir.Constant(ir.VectorType(ir.FloatType(), 4), [0.0] * 4)
        for place, number in enumerate(cgutils.unpack_tuple(builder, pixel, 3)):
            vector = builder.insert_element(vector, number, ir.Constant(ir.IntType(32), place))
        builder.store(vector, builder.bitcast(builder.gep(target, [at]), vector.type.as_pointer()), align=4)
        return compiler.get_dummy_value()

    return types.void(out, types.uintp, pixel), generate


@part(FAST)
def interleaved(picture):
    """[H, W] -> [(H + 3) * (W + 3) * 4]: a pixel's grey level, its two slopes and a 0 side by side, the border repeated."""
    height, width = picture.shape
    slope = slopes(picture)
    out = np.zeros((height + 3, width + 3, 4), np.float32)
    flat = out.ravel()
    for y in range(height + 3):
        row, start = clamped(y - 1, height), np.uintp(y * (width + 3) + 1)
        for x in range(width):
            pixel = picture[row, x], slope[0, row, x], slope[1, row, x]
            put(flat, FOUR * (start + np.uintp(x)), pixel)  # type: ignore[call-arg]
        for k in range(3):
            out[y, 0, k] = out[y, 1, k]
            out[y, width + 1, k] = out[y, width + 2, k] = out[y, width, k]
    return flat


@intrinsic
def sample(context, picture, place, stride, weights, out, at):
    """out[at : at + 4] = the interleaved picture between 4 x 4 pixels, the first at `place`. Equivalent: reference.sample.

    weights are four along x and four along y. In LLVM's own vectors, because it finds none in the loop over the four values.
    """
    vector, number = ir.VectorType(ir.FloatType(), 4), ir.IntType(32)

    def generate(compiler, builder, signature, values):
        picture, place, stride, weights, out, at = values
        source = compiler.make_array(signature.args[0])(compiler, builder, picture).data
        target = compiler.make_array(signature.args[4])(compiler, builder, out).data
        none, first = ir.Constant(vector, ir.Undefined), ir.Constant(number, 0)
        spread = ir.Constant(ir.VectorType(number, 4), [0] * 4)
        alone = (builder.insert_element(none, weight, first) for weight in cgutils.unpack_tuple(builder, weights, 8))
        factors = [builder.shuffle_vector(one, none, spread) for one in alone]
        total = ir.Constant(vector, [0.0] * 4)
        for row in range(4):
            line = ir.Constant(vector, [0.0] * 4)
            for column in range(4):
                index = builder.add(place, ir.Constant(place.type, 4 * column))
                pixel = builder.load(builder.bitcast(builder.gep(source, [index]), vector.as_pointer()), align=4, typ=vector)
                line = builder.fadd(line, builder.fmul(pixel, factors[column], flags=("fast",)), flags=("fast",))
            total = builder.fadd(total, builder.fmul(line, factors[4 + row], flags=("fast",)), flags=("fast",))
            place = builder.add(place, stride)
        builder.store(total, builder.bitcast(builder.gep(target, [at]), vector.as_pointer()), align=4)
        return compiler.get_dummy_value()

    return types.void(picture, types.uintp, types.uintp, weights, out, types.uintp), generate


@part(FAST)
def locate_row(cells, start, y, height, places, weights, inside):
    """Where a row's pixels are sampled: the first of 16 pixels [W], the weights [8, W], and 0.5 inside the picture, else 0."""
    width = len(inside)
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    for x in range(width):
        to_x, to_y = np.float32(x) + cells[U, start + np.uintp(x)], np.float32(y) + cells[V, start + np.uintp(x)]
        near_x, near_y = min(max(to_x, ZERO), right), min(max(to_y, ZERO), bottom)
        inside[x] = HALF if (near_x == to_x) & (near_y == to_y) else ZERO
        left, top = np.int32(near_x), np.int32(near_y)
        places[x] = (np.int64(top) * (width + 3) + np.int64(left)) * 4
        weights[0, x], weights[1, x], weights[2, x], weights[3, x] = cubic_weights(near_x - np.float32(left))
        weights[4, x], weights[5, x], weights[6, x], weights[7, x] = cubic_weights(near_y - np.float32(top))


@part(FAST)
def expand(fixed, slope, moving, cells):
    """The linear brightness around the flow: constant part, gradient, -1 / |gradient|^2. Equivalent: reference.expand."""
    height, width = fixed.shape
    places, weights = np.empty(width, np.uintp), np.empty((8, width), np.float32)
    inside, samples = np.empty(width, np.float32), np.empty(4 * width, np.float32)
    for y in range(height):
        start = np.uintp(y * (width + 1))
        locate_row(cells, start, y, height, places, weights, inside)
        for x in range(width):
            a, b, c, d = weights[0, x], weights[1, x], weights[2, x], weights[3, x]
            e, f, g, h = weights[4, x], weights[5, x], weights[6, x], weights[7, x]
            factors = a, b, c, d, e, f, g, h
            sample(moving, places[x], np.uintp(4 * (width + 3)), factors, samples, FOUR * np.uintp(x))  # type: ignore[call-arg]
        for x in range(width):
            i = start + np.uintp(x)
            gx, gy = (slope[0, y, x] + samples[4 * x + 1]) * inside[x], (slope[1, y, x] + samples[4 * x + 2]) * inside[x]
            cells[CONSTANT, i] = samples[4 * x] - fixed[y, x] - gx * cells[U, i] - gy * cells[V, i]
            cells[ACROSS, i], cells[DOWN, i], cells[FACTOR, i] = gx, gy, -ONE / max(gx * gx + gy * gy, FLAT)


@part(FAST)
def explain(cells, count, stride, bound, tau):
    """flow += threshold(rho) + theta div p; returns the sum of the squared change."""
    moved = ZERO
    for i in range(count):
        step = cells[CONSTANT, i] + cells[ACROSS, i] * cells[U, i] + cells[DOWN, i] * cells[V, i]
        step = min(max(step * cells[FACTOR, i], -bound), bound)
        u_spread = cells[U_X, i + NEXT] - cells[U_X, i] + cells[U_Y, i + stride] - cells[U_Y, i]
        v_spread = cells[V_X, i + NEXT] - cells[V_X, i] + cells[V_Y, i + stride] - cells[V_Y, i]
        du, dv = step * cells[ACROSS, i] + tau * u_spread, step * cells[DOWN, i] + tau * v_spread
        cells[U, i] += du
        cells[V, i] += dv
        moved += du * du + dv * dv
    return moved


@part(FAST)
def ascend(cells, count, stride, rate, part, along_x, along_y):
    """The ascent of the dual field of a part of the flow along its gradient."""
    for i in range(count):
        gx, gy = cells[part, i + NEXT] - cells[part, i], cells[part, i + stride] - cells[part, i]
        shrink = ONE / (ONE + rate * math.sqrt(gx * gx + gy * gy))
        cells[along_x, i + NEXT] = (cells[along_x, i + NEXT] + gx) * shrink
        cells[along_y, i + stride] = (cells[along_y, i + stride] + gy) * shrink


@part(FAST)
def repeat_border(cells, height, stride):
    """The flow behind and below the picture."""
    for y in range(height):
        end = (y + NEXT) * stride - NEXT
        cells[U, end], cells[V, end] = cells[U, end - NEXT], cells[V, end - NEXT]
    last = (height - NEXT) * stride
    for x in range(stride):
        cells[U, last + stride + x], cells[V, last + stride + x] = cells[U, last + x], cells[V, last + x]


@part(FAST)
def clear_border(cells, height, stride):
    """The dual fields behind the picture."""
    for y in range(height):
        end = (y + NEXT) * stride - NEXT
        cells[U_X, end + NEXT] = cells[V_X, end + NEXT] = cells[U_Y, end + stride] = cells[V_Y, end + stride] = ZERO


@part(FAST)
def iterate(cells, height, stride, bound, tau, rate):
    """One iteration; returns the mean squared change of the flow."""
    count = height * stride
    moved = explain(cells, count, stride, bound, tau)
    repeat_border(cells, height, stride)
    ascend(cells, count, stride, rate, U, U_X, U_Y)
    ascend(cells, count, stride, rate, V, V_X, V_Y)
    clear_border(cells, height, stride)
    return moved / np.float32(count - height)


@part(FAST)
def median(cells, height, width):
    """Median over 3 x 3 pixels of both parts of the flow, from columns sorted first. Equivalent: reference.median."""
    out = np.empty((2, height, width), np.float32)
    low, middle, high = np.empty(width + 2, np.float32), np.empty(width + 2, np.float32), np.empty(width + 2, np.float32)
    for n in range(2):
        for y in range(height):
            here = np.uintp(y * (width + 1))
            above, below = np.uintp(clamped(y - 1, height) * (width + 1)), np.uintp(clamped(y + 1, height) * (width + 1))
            for x in range(width):
                a, b, c = cells[n, above + np.uintp(x)], cells[n, here + np.uintp(x)], cells[n, below + np.uintp(x)]
                least, most = min(a, b), max(a, b)
                low[x + 1], high[x + 1], middle[x + 1] = min(least, c), max(most, c), max(least, min(most, c))
            for row in (low, middle, high):
                row[0], row[width + 1] = row[1], row[width]
            for x in range(width):
                a = max(low[x], low[x + 1], low[x + 2])
                b = max(min(middle[x], middle[x + 1]), min(max(middle[x], middle[x + 1]), middle[x + 2]))
                c = min(high[x], high[x + 1], high[x + 2])
                out[n, y, x] = max(min(a, b), min(max(a, b), c))
    return out


@part(FAST)
def take(cells, flow):
    """The flow [2, H, W] laid into its planes."""
    _, height, width = flow.shape
    for n in range(2):
        for y in range(height):
            start = np.uintp(y * (width + 1))
            for x in range(width):
                cells[n, start + np.uintp(x)] = flow[n, y, x]


@part(FAST)
def taken_out(cells, height, width):
    """The flow [2, H, W] out of its planes, by loops: for a copy of a slice LLVM gathers, which many CPUs do slowly."""
    flow = np.empty((2, height, width), np.float32)
    for n in range(2):
        for y in range(height):
            start = np.uintp(y * (width + 1))
            for x in range(width):
                flow[n, y, x] = cells[n, start + np.uintp(x)]
    return flow


@part(FAST)
def level(fixed, moving, flow, pitch, warps, iterations, side, bound, tau, rate, settled):
    """One level of the pyramid: warp, solve, warp again from the better flow [2, H, W]. Equivalent: reference._level."""
    height, width = fixed.shape
    slope, around = slopes(fixed), interleaved(moving)
    cells = np.zeros((10, pitch), np.float32)
    take(cells, flow)
    for _ in range(warps):
        expand(fixed, slope, around, cells)
        for _ in range(iterations):
            if iterate(cells, np.uintp(height), np.uintp(width + 1), bound, tau, rate) < settled:
                break
        if side == 3:
            flow = median(cells, height, width)
            take(cells, flow)
    return taken_out(cells, height, width)


def solve(pictures, start, sizes, weights, warps, iterations, side, bound, tau, rate, settled):
    """[2, H, W] (fixed, moving) and the flow to begin with, of the last of the sizes -> the flow [2, H, W].

    sizes [N, 3]: height, width and `pitch.plane_pitch` of each level.
    """
    pyramid = [blur(pictures, weights)]
    for n in range(1, len(sizes)):
        pyramid.append(resized(pyramid[n - 1], sizes[n, 0], sizes[n, 1]))
    flow = start
    for n in range(len(sizes) - 1, -1, -1):
        pair = pyramid[n]
        flow = enlarged(flow, sizes[n, 0], sizes[n, 1])
        flow = level(pair[0], pair[1], flow, sizes[n, 2], warps, iterations, side, bound, tau, rate, settled)
    return flow


STACK, LIST, TABLE = types.float32[:, :, ::1], types.float32[::1], types.int64[:, ::1]
COUNT, NUMBER = types.int64, types.float32
SIGNATURE = STACK(STACK, STACK, TABLE, LIST, COUNT, COUNT, COUNT, NUMBER, NUMBER, NUMBER, NUMBER)


@lru_cache(maxsize=1)
def solver():
    """`solve` as machine code."""
    return compiled(solve, SIGNATURE, FAST)
