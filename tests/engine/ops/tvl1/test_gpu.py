"""TV-L1's kernels against the readable path: on the GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from engine.errors import BackendError
from engine.ops import device
from engine.ops.tvl1 import gpu, reference
from engine.ops.tvl1 import method as steps
from engine.ops.tvl1.method import METHOD, Method
from engine.ops.tvl1.tiling import LARGEST, tile
from lab.flow_bench.cases import Case, cases

F32 = npt.NDArray[np.float32]

FULL = dataclasses.replace(METHOD, settled=0.0)
"""The kernels run every iteration; so does the reference that they are compared with."""
SHORT = dataclasses.replace(FULL, iterations=2)
BRIEF = dataclasses.replace(FULL, iterations=1, warps=1, levels=1, median=1)
ONE_LEVEL = 2e-4
"""Pixels, on white noise of one level, where no resampling spreads a rounding; measured 5.1e-5."""
FACES_MEAN = 1e-5
"""Pixels, on rendered faces of 128 x 128; measured 1.1e-6 on average, in the interpreter."""
FACES_MAX, FACES_MAX_GPU = 5e-3, 1.6e-2
"""Pixels, at the worst pixel; measured 6.4e-4 in the interpreter and 8.0e-3 on an H200 (kernels of 2026-11-21). A GPU's roots
are approximate and its products and sums fused, and at an edge of the flow two solutions may be about as good."""


def solved(fixed: F32, moving: F32, method: Method = FULL, largest: int = 1 << 16, side: int = 2) -> F32:
    """[N, H, W] twice -> [N, 2, H, W] by tiles of at most `largest` patches of side x side pixels."""
    torch = pytest.importorskip("torch")
    there = device.current_device()
    largest = min(largest, LARGEST) if there.type == "cuda" else largest
    levels = steps.sizes(*fixed.shape[1:], method)
    cuts = [tile(level, method, processors=1, largest=largest, sides=(side,)) for level in levels]
    batch = gpu.Batch(fixed.shape, method, there, cuts)
    return np.asarray(batch(torch.from_numpy(fixed).to(there), torch.from_numpy(moving).to(there)).cpu().numpy())


class _Wide:
    """numpy, except that float32 is float64."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, "float64" if name == "float32" else name)


def expected(fixed: F32, moving: F32, method: Method = FULL) -> npt.NDArray[np.float64]:
    """The reference's flows, computed in float64 throughout."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (reference, steps):
            patch.setattr(module, "np", _Wide())
        flows = [reference.solve(f, m, method) for f, m in zip(fixed.astype(float), moving.astype(float), strict=True)]
    assert flows[0].dtype == np.float64
    return np.stack(flows)


def noise(*shape: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


def case(number: int) -> Case:
    return next(c for n, c in enumerate(cases()) if n == number)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (15, 15), (13, 22)])
def test_white_noise_of_any_size(shape: tuple[int, int]) -> None:
    fixed, moving = noise(2, 2, *shape)
    np.testing.assert_allclose(solved(fixed, moving, SHORT), expected(fixed, moving, SHORT), atol=ONE_LEVEL)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("shape", "largest"), [((11, 18), 32), ((1, 90), 32), ((31, 9), 64)])
def test_tiles_give_what_one_piece_gives(shape: tuple[int, int], largest: int) -> None:
    method = dataclasses.replace(SHORT, levels=1)
    fixed, moving = noise(2, 1, *shape, seed=1)
    tiled = solved(fixed, moving, method, largest)
    np.testing.assert_allclose(tiled, solved(fixed, moving, method), atol=1e-6)
    np.testing.assert_allclose(tiled, expected(fixed, moving, method), atol=ONE_LEVEL)


@pytest.mark.usefixtures("kernels")
def test_a_face_through_the_whole_pyramid() -> None:
    face = case(167)
    fixed, moving = (picture[None, 76:108, 28:72].astype(np.float32) for picture in (face.fixed, face.moving))
    flow = solved(fixed, moving, SHORT)
    assert np.abs(flow).max() > 0.5
    apart = np.abs(flow - expected(fixed, moving, SHORT))
    assert apart.mean() < FACES_MEAN
    assert apart.max() < (FACES_MAX_GPU if device.current_device().type == "cuda" else FACES_MAX)


@pytest.mark.usefixtures("kernels")
def test_a_pair_is_the_same_alone_and_in_a_batch_of_any_length() -> None:
    import torch

    fixed, moving = (torch.from_numpy(p).to(device.current_device()) for p in noise(2, 3, 6, 9))
    together = gpu.solve_batch(fixed, moving, BRIEF)
    assert together.shape == (3, 2, 6, 9)
    for number in range(3):
        alone = gpu.solve_batch(fixed[number : number + 1], moving[number : number + 1], BRIEF)
        torch.testing.assert_close(alone[0], together[number], rtol=0, atol=0)


@pytest.mark.usefixtures("kernels")
def test_more_than_fits_at_once_is_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    fixed, moving = (torch.from_numpy(p).to(device.current_device()) for p in noise(2, 3, 6, 5))
    at_once = gpu.solve_batch(fixed, moving, BRIEF)
    monkeypatch.setattr(gpu, "MAX_PIXELS", 60)
    torch.testing.assert_close(gpu.solve_batch(fixed, moving, BRIEF), at_once, rtol=0, atol=0)


@pytest.mark.usefixtures("kernels")
def test_results_stay_when_the_buffers_are_used_again() -> None:
    first, second = noise(1, 8, 8), noise(1, 8, 8, seed=5)
    flow = gpu.solve_arrays(first, second, BRIEF)
    kept = flow.copy()
    gpu.solve_arrays(second, first, BRIEF)
    np.testing.assert_array_equal(flow, kept)


@pytest.mark.usefixtures("kernels")
def test_the_buffers_of_a_size_are_used_again_and_make_room_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    fixed, moving = noise(2, 1, 4, 4)
    flow, kept = gpu.solve_arrays(fixed, moving, BRIEF), gpu.Batch
    refusals = [torch.OutOfMemoryError("failed")]

    def short(*given: Any) -> gpu.Batch:
        if refusals:
            raise refusals.pop()
        return kept(*given)

    monkeypatch.setattr(gpu, "Batch", short)
    np.testing.assert_array_equal(gpu.solve_arrays(fixed, moving, BRIEF), flow)
    assert refusals and len(gpu.idle()) == 1, "nothing was made"
    gpu.solve_arrays(*noise(2, 1, 4, 6), BRIEF)
    assert not refusals and len(gpu.idle()) == 1


@pytest.mark.usefixtures("kernels")
def test_halves_of_a_batch_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    fixed, moving = (torch.from_numpy(p).to(device.current_device()) for p in noise(2, 3, 6, 5))
    whole = gpu.Batch((3, 6, 5), BRIEF, fixed.device)(fixed, moving)
    monkeypatch.setattr(gpu, "HALVED", 2)
    batch = gpu.Batch((3, 6, 5), BRIEF, fixed.device)
    torch.testing.assert_close(batch(fixed, moving), whole, rtol=0, atol=0)
    torch.testing.assert_close(batch.launch(fixed[:1], moving[:1]), whole[:1], rtol=0, atol=0)


@pytest.mark.usefixtures("kernels")
def test_constant_pictures_do_not_move() -> None:
    flow = solved(np.full((1, 33, 20), 7, np.float32), np.full((1, 33, 20), 240, np.float32), SHORT)
    np.testing.assert_allclose(flow, 0, atol=1e-5)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("change", [{"median": 1}, {"smoothing": 0.0}, {"warps": 1}, {"warps": 3}, {"levels": 1}])
def test_other_parameters_are_followed(change: dict[str, float]) -> None:
    method = dataclasses.replace(SHORT, **change)  # type: ignore[arg-type]
    fixed, moving = noise(2, 1, 12, 14, seed=2)
    np.testing.assert_allclose(solved(fixed, moving, method), expected(fixed, moving, method), atol=ONE_LEVEL)


@pytest.mark.usefixtures("kernels")
def test_a_median_that_no_kernel_has_is_refused() -> None:
    with pytest.raises(BackendError, match="3 x 3, not 5 x 5"):
        solved(noise(1, 8, 8), noise(1, 8, 8), dataclasses.replace(SHORT, median=5))


@pytest.mark.gpu
def test_against_the_reference_on_faces_of_every_kind() -> None:
    if (reason := gpu.refusal()) is not None:
        pytest.skip(reason)
    some = [c for n, c in enumerate(cases()) if n % 9 == 0]
    fixed, moving = (np.stack([getattr(c, which) for c in some]).astype(np.float32) for which in ("fixed", "moving"))
    apart = np.abs(gpu.solve_arrays(fixed, moving, FULL) - expected(fixed, moving))
    assert apart.mean() < FACES_MEAN
    assert apart.max() < FACES_MAX_GPU


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(64, 128, 128), (5, 97, 211), (2, 512, 512), (1, 1, 3000), (300, 31, 17)])
def test_big_and_odd_batches(shape: tuple[int, int, int]) -> None:
    if (reason := gpu.refusal()) is not None:
        pytest.skip(reason)
    fixed = noise(*shape)
    moving = np.clip(np.roll(fixed, 1, axis=2) + noise(*shape, seed=1) / 50, 0, 255)
    first = gpu.solve_arrays(fixed, moving)
    np.testing.assert_array_equal(gpu.solve_arrays(fixed, moving), first)
    np.testing.assert_allclose(first[:1], expected(fixed[:1], moving[:1]), atol=0.1)
