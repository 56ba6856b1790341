"""The Triton kernel of optical strain: each program reads a run of pixels and their neighbours once and writes it once."""

# mypy: ignore-errors
# ruff: noqa: PLR0917

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["height", "width", "blocks"])
def magnitude(flow, out, height, width, blocks, BLOCK: tl.constexpr):
    """Strain [N, H, W] of flows [N, 2, H, W], grid N * blocks, `blocks` of them a flow; CPU equivalent: reference.magnitude."""
    cells = height.to(tl.int64) * width
    number = tl.program_id(0) // blocks
    at = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    here = at < cells
    y, x = at // width, at % width
    before, after = tl.maximum(x - 1, 0), tl.minimum(x + 1, width - 1)
    above, under = tl.maximum(y - 1, 0), tl.minimum(y + 1, height - 1)
    across, down = tl.maximum(after - before, 1).to(tl.float32), tl.maximum(under - above, 1).to(tl.float32)
    u = flow + number * 2 * cells
    v = u + cells
    stretch_x = _difference(u + y * width + after, u + y * width + before, here) / across
    stretch_y = _difference(v + under * width + x, v + above * width + x, here) / down
    shear_u = _difference(u + under * width + x, u + above * width + x, here) / down
    shear_v = _difference(v + y * width + after, v + y * width + before, here) / across
    shear = shear_u + shear_v
    square = stretch_x * stretch_x + stretch_y * stretch_y + 0.5 * shear * shear
    tl.store(out + number * cells + at, tl.sqrt(square), mask=here)


@triton.jit
def _difference(there, here, mask):
    return tl.load(there, mask=mask, other=0.0) - tl.load(here, mask=mask, other=0.0)
