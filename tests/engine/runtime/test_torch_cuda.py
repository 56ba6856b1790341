"""The runner on this CPU in place of a GPU, its graphs recorded and replayed by a stand-in for CUDA's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import runtime
from engine.errors import BackendError, WeightsError
from engine.runtime import gpu, torch_cuda
from engine.runtime.gpu import Gpu
from engine.runtime.ort import OrtRunner
from engine.runtime.torch_cuda import MAX_BATCH, TorchCudaRunner
from engine.types import F32
from engine.weights import default_weights
from tests.pretended_gpu import Cuda, pretend_graphs

CPU = torch.device("cpu")
MAPS = np.random.default_rng(0).random((MAX_BATCH + 3, 3, 28, 28), np.float32)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return pretend_graphs(monkeypatch)


@pytest.fixture(scope="module")
def wanted() -> F32:
    return OrtRunner(default_weights())(MAPS)


def after(refused: int) -> Callable[..., str]:
    """A parity test that refuses the first so many forms."""
    answers = iter(["it differs"] * refused)
    return lambda *_: next(answers, "")


def test_batches_of_every_size_are_answered_as_onnx_runtime_does(cuda: Cuda, wanted: F32) -> None:
    """Recorded once for each size, replayed for others: what lies in the buffers from before does not matter."""
    runner = TorchCudaRunner(default_weights(), where=CPU)
    assert (runner.backend, runner.device) == ("torch-cuda", "CPU, PyTorch, float32 side by side")
    assert runner.notes == [] and runner.classes == ("negative", "positive", "surprise") and runner.input_shape == (3, 28, 28)
    recorded = cuda.calls.count("recorded")
    for first, count in ((0, 3), (40, 4), (7, 1), (20, 3), (0, 0)):
        answers = runner(MAPS[first : first + count])
        np.testing.assert_allclose(answers, wanted[first : first + count], atol=1e-5)
    assert cuda.calls.count("recorded") == recorded + 1, "of 4 maps; of 8 and of 1 are there since the parity test"
    kept = runner(MAPS[:2])
    before = kept.copy()
    runner(MAPS[2:4])
    np.testing.assert_array_equal(kept, before)


@pytest.mark.parametrize(("unlike", "form", "apart"), [(1, "float16", 2e-3), (2, "float32", 1e-5)])
def test_a_form_that_answers_otherwise_is_left_for_the_next(
    unlike: int, form: str, apart: float, wanted: F32, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More maps than fit are taken in turns in each form."""
    monkeypatch.setattr(torch_cuda, "difference", after(unlike))
    runner = TorchCudaRunner(default_weights(), where=CPU)
    assert runner.form == form
    assert runner.notes == [f"{name} is not used: it differs" for name in list(torch_cuda.FORMS)[:unlike]]
    np.testing.assert_allclose(runner(MAPS), wanted, atol=apart)


def test_maps_on_the_device_are_answered_there(wanted: F32) -> None:
    runner = TorchCudaRunner(default_weights(), where=CPU)
    answers = runner.on_device(torch.from_numpy(MAPS[:5]))
    assert isinstance(answers, torch.Tensor)
    np.testing.assert_allclose(answers.numpy(), wanted[:5], atol=2e-3)


def test_a_network_that_no_precision_suits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_cuda, "difference", after(3))
    with pytest.raises(BackendError, match=r"PyTorch cannot run .*ahmsa-3db\.onnx on the GPU: it differs"):
        TorchCudaRunner(default_weights(), where=CPU)


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(WeightsError, match=r"text\.onnx"):
        TorchCudaRunner(tmp_path / "text.onnx", where=CPU)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which PyTorch's GPU, that is this CPU, is the first that opens."""
    for name in ("tensorrt", "tensorrt-rtx", "cuda"):
        monkeypatch.setitem(runtime.DEVICE, name, lambda: "not here")
    monkeypatch.setitem(runtime.DEVICE, "torch-cuda", lambda: None)
    monkeypatch.setattr(torch_cuda, "_current", lambda: CPU)


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("raised", [torch.OutOfMemoryError("2 GiB"), RuntimeError("CUDA error: device lost")])
def test_a_gpu_that_is_lost_is_left_for_onnx_runtime(
    raised: Exception, wanted: F32, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runner = runtime.load(default_weights())
    assert runner.backend == "torch-cuda" and runner.on_device is not None
    assert runner.refusals == dict.fromkeys(("tensorrt", "tensorrt-rtx", "cuda"), "not here")

    def lost(*_: Any) -> Any:
        raise raised

    monkeypatch.setattr(torch_cuda.Buffered, "__call__", lost)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(runner(MAPS[:2]), wanted[:2], atol=1e-6)
    assert runner.backend == "ort" and runner.on_device is None
    assert "answers to 2 maps" in runner.refusals["torch-cuda"] and "ort on CPU" in caplog.text


def test_why_it_cannot_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Gpu:
        raise BackendError("no NVIDIA driver (libcuda.so.1 is not found)")

    monkeypatch.setattr(gpu, "find", none)
    assert torch_cuda.refusal() == "no NVIDIA driver (libcuda.so.1 is not found)"
    monkeypatch.setattr(gpu, "find", lambda: Gpu("NVIDIA Test", (9, 0)))
    built = torch.version.cuda is not None
    assert (torch_cuda.refusal() is None) is built
    if not built:
        assert torch_cuda.refusal() == "this torch is built for the CPU; install one built for CUDA"
        with pytest.raises(BackendError, match=r"sees no CUDA GPU$"):
            TorchCudaRunner(default_weights())
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    assert torch_cuda.refusal() == "torch not installed; install apexstream[gpu]"


@pytest.mark.gpu
def test_a_real_gpu_answers_as_onnx_runtime_does(wanted: F32) -> None:
    runner = TorchCudaRunner(default_weights())
    for count in (1, 3, 64, len(MAPS), 3):
        np.testing.assert_allclose(runner(MAPS[:count]), wanted[:count], atol=2e-3)
    there = torch.from_numpy(MAPS[:5]).cuda()
    np.testing.assert_allclose(runner.on_device(there).cpu().numpy(), wanted[:5], atol=2e-3)
