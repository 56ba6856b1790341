"""The GPU that the operators' Triton kernels run on: whether there is one, and what its failures mean.

Nothing here imports torch or triton before an NVIDIA driver was found: a machine without one never pays for them.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from engine.errors import BackendError, first_line

if TYPE_CHECKING:
    import torch

OLDEST = (8, 0)
"""Compute capability from which Triton supports GPUs."""


def interpreted() -> bool:
    """Whether Triton is set to interpret its kernels on the CPU, which shows their numbers and is slow."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def refusal() -> str | None:
    """Why Triton kernels cannot run here, in one sentence; None where they can."""
    return _refusal(interpreted())


@lru_cache(maxsize=2)
def _refusal(on_cpu: bool) -> str | None:
    if not on_cpu and not _driver():
        return "no CUDA GPU: this machine has no NVIDIA driver"
    for name in ("torch", "triton"):
        if find_spec(name) is None:
            return f"{name} is not installed; pip install 'apexstream[gpu]'"
    return None if on_cpu else _cuda()


def _driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _cuda() -> str | None:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: one of its libraries is missing or damaged
        return f"torch cannot be loaded ({first_line(error)}); reinstall it"

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA GPU"
    if torch.cuda.get_device_capability() < OLDEST:
        return f"{torch.cuda.get_device_name()} is older than compute capability {OLDEST[0]}.{OLDEST[1]}, which Triton needs"
    return None


def current_device() -> torch.device:
    """Where the kernels' arrays live: the current GPU, or the CPU where kernels are interpreted."""
    import torch

    return torch.device("cpu") if interpreted() else torch.device("cuda", torch.cuda.current_device())


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns what torch and triton raise for a GPU that fails into BackendError, one sentence beginning with `what`."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BackendError(f"{what} needs more memory than the GPU has free") from error
    except _failures() as error:
        raise BackendError(f"{what} failed on the GPU: {first_line(error).rstrip('.')}") from error


def _failures() -> tuple[type[Exception], ...]:
    """What torch raises for a device, and triton once it is loaded."""
    kinds: list[type[Exception]] = [RuntimeError, OSError, ImportError]  # the last: its launcher cannot be loaded
    for module, name in (("triton.errors", "TritonError"), ("subprocess", "SubprocessError")):  # nor compiled
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return tuple(kinds)


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Within this, kernels start on the device that holds the tensor."""
    import torch

    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
