"""Optical strain of a flow field: how much the skin stretches and shears, whatever moves it as a whole."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.errors import ArrayError, BackendError
from engine.ops import device
from engine.ops.backend import Backend, choose
from engine.ops.strain import cpu, gpu, reference
from engine.types import F32

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
BACKENDS = {"reference": reference.magnitude, "cpu": cpu.magnitude, "gpu": gpu.magnitude}


LONGEST = 1e6
"""Pixels; a longer motion is no motion, and its square would soon leave float32."""


def strain(flow: npt.NDArray[Any], *, backend: Backend = "auto") -> F32:
    """Magnitude of the infinitesimal strain tensor, sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2), no unit.

    flow is [2, H, W] float32, (u, v) in pixels, as `tvl1` gives it; the result is [H, W] float32. Derivatives are central
    differences inside and one-sided ones at the border; along an axis of one pixel they are 0.
    Raises ArrayError for a flow of another shape or type or with values that are not finite, BackendError for a backend that
    cannot run; where the GPU fails while it computes, the CPU computes and a logged warning says so.
    Source: Shreve et al., "Macro- and micro-expression spotting in long videos using spatio-temporal strain", FG 2011; the
    shear counts twice in the tensor's norm, hence the half.
    """
    chosen = choose(backend, gpu.refusal())
    if not isinstance(flow, np.ndarray):
        raise ArrayError(f"a flow must be a numpy array [2, H, W], not {type(flow).__name__}")
    if flow.ndim != 3 or flow.shape[0] != 2 or not flow.size:
        raise ArrayError(f"a flow must be [2, H, W] with at least one pixel; its shape is {flow.shape}")
    if flow.dtype != np.float32:
        raise ArrayError(f"a flow must be float32; it is {flow.dtype}")
    longest = float(np.abs(flow).max())
    if not longest <= LONGEST:
        raise ArrayError(f"a flow must be finite and shorter than {LONGEST:g} px; its largest value is {longest:g}")
    try:
        return BACKENDS[chosen](np.ascontiguousarray(flow))
    except BackendError as error:
        _log.warning("%s; the CPU computes it instead", error)
        return cpu.magnitude(np.ascontiguousarray(flow))


def strain_batch(flow: torch.Tensor) -> torch.Tensor:
    """`strain` of flows [N, 2, H, W] that are known to be sound, where they lie: [N, H, W] float32 on the same device.

    One launch on a GPU; the CPU takes them one by one. Raises BackendError for a GPU that fails.
    """
    import torch

    if flow.is_cuda or (device.interpreted() and gpu.refusal() is None):
        return gpu.magnitude_batch(flow)
    return torch.from_numpy(np.stack([cpu.magnitude(one) for one in flow.numpy()]))
