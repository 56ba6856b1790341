"""Many moments at once, against the steps that one moment takes on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from engine.errors import ArrayError, BackendError, ConfigError
from engine.geometry import INPUTS, input_grid, keypoints, keypoints_to_map
from engine.ops.tvl1 import tvl1, tvl1_batch
from engine.recognition import flowmap_gpu
from engine.recognition.flowmap import network_input, whole_map
from engine.recognition.likeness import ALIKE, explained, like
from engine.recognition.residual import relief, take_out_head
from lab.flow_bench.cases import Case, cases

F32 = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def pairs() -> list[Case]:
    return [case for number, case in enumerate(cases()) if number in (30, 110, 200)]


def meshes(number: int) -> F32:
    """Points spread over the crop as a mesh's are, a few outside of it; depth like that of a face."""
    rng = np.random.default_rng(4)
    points = rng.normal(64, 30, (number, 478, 3)).astype(np.float32)
    points[..., 2] = ((points[..., 0] - 64) ** 2 + (points[..., 1] - 64) ** 2) / 100
    return points


def waves(number: int, seed: int = 0) -> F32:
    """Smooth flows [N, 2, 128, 128] with a motion of the whole head in them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128] / 128
    parts = [[np.sin(a * x + b * y) + c * (x - 0.5) + d for a, b, c, d in rng.uniform(-3, 3, (2, 4))] for _ in range(number)]
    return np.asarray(parts, np.float32)


def test_brightness_is_matched(pairs: list[Case]) -> None:
    before = np.stack([case.fixed for case in pairs]).astype(np.float32)
    after = before * np.float32(0.7) + 20
    found = flowmap_gpu.like(torch.from_numpy(after), torch.from_numpy(before)).numpy()
    np.testing.assert_allclose(found, np.stack([like(a, b) for a, b in zip(after, before, strict=True)]), atol=2e-3)


def test_the_relief() -> None:
    points = meshes(2)
    wanted = np.stack([relief(mesh) for mesh in points])
    np.testing.assert_allclose(
        flowmap_gpu.relief(torch.from_numpy(points)).numpy(), wanted, atol=1e-3
    )  # of 140 px; measured 4.6e-5


def test_the_head_is_taken_out() -> None:
    flow, points = waves(3), meshes(3)
    found = flowmap_gpu.take_out_head(torch.from_numpy(flow), torch.from_numpy(points)).numpy()
    wanted = np.stack([take_out_head(f, p) for f, p in zip(flow, points, strict=True)])
    assert np.abs(wanted - flow).mean() > 0.1
    np.testing.assert_allclose(found, wanted, atol=2e-4)  # measured 7e-6


def test_where_no_point_lies_inside_the_head_stays() -> None:
    flow, points = waves(1), meshes(1) + 500
    found = flowmap_gpu.take_out_head(torch.from_numpy(flow), torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(found[0], take_out_head(flow[0], points[0]), atol=1e-4)


@pytest.mark.parametrize("kernel", [False, True])
def test_whole_maps(kernel: bool, request: pytest.FixtureRequest) -> None:
    if kernel:
        request.getfixturevalue("kernels")
    flow = waves(2)
    flow[1, 0] = 0.5
    found = flowmap_gpu.whole_maps(torch.from_numpy(flow)).numpy()
    np.testing.assert_allclose(found, np.stack([whole_map(f) for f in flow]), atol=1e-5)


@pytest.mark.parametrize("kind", INPUTS)
def test_every_input_is_read_out_alike(kind: str) -> None:
    maps = np.stack([whole_map(flow) for flow in waves(2)])
    points = np.stack([keypoints_to_map(keypoints(mesh)) for mesh in meshes(2)])
    grid = torch.from_numpy(input_grid(kind, points))
    found = flowmap_gpu.sample(torch.from_numpy(maps), grid).numpy()
    assert found.shape == (2, *INPUTS[kind])
    wanted = np.stack([network_input(kind, m, p) for m, p in zip(maps, points, strict=True)])
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_from_crops_to_inputs(pairs: list[Case]) -> None:
    before, after = (np.stack([getattr(case, which) for case in pairs]) for which in ("fixed", "moving"))
    points = meshes(len(pairs))
    given, flow, alike = flowmap_gpu.network_inputs(
        "five-regions", torch.from_numpy(before), torch.from_numpy(after), points, backend="cpu"
    )
    assert (alike.numpy() > ALIKE).all()
    for k, case in enumerate(pairs):
        model = case.fixed.astype(np.float32)
        wanted = take_out_head(tvl1(model, like(case.moving.astype(np.float32), model), backend="cpu"), points[k])
        np.testing.assert_allclose(flow[k].numpy(), wanted, atol=0.03)
        assert (
            np.abs(
                given[k].numpy() - network_input("five-regions", whole_map(wanted), keypoints_to_map(keypoints(points[k])))
            ).mean()
            < 0.01
        )


@pytest.mark.parametrize("hidden", [False, True])
def test_how_well_the_flow_explains_the_change(pairs: list[Case], hidden: bool) -> None:
    before, after = (np.stack([getattr(case, which) for case in pairs]).astype(np.float32) for which in ("fixed", "moving"))
    if hidden:
        after[1, 60:] = 90.0
        after[2, :60] = np.random.default_rng(1).uniform(0, 255, (60, 128))
    flow = tvl1_batch(before, after, backend="cpu")
    found = flowmap_gpu.explained(*map(torch.from_numpy, (before, after, flow))).numpy()
    wanted = [explained(*one) for one in zip(before, after, flow, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-4)  # measured under 2e-7
    assert (np.array(wanted) > ALIKE).tolist() == [True, not hidden, not hidden]


def test_what_does_not_fit_is_refused() -> None:
    crops = torch.zeros((2, 128, 128))
    with pytest.raises(ArrayError, match="mesh of 478"):
        flowmap_gpu.network_inputs("whole", crops, crops, meshes(3))
    with pytest.raises(ArrayError, match="mesh of 478"):
        flowmap_gpu.network_inputs("whole", crops, crops, np.full((2, 478, 3), np.nan, np.float32))
    with pytest.raises(ArrayError, match=r"\[N, 128, 128\]"):
        flowmap_gpu.network_inputs("whole", torch.zeros((2, 64, 64)), torch.zeros((2, 64, 64)), meshes(2))
    with pytest.raises(ArrayError, match="not finite"):
        flowmap_gpu.network_inputs("whole", crops, torch.full_like(crops, torch.nan), meshes(2))
    with pytest.raises(ArrayError, match="one shape"):
        flowmap_gpu.network_inputs("whole", crops, torch.zeros((3, 128, 128)), meshes(2))
    with pytest.raises(ArrayError, match="at least one pixel"):
        flowmap_gpu.network_inputs("whole", crops[:0], crops[:0], meshes(0))
    with pytest.raises(ConfigError, match="no network input"):
        flowmap_gpu.network_inputs("half", crops, crops, meshes(2), backend="cpu")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is this CPU: its arrays lie here, its flow is the CPU's."""

    def solve(fixed: Any, moving: Any) -> Any:
        return torch.from_numpy(tvl1_batch(fixed.numpy(), moving.numpy(), backend="cpu"))

    monkeypatch.setattr(flowmap_gpu.gpu, "refusal", lambda: None)
    monkeypatch.setattr(flowmap_gpu.gpu, "solve_batch", solve)
    monkeypatch.setattr(flowmap_gpu.device, "current_device", lambda: torch.device("cpu"))


@pytest.mark.usefixtures("pretended")
def test_arrays_go_to_the_gpu_and_come_back(pairs: list[Case]) -> None:
    before, after = (np.stack([getattr(case, which) for case in pairs]).astype(np.float32) for which in ("fixed", "moving"))
    points = meshes(len(pairs))
    found = flowmap_gpu.from_arrays("whole", before, after, points)
    wanted = flowmap_gpu.network_inputs("whole", torch.from_numpy(before), torch.from_numpy(after), points, backend="cpu")
    for one, other in zip(found, wanted, strict=True):
        assert isinstance(one, np.ndarray)
        np.testing.assert_allclose(one, other.numpy(), atol=1e-6)


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (torch.OutOfMemoryError("17 GiB"), "needs more memory than the GPU has free"),
        (
            RuntimeError("CUDA error: unspecified launch failure\nmore"),
            "failed on the GPU: CUDA error: unspecified launch failure",
        ),
    ],
)
def test_a_gpu_that_fails_is_reported_in_a_sentence(
    pairs: list[Case], raised: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(flow: object) -> object:
        raise raised

    monkeypatch.setattr(flowmap_gpu, "whole_maps", lost)
    before, after = (np.stack([getattr(case, which) for case in pairs]).astype(np.float32) for which in ("fixed", "moving"))
    with pytest.raises(BackendError, match=f"^Preparing 3 maps {message}$"):
        flowmap_gpu.from_arrays("whole", before, after, meshes(3))
