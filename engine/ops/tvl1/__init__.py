"""TV-L1 optical flow between two grey pictures: one checked front, the same answer from every backend within tolerance."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ArrayError
from engine.ops.backend import Backend, Chosen, choose
from engine.ops.tvl1 import cpu, gpu, reference
from engine.types import F32

__all__ = ["prepare", "tvl1"]

LONGEST_SIDE = 32_000
"""Pixels; OpenCV's sampling ends a little above."""
GREY_SLACK = 0.5
"""How far, in grey levels, a float picture may leave 0..255 (interpolation overshoots by rounding)."""


def tvl1(
    fixed: npt.NDArray[Any], moving: npt.NDArray[Any], *, backend: Backend = "auto", start: npt.NDArray[Any] | None = None
) -> F32:
    """Dense motion from `fixed` to `moving`, so that moving(x + u, y + v) = fixed(x, y).

    fixed and moving are [H, W], uint8 or float32 with grey levels 0..255, of one shape (their types may differ). The result is
    [2, H, W] float32, (u, v) in pixels, u to the right and v down. "auto" takes the GPU where there is one, else the CPU.
    start is such a flow, near the sought one (of the picture before, say): it saves the CPU a part of the work, and the motion
    it lacks must be small, 2 px or so.
    Raises ArrayError for pictures that cannot be compared, BackendError for a backend that cannot run.
    Method: Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007.
    """
    chosen = _chosen(backend)
    _check("fixed", fixed)
    _check("moving", moving)
    if fixed.shape != moving.shape:
        raise ArrayError(f"both pictures must have one shape; fixed is {fixed.shape} and moving is {moving.shape}")
    if start is not None:
        _check_start(start, fixed.shape)
    pair = np.ascontiguousarray(fixed, np.float32), np.ascontiguousarray(moving, np.float32)
    if chosen == "gpu":
        return gpu.solve(*pair)
    if chosen == "cpu":
        return cpu.solve(*pair, start=start)
    return reference.solve(*pair, start=start)


def prepare(backend: Backend = "auto") -> Chosen:
    """Makes ready what `tvl1` needs, so that its first call is as fast as the others; returns who will compute.

    Compiles the CPU's machine code (some ten seconds, once for each version and machine) or loads it (half a second). Raises
    BackendError for a backend that cannot run.
    """
    chosen = _chosen(backend)
    blank = np.zeros((16, 16), np.uint8)
    if chosen != "reference":
        tvl1(blank, blank, backend=chosen)
    return chosen


def _chosen(backend: Backend) -> Chosen:
    chosen = choose(backend, gpu.refusal())
    if backend == "auto" and chosen == "cpu" and _slow():
        return "reference"
    return chosen


@lru_cache(maxsize=1)
def _slow() -> bool:
    """Whether only the reference is left; says so once."""
    if (reason := cpu.refusal()) is None:
        return False
    warnings.warn(f"TV-L1 runs some 50 times slower than it could: {reason}", RuntimeWarning, stacklevel=2)
    return True


def _check_start(start: object, shape: tuple[int, ...]) -> None:
    wanted = (2, *shape)
    if not isinstance(start, np.ndarray) or start.shape != wanted or start.dtype != np.float32:
        is_ = f"{start.dtype} {start.shape}" if isinstance(start, np.ndarray) else type(start).__name__
        raise ArrayError(f"start must be a flow, float32 {wanted}; it is {is_}")
    if not np.isfinite(start).all():
        raise ArrayError("start holds values that are not finite; leave it out instead")


def _check(name: str, picture: object) -> None:
    if not isinstance(picture, np.ndarray):
        raise ArrayError(f"{name} must be a numpy array [H, W], not {type(picture).__name__}")
    if picture.ndim != 2 or not picture.size:
        raise ArrayError(f"{name} must be one grey picture [H, W] with at least one pixel; its shape is {picture.shape}")
    if max(picture.shape) > LONGEST_SIDE:
        raise ArrayError(f"{name} may have sides up to {LONGEST_SIDE} px; its shape is {picture.shape}")
    if picture.dtype == np.uint8:
        return
    if picture.dtype != np.float32:
        raise ArrayError(f"{name} must be uint8, or float32 in 0..255; it is {picture.dtype}")
    low, high = float(picture.min()), float(picture.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ArrayError(f"{name} holds values that are not finite; mend or leave out such pictures before asking for flow")
    if low < -GREY_SLACK or high > 255 + GREY_SLACK:
        raise ArrayError(f"{name} must hold grey levels 0..255; its values run from {low:g} to {high:g}")
    if high <= 1 and high - low > 0.1 and (picture != np.rint(picture)).any():
        raise ArrayError(f"{name} must hold grey levels 0..255; its values run from {low:g} to {high:g}, so multiply it by 255")
