"""Optical strain on the CPU, vectorised. Equivalent: reference.magnitude."""

from __future__ import annotations

import numpy as np

from engine.types import F32


def magnitude(flow: F32) -> F32:
    """[2, H, W] float32 (u, v) -> [H, W] float32, sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)."""
    across, down = _slopes(flow)
    shear = down[0]
    shear += across[1]
    total = np.square(across[0])
    total += np.square(down[1], out=down[1])
    total += np.float32(0.5) * np.square(shear, out=shear)
    return np.asarray(np.sqrt(total, out=total), np.float32)


def _slopes(flow: F32) -> tuple[F32, F32]:
    """Central differences [2, H, W] along x and along y; one-sided at the border, 0 along an axis of one pixel."""
    across, down = np.zeros_like(flow), np.zeros_like(flow)
    if flow.shape[2] > 1:
        np.subtract(flow[..., 2:], flow[..., :-2], out=across[..., 1:-1])
        across *= np.float32(0.5)
        across[..., 0], across[..., -1] = flow[..., 1] - flow[..., 0], flow[..., -1] - flow[..., -2]
    if flow.shape[1] > 1:
        np.subtract(flow[:, 2:], flow[:, :-2], out=down[:, 1:-1])
        down *= np.float32(0.5)
        down[:, 0], down[:, -1] = flow[:, 1] - flow[:, 0], flow[:, -1] - flow[:, -2]
    return across, down
