"""Optical strain on the GPU, many flows in one launch. CPU equivalent: reference.magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.ops import device
from engine.types import F32

if TYPE_CHECKING:
    import torch

BLOCK = 512
"""Pixels of one program."""


def refusal() -> str | None:
    """Why strain cannot run on a GPU here, None when it can."""
    return device.refusal()


def magnitude(flow: F32) -> F32:
    """[2, H, W] float32 (u, v) -> [H, W] float32. Raises BackendError for a GPU that fails."""
    with device.translated(f"Strain of {flow.shape}"):
        import torch

        there = torch.from_numpy(np.array(flow[None])).to(device.current_device())
        return np.asarray(magnitude_batch(there)[0].cpu().numpy(), np.float32)


def magnitude_batch(flow: torch.Tensor) -> torch.Tensor:
    """[N, 2, H, W] float32 on the GPU -> [N, H, W] float32, there. Raises BackendError for a GPU that fails."""
    import torch

    from engine.ops.strain import triton_kernels as kernels

    number, _, height, width = flow.shape
    with device.translated(f"Strain of {tuple(flow.shape)}"), device.on_device_of(flow):
        out = torch.empty((number, height, width), dtype=torch.float32, device=flow.device)
        blocks = -(-height * width // BLOCK)
        kernels.magnitude[(number * blocks,)](flow.contiguous(), out, height, width, blocks, BLOCK, enable_fp_fusion=True)
        return out
