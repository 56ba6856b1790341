"""The device that networks are fitted on: which one, what it is called, and its random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.errors import BackendError, first_line

CPU = torch.device("cpu")


def choose_device(wanted: str) -> torch.device:
    """The device for cpu, cuda or auto: a GPU where PyTorch can use one. Raises BackendError for cuda where it cannot."""
    if wanted == "cpu":
        return CPU
    refusal = _refusal()
    if refusal is None:
        return torch.device("cuda", torch.cuda.current_device())
    if wanted == "cuda":
        raise BackendError(f"no GPU can be used: {refusal}; --device cpu works on every machine")
    return CPU


def _refusal() -> str | None:
    """Why PyTorch cannot use an NVIDIA GPU here, or None where it can."""
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA"
    if not torch.cuda.is_available():
        return "PyTorch sees no NVIDIA GPU"
    try:
        torch.ones(1, device="cuda").add_(1).item()
    except RuntimeError as cause:
        return first_line(cause)
    return None


def device_name(device: torch.device) -> str:
    """The name of a GPU's model, else the kind of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def short_of_memory(error: RuntimeError) -> bool:
    """Whether the device had too little memory: of CUDA and its libraries, which take some beside PyTorch's allocator (for a
    graph, a plan, a workspace), the message alone says so."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in ("out of memory", "ALLOC_FAILED"))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """PyTorch's default random numbers, of the CPU and of the device, begin at seed inside, and are as before afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def short_products(device: torch.device) -> Iterator[None]:
    """On a GPU matrix products and convolutions take float32 factors shortened to TF32 (10 bits) inside, and cuDNN chooses the
    fastest convolution by trying."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
