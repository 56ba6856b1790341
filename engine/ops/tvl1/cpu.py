"""TV-L1 on the CPU: OpenCV's solver with parameters chosen by measurement (docs/performance.md)."""

from __future__ import annotations

import cv2
import numpy as np

from engine.ops.tvl1.method import sizes
from engine.types import F32


def solve(fixed: F32, moving: F32) -> F32:
    """[H, W] float32 in 0..255, twice -> [2, H, W] float32 (u, v) in pixels. Twin: reference.solve.

    A solver object keeps its buffers between calls and is not safe to share between threads; making one takes 1 us, so each
    call makes its own.
    """
    solver = cv2.optflow.DualTVL1OpticalFlow_create(
        nscales=len(sizes(*fixed.shape)), scaleStep=0.5, warps=2, outerIterations=1, innnerIterations=10
    )
    flow = solver.calc(fixed * np.float32(1 / 255), moving * np.float32(1 / 255), None)
    return np.ascontiguousarray(flow.transpose(2, 0, 1), np.float32)
