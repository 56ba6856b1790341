"""TV-L1 on the GPU beside OpenCV's on the processor, or the reason why it is not measured here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import numpy as np

from apexstream.bench import machine
from apexstream.bench.report import Row
from apexstream.bench.straight import default_flow
from engine.geometry import CROP_SIDE
from engine.ops.tvl1 import gpu
from engine.types import F32

PAIRS = 64
ROUNDS = 20


def rows() -> Iterator[Row]:
    """One row; its value is None where there is no GPU, and its note says why."""
    name, reason = machine.gpu()
    reason = reason or gpu.refusal() or ""
    title = f"GPU: flow (TV-L1), a batch of {PAIRS}"
    if name is None or reason:
        yield Row(title, "ms/pair", None, note=f"not measured: {reason}")
        return
    fixed, moving = pairs()
    plain = median(_opencv_ms(fixed[k], moving[k]) for k in range(4))
    ours = _batch_ms(fixed, moving) / PAIRS
    yield Row(title, "ms/pair", ours, plain, plain / ours, 100, 100, note=f"{name}; from and to the GPU's memory")


def pairs() -> tuple[F32, F32]:
    """PAIRS pictures [128, 128] of smooth noise, each moved by up to 2 pixels."""
    import cv2

    rng = np.random.default_rng(0)
    large = rng.normal(size=(PAIRS, CROP_SIDE + 8, CROP_SIDE + 8)).astype(np.float32)
    smooth = [cv2.normalize(cv2.GaussianBlur(one, (0, 0), 2), np.empty(0), 0, 255, cv2.NORM_MINMAX) for one in large]
    fixed, moving = [], []
    for picture in smooth:
        x, y = rng.uniform(2, 6, 2)
        fixed.append(picture[4 : 4 + CROP_SIDE, 4 : 4 + CROP_SIDE])
        moving.append(cv2.getRectSubPix(picture, (CROP_SIDE, CROP_SIDE), (CROP_SIDE / 2 + x, CROP_SIDE / 2 + y)))
    return np.clip(np.asarray(fixed, np.float32), 0, 255), np.clip(np.asarray(moving, np.float32), 0, 255)


def _opencv_ms(before: F32, after: F32) -> float:
    began = time.perf_counter()
    default_flow(before, after)
    return 1000 * (time.perf_counter() - began)


def _batch_ms(fixed: F32, moving: F32) -> float:
    """Median ms of a whole batch that lies in the GPU's memory and stays there."""
    import torch

    before, after = torch.from_numpy(fixed).cuda(), torch.from_numpy(moving).cuda()
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        gpu.solve_batch(before, after)
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return median(times[2:])
