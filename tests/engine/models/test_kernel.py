from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch
from torch.nn import functional

from engine.models.committee import Committee
from engine.models.kernel import KernelMachine, compared, gaussian
from engine.models.layers import standardized
from tests.engine.models.test_models import export


def maps(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 28, 28, generator=torch.Generator().manual_seed(seed))


def machine(centres: int = 5, rate: float = 0.004) -> KernelMachine:
    """As if fitted to `centres` maps of noise."""
    made, draw = KernelMachine(3, centres).eval(), torch.Generator().manual_seed(1)
    made.centres = compared(maps(centres, seed=9))
    made.weights, made.bias = torch.randn(centres, 3, generator=draw), torch.randn(3, generator=draw)
    made.rate = torch.tensor(rate)
    return made


def test_what_is_compared_is_the_mean_of_two_by_two_standardized_cells() -> None:
    found, cells = compared(maps(2)).reshape(2, 6, 14, 14), standardized(maps(2))
    for channel, row, column in ((0, 0, 0), (3, 5, 7), (5, 13, 13)):
        square = cells[1, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert float(found[1, channel, row, column]) == pytest.approx(float(square.mean()), abs=1e-6)


def test_the_kernel_is_the_gaussian_of_the_distance() -> None:
    left, right = torch.randn(4, 7), torch.randn(3, 7)
    expected = [[math.exp(-0.3 * sum(float(x - y) ** 2 for x, y in zip(a, b, strict=True))) for b in right] for a in left]
    assert np.allclose(gaussian(left, right, 0.3), expected, atol=1e-6)


def test_a_map_is_wholly_like_itself() -> None:
    """Rounding makes no distance negative, so nothing is more alike than the same."""
    rows = compared(maps(6)) * 100
    alike = gaussian(rows, rows, 1e-3)
    assert float(alike.max()) <= 1 and torch.allclose(alike.diagonal(), torch.ones(6), atol=1e-2)


def test_logits_are_the_sum_over_centres() -> None:
    fitted, given = machine(), maps(4)
    expected = []
    for row in compared(given):
        logits = fitted.bias.clone()
        for centre, weight in zip(fitted.centres, fitted.weights, strict=True):
            logits += torch.exp(-fitted.rate * (row - centre).square().sum()) * weight
        expected.append(logits)
    assert torch.allclose(fitted(given), torch.stack(expected), atol=2e-6)  # measured: 2e-7


def test_far_from_all_centres_the_bias_answers() -> None:
    fitted = machine(rate=1e3)
    assert torch.equal(fitted(maps(2)), fitted.bias.expand(2, 3))


def test_nothing_in_it_is_a_parameter() -> None:
    fitted = machine()
    assert not list(fitted.parameters())
    assert {name: tuple(value.shape) for name, value in fitted.state_dict().items()} == {
        "centres": (5, 1176),
        "weights": (5, 3),
        "bias": (3,),
        "rate": (),
    }


def test_another_side_has_centres_of_its_size() -> None:
    made = KernelMachine(4, 2, side=14)
    assert made(torch.rand(3, 3, 14, 14)).shape == (3, 4)


@pytest.mark.parametrize("beside_a_network", [False, True])
def test_onnx_runtime_answers_alike_for_any_batch(tmp_path: Path, beside_a_network: bool) -> None:
    network: torch.nn.Module = machine()
    if beside_a_network:
        linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 28 * 28, 3))
        network = Committee([linear], kernel=machine(), kernel_share=0.4).eval()
    export(network, maps(3), tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 4):
        with torch.inference_mode():
            expected = network(maps(count, seed=count)).numpy()
        (found,) = session.run(None, {"maps": maps(count, seed=count).numpy()})
        assert np.abs(found - expected).max() < 1e-6  # measured: 1e-7


def test_shifting_a_map_by_a_cell_changes_little_and_by_its_half_much() -> None:
    smooth = functional.interpolate(torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(3)), 28, mode="bicubic")
    near, far = (compared(smooth.roll(cells, 3)) for cells in (1, 14))
    here = compared(smooth)
    assert float((here - near).square().sum()) < 0.3 * float((here - far).square().sum())
