"""The strain kernel against the formula: on the GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pytest

from engine.errors import ArrayError, BackendError
from engine.ops import device
from engine.ops.strain import cpu, gpu, reference, strain

TWINS = 1e-6
"""For flows of 1 px; measured 2.4e-7."""


def flows(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (2, 2), (3, 17), (31, 33)])
def test_the_same_as_the_formula(shape: tuple[int, int]) -> None:
    flow = flows(2, *shape)
    found = strain(flow, backend="gpu")
    assert found.shape == shape
    np.testing.assert_allclose(found, reference.magnitude(flow), atol=TWINS)


@pytest.mark.usefixtures("kernels")
def test_many_flows_in_one_launch_and_arrays_that_are_not_contiguous() -> None:
    torch = pytest.importorskip("torch")
    several = flows(3, 2, 20, 44)
    there = torch.from_numpy(several).to(device.current_device())
    for view in (there, there[:, :, ::2, 1::3], there.transpose(2, 3), there.flip(1)):
        found = gpu.magnitude_batch(view).cpu().numpy()
        wanted = np.stack([cpu.magnitude(np.ascontiguousarray(flow)) for flow in view.cpu().numpy()])
        np.testing.assert_allclose(found, wanted, atol=TWINS)


@pytest.mark.usefixtures("kernels")
def test_a_constant_flow_has_none() -> None:
    np.testing.assert_array_equal(strain(np.full((2, 9, 9), 3.5, np.float32), backend="gpu"), 0)


@pytest.mark.usefixtures("kernels")
def test_the_front_refuses_what_is_not_finite() -> None:
    with pytest.raises(ArrayError, match="finite"):
        strain(np.full((2, 4, 4), np.nan, np.float32), backend="gpu")


@pytest.mark.usefixtures("kernels")
def test_the_cpu_takes_over_and_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def lost(flow: object) -> None:
        raise BackendError("Strain of (1, 2, 8, 8) failed on the GPU: it fell off the bus")

    monkeypatch.setattr(gpu, "magnitude_batch", lost)
    flow = flows(2, 8, 8)
    with caplog.at_level(logging.WARNING, logger="engine"):
        np.testing.assert_array_equal(strain(flow, backend="gpu"), cpu.magnitude(flow))
    assert "it fell off the bus; the CPU computes it instead" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(64, 2, 128, 128), (1, 2, 4000, 3001), (70_000, 2, 3, 2)])
def test_big_batches(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    if (reason := gpu.refusal()) is not None:
        pytest.skip(reason)
    flow = flows(*shape)
    found = gpu.magnitude_batch(torch.from_numpy(flow).cuda()).cpu().numpy()
    np.testing.assert_allclose(found[:64], np.stack([cpu.magnitude(f) for f in flow[:64]]), atol=TWINS)
