"""TV-L1 optical flow between two grey pictures: one checked front, the same answer from every backend within tolerance."""

from __future__ import annotations

import logging
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from engine.errors import ArrayError, BackendError
from engine.ops import device
from engine.ops.backend import Backend, Chosen, choose
from engine.ops.tvl1 import cpu, gpu, reference
from engine.ops.tvl1.checks import LONGEST_START, check_pair, is_tensor
from engine.types import F32

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
_Pictures = TypeVar("_Pictures", npt.NDArray[Any], "torch.Tensor")


def tvl1(
    fixed: npt.NDArray[Any], moving: npt.NDArray[Any], *, backend: Backend = "auto", start: npt.NDArray[Any] | None = None
) -> F32:
    """Dense motion from `fixed` to `moving`, so that moving(x + u, y + v) = fixed(x, y).

    fixed and moving are [H, W], uint8 or float32 with grey levels 0..255, of one shape (their types may differ). The result is
    [2, H, W] float32, (u, v) in pixels, u to the right and v down. "auto" takes the GPU where there is one, else the CPU.
    start is such a flow, near the sought one (of the picture before, say): it saves the CPU a part of the work, and the motion
    it lacks must be small, 2 px or so.
    Raises ArrayError for pictures that cannot be compared, BackendError for a backend that cannot run. Where the GPU runs out
    of memory or fails while it computes, the CPU computes and a logged warning says so.
    Method: Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007.
    """
    chosen = chosen_for(backend)
    check_pair(fixed, moving)
    if start is not None:
        _check_start(start, fixed.shape)
    pair = np.ascontiguousarray(fixed, np.float32), np.ascontiguousarray(moving, np.float32)
    if chosen == "gpu":
        return np.asarray(_on_arrays(pair[0][None], pair[1][None], chosen)[0], np.float32)
    if chosen == "cpu":
        return cpu.solve(*pair, start=start)
    return reference.solve(*pair, start=start)


def tvl1_batch(fixed: _Pictures, moving: _Pictures, *, backend: Backend = "auto") -> _Pictures:
    """Dense motion of N pairs at once: [N, H, W] twice -> [N, 2, H, W] float32, each pair's as `tvl1` gives it.

    Both are numpy arrays, and so is the flow; or both are torch tensors, and the flow is one, on the GPU where the GPU computes
    (nothing is copied back), else on the device of `fixed`. Raises as `tvl1` does, and says as it does where the GPU failed.
    """
    chosen = chosen_for(backend)
    check_pair(fixed, moving, many=True)
    solve: Any = _on_tensors if is_tensor(fixed) else _on_arrays
    return cast(_Pictures, solve(fixed, moving, chosen))


def _on_arrays(fixed: npt.NDArray[Any], moving: npt.NDArray[Any], chosen: Chosen) -> F32:
    """Checked pictures [N, H, W] twice -> flows [N, 2, H, W]; on the CPU where the GPU fails, which is logged."""
    fixed, moving = np.ascontiguousarray(fixed, np.float32), np.ascontiguousarray(moving, np.float32)
    if chosen == "gpu":
        try:
            return gpu.solve_arrays(fixed, moving)
        except BackendError as error:
            chosen = _fall_back(error)
    if chosen == "cpu":
        return cpu.solve_batch(fixed, moving)
    return np.stack([reference.solve(*pair) for pair in zip(fixed, moving, strict=True)])


def _on_tensors(fixed: torch.Tensor, moving: torch.Tensor, chosen: Chosen) -> torch.Tensor:
    """`_on_arrays` for tensors; the flow stays on the GPU that computed it, else it goes to the device of `fixed`."""
    import torch

    if chosen == "gpu":
        try:
            where = fixed.device if fixed.is_cuda else device.current_device()
            return gpu.solve_batch(fixed.to(where, torch.float32), moving.to(where, torch.float32))
        except BackendError as error:
            chosen = _fall_back(error)
    with device.translated("Bringing pictures from the GPU or their flow back"):
        return torch.from_numpy(_on_arrays(fixed.detach().cpu().numpy(), moving.detach().cpu().numpy(), chosen)).to(
            fixed.device
        )


def _fall_back(error: BackendError) -> Chosen:
    _log.warning("%s; the CPU computes it instead", error)
    return "cpu" if cpu.refusal() is None else "reference"


def prepare(backend: Backend = "auto") -> Chosen:
    """Prepares what `tvl1` needs, so that its first call is as fast as the others; returns the backend that will compute.

    Compiles the machine code (some ten seconds, once for each version and machine) or loads it (half a second). Raises
    BackendError for a backend that cannot run.
    """
    chosen = chosen_for(backend)
    blank = np.zeros((128, 128) if chosen == "gpu" else (16, 16), np.uint8)  # a GPU has kernels and a graph for each size
    if chosen != "reference":
        tvl1(blank, blank, backend=chosen)
    return chosen


def chosen_for(backend: Backend) -> Chosen:
    """The backend that would compute. Raises BackendError for a backend that cannot run."""
    chosen = choose(backend, gpu.refusal())
    if backend == "auto" and chosen == "cpu" and _slow():
        return "reference"
    return chosen


@lru_cache(maxsize=1)
def _slow() -> bool:
    """Whether only the reference is left; says so once."""
    if (reason := cpu.refusal()) is None:
        return False
    warnings.warn(f"TV-L1 runs some 50 times slower than it could: {reason}", RuntimeWarning, stacklevel=2)
    return True


def _check_start(start: object, shape: tuple[int, ...]) -> None:
    wanted = (2, *shape)
    if not isinstance(start, np.ndarray) or start.shape != wanted or start.dtype != np.float32:
        is_ = f"{start.dtype} {start.shape}" if isinstance(start, np.ndarray) else type(start).__name__
        raise ArrayError(f"start must be a flow, float32 {wanted}; it is {is_}")
    if not np.isfinite(start).all():
        raise ArrayError("start holds values that are not finite; leave it out instead")
    longest = float(np.abs(start).max())
    if longest > LONGEST_START:
        raise ArrayError(f"start must be shorter than {LONGEST_START:g} px; its largest value is {longest:g}")
