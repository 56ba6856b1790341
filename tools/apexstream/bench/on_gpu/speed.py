"""The time of flows on the GPU, by its own events: medians after a warm-up, over different pictures by turns."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from apexstream.bench.floor import device_named, floor
from apexstream.bench.on_gpu.check import Check, Entry, Job, SkippedError
from apexstream.bench.on_gpu.pictures import moved_pairs
from apexstream.bench.timing import gpu_median_ms, in_turns
from engine.ops import device
from engine.ops.tvl1 import gpu

ROUNDS = 50
BUFFERS = 4
"""Different inputs that calls take by turns, so that no call finds its own in a cache."""
SIZES = ((64, 128), (1, 128), (8, 128), (512, 128), (16, 64), (16, 256), (16, 512))
"""(pairs, side), in order of worth."""


def flow(job: Job, pairs: int, side: int) -> Entry:
    """A batch of flows whose pictures lie on the device and whose flow stays there."""
    import torch

    needs_gpu()
    there = device.current_device()
    given = (map(torch.from_numpy, moved_pairs(pairs, side, seed)) for seed in range(BUFFERS))
    calls = [partial(gpu.solve_batch, fixed.to(there), moving.to(there)) for fixed, moving in given]
    began = time.perf_counter()
    calls[0]()
    torch.cuda.synchronize()
    first_s = time.perf_counter() - began
    us = 1000 * gpu_median_ms(in_turns(calls), ROUNDS)
    return {
        "median_us": round(us, 1),
        "us_a_pair": round(us / pairs, 2),
        "first_call_s": round(first_s, 2),
        **_floor(pairs, side, us),
    }


def _floor(pairs: int, side: int, us: float) -> dict[str, Any]:
    import torch

    known = device_named(torch.cuda.get_device_name())
    if known is None:
        return {"floor": "unknown for this device (apexstream.bench.floor)"}
    least = floor(known, pairs, side, side)
    return {"floor_us": round(least.seconds * 1e6, 2), "times_floor": round(us / (least.seconds * 1e6), 1)}


def needs_gpu() -> None:
    """Raises SkippedError where kernels are interpreted: that says nothing about speed."""
    if device.interpreted():
        raise SkippedError("kernels are interpreted here, which says nothing about speed")


CHECKS = {
    "timing": tuple(
        Check(f"flow of {pairs} pairs of {side} x {side}", partial(flow, pairs=pairs, side=side), 10) for pairs, side in SIZES
    )
}
