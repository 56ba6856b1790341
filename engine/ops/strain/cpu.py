"""Optical strain on the CPU, vectorised. Twin: reference.magnitude."""

from __future__ import annotations

import numpy as np

from engine.types import F32


def magnitude(flow: F32) -> F32:
    """[2, H, W] float32 (u, v) -> [H, W] float32, sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)."""
    u, v = flow
    shear = _slope(u, 0) + _slope(v, 1)
    return np.asarray(np.sqrt(_slope(u, 1) ** 2 + _slope(v, 0) ** 2 + np.float32(0.5) * shear**2), np.float32)


def _slope(field: F32, axis: int) -> F32:
    """Central differences along an axis; one-sided at the border, 0 along an axis of one pixel."""
    if field.shape[axis] == 1:
        return np.zeros_like(field)
    return np.asarray(np.gradient(field, axis=axis), np.float32)
