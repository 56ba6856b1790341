"""Many moments at once, against the steps that one moment takes on the CPU."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
import torch

from engine.errors import ArrayError, BackendError, ConfigError
from engine.geometry import INPUTS, keypoints, keypoints_to_map
from engine.ops import device
from engine.ops.strain import strain
from engine.ops.tvl1 import tvl1, tvl1_batch
from engine.recognition import flowmap_gpu
from engine.recognition.flowmap import network_input, whole_map
from engine.recognition.likeness import ALIKE, explained, like
from engine.recognition.residual import relief, take_out_head
from engine.recognition.tables import averaging
from lab.flow_bench.cases import Case, cases
from tests.pretended_gpu import Flows, pretend_gpu

F32 = npt.NDArray[np.float32]


def table(kind: str = "five-regions") -> flowmap_gpu.Tables:
    return flowmap_gpu.tables_on(kind, device.current_device())


def there(array: F32) -> torch.Tensor:
    """Where kernels run here."""
    return torch.from_numpy(array).to(device.current_device())


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


@pytest.mark.usefixtures("kernels")
def test_brightness_is_matched(pairs: list[Case]) -> None:
    before = np.stack([case.fixed for case in pairs]).astype(np.float32)
    after = before * np.float32(0.7) + 20
    after[1] = before[1] * 3 - 100
    found = flowmap_gpu.matched(*map(there, (before, after)), table()).cpu().numpy()
    np.testing.assert_allclose(found, np.stack([like(a, b) for a, b in zip(after, before, strict=True)]), atol=1e-3)


@pytest.mark.usefixtures("kernels")
def test_the_head_is_taken_out() -> None:
    """By its relief, among others; where no point lies inside, no head is seen to move."""
    flow, points = waves(3), meshes(3)
    points[2] += 500
    found = flowmap_gpu.take_out_head(there(flow), there(points), table()).cpu().numpy()
    wanted = np.stack([take_out_head(f, p) for f, p in zip(flow, points, strict=True)])
    assert np.abs(wanted - flow)[:2].mean() > 0.1
    np.testing.assert_allclose(found, wanted, atol=2e-4)  # measured 7e-6
    fields = flowmap_gpu.relief(there(points), table())
    depth = (fields[:, 1] / fields[:, 0].clamp_min(1e-12)).cpu().numpy()
    np.testing.assert_allclose(depth[:2], np.stack([relief(mesh) for mesh in points[:2]]), atol=3e-3)  # of 140; measured 5e-4


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kind", sorted(set(INPUTS) - {"whole-224"}))
def test_every_input_is_read_out_alike(kind: str) -> None:
    flow, points, grid = waves(2), meshes(2), table(kind)
    flow[1, 0] = 0.5  # no motion along x: nothing to scale
    channels = np.concatenate((flow, np.stack([strain(one, backend="cpu") for one in flow])[:, None]), 1)
    averaged = there(averaging(128) @ channels @ averaging(128).T)
    found = flowmap_gpu.read_out(kind, averaged, there(points), grid).cpu().numpy()
    assert found.shape == (2, *INPUTS[kind])
    at = [keypoints_to_map(keypoints(mesh)) for mesh in points]
    wanted = np.stack([network_input(kind, whole_map(f), p) for f, p in zip(flow, at, strict=True)])
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.usefixtures("kernels")
def test_flows_become_cells() -> None:
    flow = waves(1)
    found = flowmap_gpu.cells(there(flow), table()).cpu().numpy()
    channels = np.stack((*flow[0], strain(flow[0], backend="cpu")))
    np.testing.assert_allclose(found[0], averaging(128) @ channels @ averaging(128).T, atol=1e-5)


@pytest.mark.usefixtures("kernels")
def test_how_well_the_flow_explains_the_change(pairs: list[Case]) -> None:
    before, after = (np.stack([getattr(case, which) for case in pairs]).astype(np.float32) for which in ("fixed", "moving"))
    after[1, 60:] = 90.0
    flow = tvl1_batch(before, after, backend="cpu")
    flow[0, :, 30] += 300  # leads out of the picture
    after[2] = np.nan
    found = flowmap_gpu.explained(*map(there, (before, after, flow))).cpu().numpy()
    wanted = [explained(*one) for one in zip(before[:2], after[:2], flow[:2], strict=True)]
    np.testing.assert_allclose(found[:2], wanted, atol=1e-6)
    assert found[1] < ALIKE and np.isnan(found[2]), "no comparison with what is no number holds"


@pytest.mark.usefixtures("kernels")
def test_from_crops_to_inputs(pairs: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step by its kernel but TV-L1, which has tests of its own; not the number of moments that there are buffers for."""
    apart = 0.03  # a GPU's own TV-L1 is another than the CPU's
    if device.interpreted():
        apart = 1e-3
        monkeypatch.setattr(flowmap_gpu.gpu, "Batch", Flows)
    case, points = pairs[0], meshes(1)
    found = flowmap_gpu.network_inputs("five-regions", *(there(p[None]) for p in (case.fixed, case.moving)), points)
    model = case.fixed.astype(np.float32)
    after = like(case.moving.astype(np.float32), model)
    flow = tvl1(model, after, backend="cpu")
    own = take_out_head(flow, points[0])
    np.testing.assert_allclose(found.alike.cpu().numpy(), [explained(model, after, flow)], atol=apart)
    np.testing.assert_allclose(found.flow[0].cpu().numpy(), own, atol=apart)
    wanted = network_input("five-regions", whole_map(own), keypoints_to_map(keypoints(points[0])))
    assert np.abs(found.inputs[0].cpu().numpy() - wanted).mean() < apart / 3


@pytest.mark.gpu
def test_a_real_gpu_gives_what_the_cpu_does(pairs: list[Case]) -> None:
    """Batches of several sizes, twice each: recorded and replayed."""
    chosen = (pairs * 3)[:5]
    before, after = (np.stack([getattr(case, which) for case in chosen]) for which in ("fixed", "moving"))
    points = meshes(len(chosen))
    for number in (1, 5, 5, 3, 1):
        crops = torch.from_numpy(before[:number]), torch.from_numpy(after[:number])
        found = flowmap_gpu.network_inputs("five-regions", *crops, points[:number])
        for k, case in enumerate(chosen[:number]):
            model = case.fixed.astype(np.float32)
            moved = like(case.moving.astype(np.float32), model)
            flow = tvl1(model, moved, backend="cpu")
            own = take_out_head(flow, points[k])
            np.testing.assert_allclose(found.flow[k].cpu().numpy(), own, atol=0.03)
            assert float(found.alike[k]) == pytest.approx(explained(model, moved, flow), abs=0.01)
            wanted = network_input("five-regions", whole_map(own), keypoints_to_map(keypoints(points[k])))
            assert np.abs(found.inputs[k].cpu().numpy() - wanted).mean() < 0.01


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch)


@pytest.mark.usefixtures("pretended")
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
        flowmap_gpu.network_inputs("half", crops, crops, meshes(2))


def test_without_a_gpu_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flowmap_gpu.gpu, "refusal", lambda: "no CUDA GPU")
    crops = torch.zeros((1, 128, 128))
    with pytest.raises(BackendError, match="cannot run here: no CUDA GPU"):
        flowmap_gpu.network_inputs("whole", crops, crops, meshes(1))


@pytest.mark.usefixtures("pretended")
def test_arrays_go_to_the_gpu_and_come_back(pairs: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """In as many turns as they need, through buffers that have room for more, with the answers of a network."""
    monkeypatch.setattr(flowmap_gpu, "AT_ONCE", 4)
    five = (pairs * 2)[:5]
    before, after = (np.stack([getattr(case, which) for case in five]).astype(np.float32) for which in ("fixed", "moving"))
    points = meshes(5)
    found = flowmap_gpu.from_arrays("whole", before, after, points, lambda maps: maps.flatten(1)[:, :3])
    assert [part.shape for part in found] == [(5, 3, 28, 28), (5, 2, 128, 128), (5,), (5, 3)]
    for k in range(5):
        alone = flowmap_gpu.from_arrays("whole", *(part[k : k + 1] for part in (before, after, points)))
        for one, other in zip(found[:3], alone[:3], strict=True):
            assert isinstance(one, np.ndarray)
            np.testing.assert_array_equal(one[k], other[0])
        np.testing.assert_array_equal(found.probabilities[k], found.inputs[k].ravel()[:3])
    assert len(flowmap_gpu._idle) == 2


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
    def lost(*_: object) -> object:
        raise raised

    monkeypatch.setattr(Flows, "launch", lost)
    before, after = (np.stack([getattr(case, which) for case in pairs]).astype(np.float32) for which in ("fixed", "moving"))
    with pytest.raises(BackendError, match=f"^Preparing 3 maps {message}$"):
        flowmap_gpu.from_arrays("whole", before, after, meshes(3))
    assert not len(flowmap_gpu._idle), "buffers in an unknown state are not used again"


def test_the_way_on_the_device_needs_few_packages() -> None:
    """A machine with a GPU often has numpy and PyTorch, and little else."""
    code = """
import sys
for name in ("cv2", "pydantic", "numba", "onnx", "onnxruntime", "mediapipe", "platformdirs", "typer"):
    sys.modules[name] = None
import torch
from pathlib import Path
import engine.recognition.flowmap_gpu, engine.recognition.triton_kernels
from engine import runtime
from engine.runtime.torch_cuda import TorchCudaRunner
weights = Path(engine.__file__).parent / "weights" / "ahmsa-3db.onnx"
runner = TorchCudaRunner(weights, where=torch.device("cpu"))
print(tuple(runner.on_device(torch.rand(2, 3, 28, 28)).shape), runtime.load(weights).backend)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(2, 3) ")
