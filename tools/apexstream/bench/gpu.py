"""TV-L1 on the GPU beside OpenCV's on the processor, or the reason why it is not measured here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from statistics import median

from apexstream.bench import machine
from apexstream.bench.baseline import default_flow
from apexstream.bench.on_gpu.pictures import moved_pairs
from apexstream.bench.report import Row
from apexstream.bench.timing import gpu_median_ms, timed
from engine.geometry import CROP_SIDE
from engine.ops.tvl1 import gpu

PAIRS = 64
ROUNDS = 20


def rows() -> Iterator[Row]:
    """One row; its value is None where there is no GPU, and its note gives the reason."""
    name, reason = machine.gpu()
    reason = reason or gpu.refusal() or ""
    title = f"GPU: flow (TV-L1), a batch of {PAIRS}"
    if name is None or reason:
        yield Row(title, "ms/pair", None, note=f"not measured: {reason}")
        return
    fixed, moving = moved_pairs(PAIRS, CROP_SIDE)
    import torch

    on_gpu = torch.from_numpy(fixed).cuda(), torch.from_numpy(moving).cuda()
    plain = 1000 * median(timed(partial(default_flow, fixed[k], moving[k]), time.perf_counter)[0] for k in range(4))
    ours = gpu_median_ms(lambda: gpu.solve_batch(*on_gpu), ROUNDS) / PAIRS
    yield Row(title, "ms/pair", ours, plain, plain / ours, 100, 100, note=f"{name}; from and to the GPU's memory")
