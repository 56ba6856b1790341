"""Many pairs in one call: the same answer as one by one, arrays and tensors, and who helps out where a GPU fails."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pytest

from engine.errors import ArrayError, BackendError
from engine.ops.tvl1 import cpu, gpu, reference, tvl1, tvl1_batch

U8 = npt.NDArray[np.uint8]


def batch(number: int = 3, height: int = 9, width: int = 14) -> tuple[U8, U8]:
    fixed, moving = np.random.default_rng(0).integers(0, 256, (2, number, height, width)).astype(np.uint8)
    return fixed, moving


def lost(*_: object) -> None:
    raise BackendError("TV-L1 of (3, 9, 14) failed on the GPU: it fell off the bus")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_each_pair_is_as_it_is_alone(backend: str) -> None:
    fixed, moving = batch()
    flow = tvl1_batch(fixed, moving, backend=backend)  # type: ignore[arg-type]
    assert flow.shape == (3, 2, 9, 14)
    assert flow.dtype == np.float32
    for number in range(3):
        np.testing.assert_array_equal(flow[number], tvl1(fixed[number], moving[number], backend=backend))  # type: ignore[arg-type]


@pytest.mark.usefixtures("kernels")
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    fixed, moving = batch(1)
    np.testing.assert_allclose(tvl1_batch(fixed, moving, backend="gpu"), tvl1_batch(fixed, moving, backend="cpu"), atol=5e-3)


@pytest.mark.usefixtures("kernels")
def test_one_pair_may_run_there_too() -> None:
    fixed, moving = batch(1, 4, 5)
    np.testing.assert_array_equal(tvl1(fixed[0], moving[0], backend="gpu"), tvl1_batch(fixed, moving, backend="gpu")[0])


@pytest.mark.usefixtures("kernels")
def test_tensors_give_tensors_on_the_device_that_computed() -> None:
    torch = pytest.importorskip("torch")
    fixed, moving = batch(1, 4, 5)
    flow = tvl1_batch(torch.from_numpy(fixed), torch.from_numpy(moving), backend="gpu")
    assert flow.is_cuda == torch.cuda.is_available()
    np.testing.assert_array_equal(flow.cpu().numpy(), tvl1_batch(fixed, moving, backend="gpu"))


def test_tensors_that_are_not_contiguous_on_the_cpu() -> None:
    torch = pytest.importorskip("torch")
    fixed, moving = batch()
    views = [torch.from_numpy(picture)[:, ::2, 1::3] for picture in (fixed, moving)]
    flow = tvl1_batch(*views, backend="cpu")
    np.testing.assert_array_equal(flow.numpy(), tvl1_batch(fixed[:, ::2, 1::3], moving[:, ::2, 1::3], backend="cpu"))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("tensors", [False, True])
def test_the_cpu_takes_over_and_says_so(
    tensors: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(gpu, "Batch", lost)
    fixed, moving = batch()
    given = (torch.from_numpy(fixed), torch.from_numpy(moving)) if tensors else (fixed, moving)
    with caplog.at_level(logging.WARNING, logger="engine"):
        flow = tvl1_batch(*given, backend="gpu")
    np.testing.assert_array_equal(np.asarray(flow), tvl1_batch(fixed, moving, backend="cpu"))
    assert "it fell off the bus; the CPU computes it instead" in caplog.text


@pytest.mark.usefixtures("kernels")
def test_where_memory_runs_out_the_flow_still_comes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    torch = pytest.importorskip("torch")

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(gpu, "Batch", full)
    fixed, moving = batch()
    with caplog.at_level(logging.WARNING, logger="engine"):
        np.testing.assert_array_equal(tvl1(fixed[0], moving[0], backend="gpu"), tvl1(fixed[0], moving[0], backend="cpu"))
    assert "needs more memory than the GPU has free; the CPU computes it instead" in caplog.text


def test_without_numba_the_reference_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "refusal", lambda: None)
    monkeypatch.setattr(gpu, "solve_arrays", lost)
    monkeypatch.setattr(cpu, "refusal", lambda: "numba cannot be used")
    fixed, moving = batch(1)
    wanted = reference.solve(fixed[0].astype(np.float32), moving[0].astype(np.float32))
    np.testing.assert_array_equal(tvl1_batch(fixed, moving, backend="gpu")[0], wanted)


@pytest.mark.parametrize(
    ("fixed", "moving", "says"),
    [
        (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8), r"\[N, H, W\].*\(8, 8\)"),
        (np.zeros((0, 8, 8), np.uint8), np.zeros((0, 8, 8), np.uint8), "at least one pixel"),
        (np.zeros((2, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8), r"\(2, 8, 8\).*\(3, 8, 8\)"),
        (np.zeros((2, 8, 8), np.uint8), np.full((2, 8, 8), np.nan, np.float32), "moving holds values that are not finite"),
        (np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), "float64"),
        ([[[0]]], np.zeros((1, 1, 1), np.uint8), "not list"),
    ],
)
def test_what_is_no_batch_is_refused(fixed: object, moving: object, says: str) -> None:
    with pytest.raises(ArrayError, match=says):
        tvl1_batch(fixed, moving)  # type: ignore[type-var]


def test_tensors_are_held_to_the_same() -> None:
    torch = pytest.importorskip("torch")
    good = torch.zeros((2, 8, 8))
    for bad, says in (
        (torch.full((2, 8, 8), float("nan")), "not finite"),
        (torch.full((2, 8, 8), 300.0), "from 300 to 300"),
        (torch.linspace(0, 1, 128).reshape(2, 8, 8), "multiply it by 255"),
        (torch.zeros((2, 8, 8), dtype=torch.float64), "float64"),
        (np.zeros((2, 8, 8), np.uint8), "both"),
    ):
        with pytest.raises(ArrayError, match=says):
            tvl1_batch(good, bad)
