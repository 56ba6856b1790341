"""Optical strain as the formula reads, one pixel at a time. Equivalent: cpu.magnitude."""

from __future__ import annotations

from math import sqrt

import numpy as np

from engine.types import F32


def magnitude(flow: F32) -> F32:
    """[2, H, W] float32 (u, v) -> [H, W] float32, sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)."""
    u, v = flow
    height, width = u.shape
    out = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            exx = _slope(u[y], x)
            eyy = _slope(v[:, x], y)
            shear = _slope(u[:, x], y) + _slope(v[y], x)
            out[y, x] = sqrt(exx**2 + eyy**2 + shear**2 / 2)
    return out


def _slope(line: F32, at: int) -> float:
    """Central difference at one place of a line; one-sided at its ends, 0 on a line of one pixel."""
    before, after = max(at - 1, 0), min(at + 1, len(line) - 1)
    return (float(line[after]) - float(line[before])) / max(after - before, 1)
