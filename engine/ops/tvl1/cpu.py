"""TV-L1 on the CPU: reference.solve as machine code (compiled.py), which numba compiles once and keeps on disk.

Compiling takes seconds, loading what is kept takes a third of one: the first `solve` does either, so call
`engine.ops.tvl1.prepare` before flow is needed. Where numba is missing a warning says so once, and "auto" takes the slow
reference.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engine import kernels
from engine.errors import BackendError
from engine.ops.tvl1.method import METHOD, Method, beginning, gaussian, sizes
from engine.types import F32

SHARED = 4
"""Pairs from which on a batch is shared among the cores; for fewer, starting threads costs more than it saves."""


def refusal() -> str | None:
    """Why the machine code cannot run here, None when it can."""
    return kernels.refusal()


def solve(fixed: F32, moving: F32, method: Method = METHOD, start: F32 | None = None) -> F32:
    """[H, W] float32 in 0..255, twice -> [2, H, W] float32 (u, v) in pixels. Equivalent: reference.solve.

    start is a flow near the sought one, if one is known. Raises BackendError where numba cannot be used.
    """
    if (reason := refusal()) is not None:
        raise BackendError(f"TV-L1 has no fast CPU path here: {reason}")
    if method.median not in (1, 3):
        raise ValueError(f"the CPU path's median filter has 1 or 3 pixels a side, not {method.median}")
    from engine.ops.tvl1 import compiled
    from engine.ops.tvl1.pitch import plane_pitch

    levels, flow = beginning(sizes(fixed.shape[0], fixed.shape[1], method), start, method)
    numbers = method.lam * method.theta, method.tau, method.tau / method.theta, method.settled**2
    steps = method.warps, method.iterations, method.median
    laid_out = np.array([(*size, plane_pitch(*size)) for size in levels], np.int64)
    arrays = np.stack([fixed, moving]), flow, laid_out, gaussian(method.smoothing)
    return np.asarray(compiled.solver()(*arrays, *steps, *numbers), np.float32)


def solve_batch(fixed: F32, moving: F32) -> F32:
    """[N, H, W] twice -> [N, 2, H, W], each pair's as `solve` gives it; on all cores of the process, on threads that end with
    the call. Raises as `solve` does."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1 or len(fixed) < SHARED:
        return np.stack([solve(*pair) for pair in zip(fixed, moving, strict=True)])
    with ThreadPoolExecutor(min(cores, len(fixed)), "tvl1") as pool:
        return np.stack(list(pool.map(solve, fixed, moving)))
