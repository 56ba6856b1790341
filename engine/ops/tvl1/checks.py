"""What a picture must be before flow is sought in it; the same for one pair, for many, for numpy arrays and torch tensors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from engine.errors import ArrayError

if TYPE_CHECKING:
    import torch

LONGEST_SIDE = 32_000
"""Pixels; OpenCV's sampling ends a little above."""
LONGEST_START = 1e6
"""Pixels; float32 holds no places much further off."""
GREY_SLACK = 0.5
"""How far, in grey levels, a float picture may leave 0..255 (interpolation overshoots by rounding)."""
ONE = "a numpy array [H, W]", "one grey picture [H, W]"
MANY = "a numpy array or torch tensor [N, H, W]", "grey pictures [N, H, W]"


def is_tensor(thing: object) -> TypeGuard[torch.Tensor]:
    """Whether it is a torch tensor; torch is not imported for the answer."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)  # not there yet while another thread imports torch
    return tensor is not None and isinstance(thing, tensor)


def check_pair(fixed: Any, moving: Any, *, many: bool = False, values: bool = True) -> None:
    """Raises ArrayError unless both are [H, W], or [N, H, W] with `many`, uint8 or float32 in 0..255, and of one shape.

    With `many` they may both be torch tensors; values are read where they lie, which waits for a GPU, unless not `values`.
    """
    _check("fixed", fixed, many, values)
    _check("moving", moving, many, values)
    if fixed.shape != moving.shape:
        shapes = f"fixed is {tuple(fixed.shape)} and moving is {tuple(moving.shape)}"
        raise ArrayError(f"both pictures must have one shape; {shapes}")
    if is_tensor(fixed) != is_tensor(moving):
        raise ArrayError("fixed and moving must both be numpy arrays or both torch tensors")


def _check(name: str, pictures: Any, many: bool, values: bool) -> None:
    container, content = MANY if many else ONE
    if not isinstance(pictures, np.ndarray) and not (many and is_tensor(pictures)):
        raise ArrayError(f"{name} must be {container}, not {type(pictures).__name__}")
    shape = tuple(pictures.shape)
    if len(shape) != 2 + many or 0 in shape:
        raise ArrayError(f"{name} must be {content} with at least one pixel; its shape is {shape}")
    if max(shape[-2:]) > LONGEST_SIDE:
        raise ArrayError(f"{name} may have sides up to {LONGEST_SIDE} px; its shape is {shape}")
    kind = str(pictures.dtype).removeprefix("torch.")
    if kind == "uint8":
        return
    if kind != "float32":
        raise ArrayError(f"{name} must be uint8, or float32 in 0..255; it is {kind}")
    if values:
        _check_values(name, pictures)


def _check_values(name: str, pictures: Any) -> None:
    low, high = _range(pictures)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ArrayError(f"{name} holds values that are not finite; repair or leave out such pictures")
    if low < -GREY_SLACK or high > 255 + GREY_SLACK:
        raise ArrayError(f"{name} must hold grey levels 0..255; its values run from {low:g} to {high:g}")
    if high <= 1 and high - low > 0.1 and bool((pictures != pictures.round()).any()):
        raise ArrayError(f"{name} must hold grey levels 0..255; its values run from {low:g} to {high:g}, so multiply it by 255")


def _range(pictures: Any) -> tuple[float, float]:
    """The least and the greatest value, not a number where one is none; one trip to a GPU's memory."""
    if isinstance(pictures, np.ndarray):
        return float(pictures.min()), float(pictures.max())
    import torch

    low, high = torch.stack(torch.aminmax(pictures)).tolist()
    return low, high
