"""Patches of PATCH x PATCH pixels a thread, for Triton kernels: load, store, and exchange values between threads.

A field is a tuple of PATCH * PATCH tensors [patches], one for each pixel of the patch, row by row. PATCH is 2 or 4.
"""

# mypy: ignore-errors
# ruff: noqa: PLR0917, RUF005, SIM108 - Triton compiles neither starred tuples nor every conditional expression

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def exchanged(a, b, c, d, COLUMN: tl.constexpr, ROW: tl.constexpr, where, PATCH: tl.constexpr):
    """In one trip through shared memory: a and b of a COLUMN of other patches, then c and d of a ROW of others.

    `where` (from `places`) says of which. Two tuples of 2 * PATCH tensors: a and c; b and d.
    """
    values = ()
    for k in tl.static_range(PATCH):
        values = values + ((a[k * PATCH + COLUMN], b[k * PATCH + COLUMN]),)
    for k in tl.static_range(PATCH):
        values = values + ((c[ROW * PATCH + k], d[ROW * PATCH + k]),)
    return _found(values, where, PATCH)


@triton.jit
def exchanged_rows(a, b, where, PATCH: tl.constexpr):
    """Likewise a and b of the first row of other patches, then of the last row of others."""
    values = ()
    for k in tl.static_range(PATCH):
        values = values + ((a[k], b[k]),)
    for k in tl.static_range(PATCH * PATCH - PATCH, PATCH * PATCH):
        values = values + ((a[k], b[k]),)
    return _found(values, where, PATCH)


@triton.jit
def exchanged_columns(a, b, where, PATCH: tl.constexpr):
    """Likewise a and b of the first column of other patches, then of the last column of others."""
    values = ()
    for k in tl.static_range(PATCH):
        values = values + ((a[k * PATCH], b[k * PATCH]),)
    for k in tl.static_range(PATCH):
        values = values + ((a[k * PATCH + PATCH - 1], b[k * PATCH + PATCH - 1]),)
    return _found(values, where, PATCH)


@triton.jit
def _found(values, where, PATCH: tl.constexpr):
    """Pairs of float32 values at other patches; a pair travels as one value of 64 bits."""
    packed = ()
    for k in tl.static_range(2 * PATCH):
        first, second = values[k][0].to(tl.uint32, bitcast=True), values[k][1].to(tl.uint32, bitcast=True)
        packed = packed + ((first.to(tl.uint64) << 32) | second,)
    patches: tl.constexpr = packed[0].shape[0]
    found = tl.trans(tl.reshape(tl.gather(_in_a_row(packed, PATCH), where, 0), (2 * PATCH, patches)))
    if PATCH == 4:
        even, odd = tl.split(tl.reshape(found, (patches, 2, 2, 2)))
        a, c, e, g = _split(even)
        b, d, f, h = _split(odd)
        found = (a, b, c, d, e, f, g, h)
    else:
        found = _split(tl.reshape(found, (patches, 2, 2)))
    first, second = (), ()
    for k in tl.static_range(2 * PATCH):
        first = first + ((found[k] >> 32).to(tl.uint32).to(tl.float32, bitcast=True),)
        second = second + (found[k].to(tl.uint32).to(tl.float32, bitcast=True),)
    return first, second


@triton.jit
def places(one, two, PATCH: tl.constexpr):
    """Where `_exchanged` finds the first PATCH values (in patches `one`) and the others (in patches `two`)."""
    patches: tl.constexpr = one.shape[0]
    out = ()
    for k in tl.static_range(PATCH):
        out = out + (one + k * patches,)
    for k in tl.static_range(PATCH, 2 * PATCH):
        out = out + (two + k * patches,)
    return _in_a_row(out, PATCH)


@triton.jit
def _in_a_row(values, PATCH: tl.constexpr):
    """2 * PATCH tensors [patches], one after the other: threads next to each other read what lies next to each other."""
    patches: tl.constexpr = values[0].shape[0]
    if PATCH == 4:
        even = _joined(values[0], values[2], values[4], values[6])
        all_of = tl.join(even, _joined(values[1], values[3], values[5], values[7]))
    else:
        all_of = _joined(values[0], values[1], values[2], values[3])
    return tl.reshape(tl.trans(tl.reshape(all_of, (patches, 2 * PATCH))), (2 * PATCH * patches,))


@triton.jit
def _joined(a, b, c, d):
    """[P] four times -> [P, 2, 2]."""
    return tl.join(tl.join(a, c), tl.join(b, d))


@triton.jit
def _split(four):
    """[P, 2, 2] -> [P] four times, as `_joined` joins them."""
    even, odd = tl.split(four)
    a, c = tl.split(even)
    b, d = tl.split(odd)
    return a, b, c, d


@triton.jit
def loaded(at, here, pitch, PATCH: tl.constexpr):
    """A field of every patch, PATCH * PATCH tensors, from pointers to the patches' first pixels."""
    out = ()
    for row in tl.static_range(PATCH):
        values = tl.load(at[:, None] + (row * pitch + tl.arange(0, PATCH))[None, :], mask=here[:, None], other=0.0)
        if PATCH == 4:
            out = out + _split(tl.reshape(values, (at.shape[0], 2, 2)))
        else:
            out = out + tl.split(values)
    return out


@triton.jit
def stored(at, field, here, pitch, PATCH: tl.constexpr):
    """Stores what `_loaded` loads."""
    for row in tl.static_range(PATCH):
        if PATCH == 4:
            values = _joined(field[4 * row], field[4 * row + 1], field[4 * row + 2], field[4 * row + 3])
            values = tl.reshape(values, (at.shape[0], 4))
        else:
            values = tl.join(field[2 * row], field[2 * row + 1])
        tl.store(at[:, None] + (row * pitch + tl.arange(0, PATCH))[None, :], values, mask=here[:, None])
