"""The place of the GPU path of optical strain. This version carries no kernel; the front asks `refusal()` and says so."""

from __future__ import annotations

from engine.errors import BackendError
from engine.types import F32


def refusal() -> str | None:
    """Why strain cannot run on a GPU here, None when it can."""
    return "this version carries no GPU kernel for optical strain"


def magnitude(flow: F32) -> F32:
    """Same signature as the other backends; raises BackendError with the reason."""
    raise BackendError(f"strain of {flow.shape} cannot run on a GPU: {refusal()}")
