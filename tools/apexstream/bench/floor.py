"""The least time in which a device could solve a batch of TV-L1 pairs: by its memory, and by its arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from engine.ops.tvl1.method import METHOD, Method, gaussian, sizes

SAMPLE, WEIGHTS = 32, 8 * 6
"""Operations of a cubic sample of 16 pixels, and of its eight weights, which samples at one place share."""
DERIVATIVES = 2 * 5
ITERATION = 4 + 3 + 4 + 2 * (4 + 2) + 2 * (2 + 3 + 1 + 2 + 1 + 4)
"""The brightness left over and its threshold; the step along the gradient; both divergences; both components' ascent (two
differences, their length, 1 / (1 + length), the dual field's two values). A square root and a division count as one each."""
MEDIAN = 2 * 2 * 19
"""Least and greatest of the 19 exchanges that find the middle of nine, for both components."""


@dataclass(frozen=True)
class Device:
    """What a maker states: memory bandwidth in bytes/s and float32 operations/s outside of tensor cores, a fused one as two."""

    bandwidth: float
    operations: float


DEVICES = {
    "H200": Device(4.8e12, 66.9e12),
    "H100": Device(3.35e12, 66.9e12),
    "A100": Device(2.04e12, 19.5e12),
    "L40S": Device(864e9, 91.6e12),
    "L4": Device(300e9, 30.3e12),
    "RTX 4090": Device(1008e9, 82.6e12),
    "RTX 3090": Device(936e9, 35.6e12),
}
"""By a part of the name that the driver gives, from NVIDIA's data sheets."""


@dataclass(frozen=True)
class Floor:
    """Seconds: what moving the pictures in and the flow out takes, and what the arithmetic takes; the greater one binds."""

    memory: float
    arithmetic: float

    @property
    def seconds(self) -> float:
        """The least time of the batch."""
        return max(self.memory, self.arithmetic)


def work(pairs: int, height: int, width: int, method: Method = METHOD) -> tuple[int, int]:
    """(bytes, operations) of a batch: float32 pictures read once, float32 flows written once, every iteration done."""
    operations = 2 * height * width * 2 * 2 * len(gaussian(method.smoothing))
    for number, (rows, columns) in enumerate(sizes(height, width, method)):
        warp = 3 * SAMPLE + WEIGHTS + 12 + method.iterations * ITERATION + (MEDIAN if method.median > 1 else 0)
        pyramid = 2 * (DERIVATIVES + (SAMPLE + WEIGHTS if number else 0)) + 2 * SAMPLE + WEIGHTS
        operations += rows * columns * (method.warps * warp + pyramid)
    return pairs * height * width * 4 * 4, pairs * operations


def device_named(name: str) -> Device | None:
    """The device of `DEVICES` whose name is part of this one; the longest such name counts."""
    fitting = [part for part in DEVICES if part in name]
    return DEVICES[max(fitting, key=len)] if fitting else None


def floor(device: Device, pairs: int, height: int, width: int, method: Method = METHOD) -> Floor:
    """The least time of a batch on a device."""
    moved, operations = work(pairs, height, width, method)
    return Floor(moved / device.bandwidth, operations / device.operations)
