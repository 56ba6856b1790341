"""The place of the GPU path of TV-L1. This version carries no kernel; the front asks `refusal()` and says so."""

from __future__ import annotations

from engine.errors import BackendError
from engine.types import F32


def refusal() -> str | None:
    """Why TV-L1 cannot run on a GPU here, None when it can."""
    return "this version carries no GPU kernel for TV-L1"


def solve(fixed: F32, moving: F32) -> F32:
    """Same signature as the other backends; raises BackendError with the reason."""
    raise BackendError(f"TV-L1 of {fixed.shape} cannot run on a GPU: {refusal()}")
