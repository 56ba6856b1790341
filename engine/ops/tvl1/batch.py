"""Batches of flows on the chosen backend, on the CPU where a GPU fails."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.errors import BackendError
from engine.ops import device
from engine.ops.backend import Chosen
from engine.ops.tvl1 import cpu, gpu, reference
from engine.types import F32

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


def on_arrays(fixed: npt.NDArray[Any], moving: npt.NDArray[Any], chosen: Chosen) -> F32:
    """Checked pictures [N, H, W] twice -> flows [N, 2, H, W]; on the CPU where the GPU fails, which is logged."""
    fixed, moving = np.ascontiguousarray(fixed, np.float32), np.ascontiguousarray(moving, np.float32)
    if chosen == "gpu":
        try:
            return gpu.solve_arrays(fixed, moving)
        except BackendError as error:
            chosen = _fall_back(error)
    solve = cpu.solve if chosen == "cpu" else reference.solve
    return np.stack([solve(*pair) for pair in zip(fixed, moving, strict=True)])


def on_tensors(fixed: torch.Tensor, moving: torch.Tensor, chosen: Chosen) -> torch.Tensor:
    """`on_arrays` for tensors; the flow stays on the GPU that computed it, else it goes to the device of `fixed`."""
    import torch

    if chosen == "gpu":
        try:
            where = fixed.device if fixed.is_cuda else device.home()
            return gpu.solve_batch(fixed.to(where, torch.float32), moving.to(where, torch.float32))
        except BackendError as error:
            chosen = _fall_back(error)
    with device.translated("Bringing pictures from the GPU or their flow back"):
        return torch.from_numpy(on_arrays(fixed.detach().cpu().numpy(), moving.detach().cpu().numpy(), chosen)).to(fixed.device)


def _fall_back(error: BackendError) -> Chosen:
    _log.warning("%s; the CPU computes it instead", error)
    return "cpu" if cpu.refusal() is None else "reference"
