from __future__ import annotations

import pytest
import torch

from engine.errors import BackendError
from training.device import CPU, choose_device, device_name, seeded, short_of_memory, short_products


def test_a_cpu_needs_no_gpu_and_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.device._refusal", lambda: "it is on fire")
    assert choose_device("cpu") == choose_device("auto") == CPU and device_name(CPU) == "cpu"
    with pytest.raises(BackendError, match="no GPU can be used: it is on fire; --device cpu works on every machine"):
        choose_device("cuda")
    monkeypatch.setattr("training.device._refusal", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert choose_device("cuda") == choose_device("auto") == torch.device("cuda", 1)
    assert choose_device("cpu") == CPU


def test_why_a_gpu_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*shape: int, device: str) -> torch.Tensor:
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(BackendError, match="this PyTorch is built without CUDA"):
        choose_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="PyTorch sees no NVIDIA GPU"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", broken)
    with pytest.raises(BackendError, match="no kernel image is available; --device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("Tried to allocate 17 GiB"), True),
        (RuntimeError("CUDA error: out of memory\nCompile with ..."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_what_a_device_says_that_is_short_of_memory(error: RuntimeError, short: bool) -> None:
    assert short_of_memory(error) is short


def test_random_numbers_begin_at_the_seed_and_are_as_before_afterwards() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with seeded(7, CPU):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(7, CPU):
        assert torch.equal(torch.rand(2), inside)


@pytest.mark.parametrize("device", [CPU, torch.device("cuda", 0)])
def test_products_are_short_on_a_gpu_alone(device: torch.device) -> None:
    before = torch.get_float32_matmul_precision()
    with short_products(device):
        assert torch.get_float32_matmul_precision() == (before if device == CPU else "high")
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.gpu
def test_a_gpu_is_found_and_named() -> None:
    found = choose_device("cuda")
    assert found.type == "cuda" and device_name(found) == torch.cuda.get_device_name(0)
