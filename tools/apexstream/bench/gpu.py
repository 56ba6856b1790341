"""TV-L1 on the GPU beside OpenCV's on the processor, or the reason why it is not measured here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from statistics import median

import numpy as np

from apexstream.bench import machine
from apexstream.bench.baseline import default_flow
from apexstream.bench.report import Row
from apexstream.bench.timing import gpu_median_ms, timed
from engine.geometry import CROP_SIDE
from engine.ops.tvl1 import gpu
from engine.types import F32

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
    fixed, moving = pairs()
    import torch

    on_gpu = torch.from_numpy(fixed).cuda(), torch.from_numpy(moving).cuda()
    plain = 1000 * median(timed(partial(default_flow, fixed[k], moving[k]), time.perf_counter)[0] for k in range(4))
    ours = gpu_median_ms(lambda: gpu.solve_batch(*on_gpu), ROUNDS) / PAIRS
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
