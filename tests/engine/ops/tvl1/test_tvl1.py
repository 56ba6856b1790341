"""TV-L1 flow: what the front promises, the fast path against the readable one, both against known motion."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ArrayError, BackendError
from engine.ops.backend import Backend
from engine.ops.tvl1 import cpu, gpu, reference, tvl1, tvl1_batch
from engine.ops.tvl1.method import METHOD, sizes
from lab.flow_bench.cases import Case, cases, endpoint_errors

U8 = npt.NDArray[np.uint8]
BACKENDS: tuple[Backend, ...] = ("reference", "cpu", "auto")

TWINS_MEAN, TWINS_MAX = 0.0002, 0.02
"""Pixels between the two CPU paths on rendered faces; over 35 of the benchmark's pairs at most 0.0000024 on average and 0.0024
at one pixel. (Where a warp is just about settled, one path may stop an iteration before the other.)"""
TWINS_ONE_LEVEL = 5e-4
"""Pixels, where there is one level and so no resampling; measured 5e-5 on white noise."""


def texture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """A picture with detail everywhere, grey levels 0..255."""
    rough = np.random.default_rng(seed).uniform(0, 255, (height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), 2)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.float32)


def shifted(dx: int, dy: int, side: int = 96) -> tuple[U8, U8]:
    """(fixed, moving): what lies at (x, y) in fixed lies at (x + dx, y + dy) in moving."""
    big = texture(side + 16, side + 16).astype(np.uint8)
    return big[8 : 8 + side, 8 : 8 + side], big[8 - dy : 8 - dy + side, 8 - dx : 8 - dx + side]


@pytest.fixture(scope="module")
def faces() -> list[Case]:
    """A few pairs of the published benchmark, over both photographs, all fields, amplitudes up to 6 px and all noises."""
    return [case for number, case in enumerate(cases()) if number % 23 == 0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (0, 1), (-2, 1), (3, -2)])
def test_u_goes_right_and_v_goes_down(backend: Backend, dx: int, dy: int) -> None:
    fixed, moving = shifted(dx, dy)
    flow = tvl1(fixed, moving, backend=backend)
    assert flow.shape == (2, 96, 96)
    assert flow.dtype == np.float32
    assert flow.flags.c_contiguous
    inside = flow[:, 12:-12, 12:-12]
    np.testing.assert_allclose(inside[0], dx, atol=0.1)
    np.testing.assert_allclose(inside[1], dy, atol=0.1)


def test_the_flow_carries_moving_onto_fixed(faces: list[Case]) -> None:
    for case in (c for c in faces if c.noise == 0):
        y, x = np.mgrid[:128, :128].astype(np.float32)
        u, v = tvl1(case.fixed, case.moving)
        brought = cv2.remap(case.moving, x + u, y + v, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        before = np.abs(case.moving.astype(float) - case.fixed).mean()
        assert np.abs(brought.astype(float) - case.fixed).mean() < 0.6 * before, (case.field, case.amplitude)


def test_twins_agree_on_faces(faces: list[Case]) -> None:
    for case in faces:
        apart = np.abs(tvl1(case.fixed, case.moving, backend="cpu") - tvl1(case.fixed, case.moving, backend="reference"))
        assert apart.mean() < TWINS_MEAN, (case.face, case.field, case.amplitude)
        assert apart.max() < TWINS_MAX, (case.face, case.field, case.amplitude)


@settings(max_examples=12, deadline=None)
@given(height=st.integers(1, 22), width=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_twins_agree_on_white_noise_of_any_size(height: int, width: int, seed: int) -> None:
    fixed, moving = np.random.default_rng(seed).uniform(0, 255, (2, height, width)).astype(np.float32)
    flow = tvl1(fixed, moving, backend="cpu")
    assert flow.shape == (2, height, width)
    np.testing.assert_allclose(flow, tvl1(fixed, moving, backend="reference"), atol=TWINS_ONE_LEVEL)


def test_the_divergence_is_the_negative_adjoint_of_the_gradient() -> None:
    rng = np.random.default_rng(3)
    flow = rng.normal(size=(2, 9, 11)).astype(np.float32)
    dual = rng.normal(size=(2, 2, 9, 11)).astype(np.float32)
    dual[:, 0, :, -1] = 0
    dual[:, 1, -1, :] = 0
    left = float((reference.gradient(flow) * dual).sum())
    right = -float((flow * reference.divergence(dual)).sum())
    assert left == pytest.approx(right, rel=1e-4)


def test_no_larger_error_than_opencv_by_default(faces: list[Case]) -> None:
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    default = [endpoint_errors(solver.calc(c.fixed, c.moving, None).transpose(2, 0, 1), c.truth) for c in faces]
    ours = [endpoint_errors(tvl1(c.fixed, c.moving), c.truth) for c in faces]
    for measure in ("mean", "moving", "p95"):
        theirs_mean, our_mean = (np.mean([getattr(e, measure) for e in errors]) for errors in (default, ours))
        assert our_mean <= theirs_mean, measure


@pytest.mark.parametrize("backend", BACKENDS)
def test_float_and_bytes_give_the_same(backend: Backend) -> None:
    fixed, moving = shifted(1, -1, 48)
    as_bytes = tvl1(fixed, moving, backend=backend)
    np.testing.assert_array_equal(tvl1(fixed.astype(np.float32), moving.astype(np.float32), backend=backend), as_bytes)
    np.testing.assert_array_equal(tvl1(fixed, moving.astype(np.float32), backend=backend), as_bytes)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_pictures_do_not_move(backend: Backend) -> None:
    picture = texture(40, 56).astype(np.uint8)
    np.testing.assert_allclose(tvl1(picture, picture, backend=backend), 0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (2, 2), (15, 15), (16, 16), (128, 17), (67, 45)])
def test_constant_pictures_of_any_size_do_not_move(backend: Backend, shape: tuple[int, int]) -> None:
    flow = tvl1(np.full(shape, 7, np.uint8), np.full(shape, 240, np.uint8), backend=backend)
    assert flow.shape == (2, *shape)
    np.testing.assert_allclose(flow, 0, atol=1e-5)  # measured 2.3e-6, from cubic weights that sum to almost 1


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 255))
def test_any_two_pictures_give_a_finite_flow_and_stay_as_they_were(height: int, width: int, seed: int, levels: int) -> None:
    pictures = np.random.default_rng(seed).integers(0, levels + 1, (2, height, width)).astype(np.float32)
    before = pictures.copy()
    assert np.isfinite(tvl1(pictures[0], pictures[1])).all()
    np.testing.assert_array_equal(pictures, before)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_swapping_the_axes_swaps_the_components(seed: int) -> None:
    fixed, moving = texture(32, 32, seed), texture(32, 32, seed + 1) * 0.1 + texture(32, 32, seed) * 0.9
    u, v = tvl1(fixed, moving)
    turned_u, turned_v = tvl1(fixed.T, moving.T)
    assert np.abs(turned_u - v.T).mean() < 2e-3  # measured 8e-5
    assert np.abs(turned_v - u.T).mean() < 2e-3


def test_arrays_that_are_not_contiguous_give_the_same() -> None:
    fixed, moving = shifted(1, 1, 64)
    for view in (np.s_[::2, ::2], np.s_[:, ::-1], np.s_[5:40, 3:50]):
        np.testing.assert_array_equal(tvl1(fixed[view], moving[view]), tvl1(fixed[view].copy(), moving[view].copy()))
    frozen = fixed.astype(np.float32)
    frozen.setflags(write=False)
    np.testing.assert_array_equal(tvl1(frozen, moving), tvl1(fixed, moving))


def test_calls_from_many_threads_at_once_do_not_touch_each_other() -> None:
    pairs = [shifted(dx, dy, side) for dx in (-2, 0, 1) for dy in (1, 3) for side in (33, 64, 128)] * 10
    alone = [tvl1(*pair) for pair in pairs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pair: tvl1(*pair), pairs))
    for flow, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(flow, expected)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_flow_that_is_near_saves_levels_and_costs_no_accuracy(backend: Backend, faces: list[Case]) -> None:
    warm, cold = [], []
    for case in faces[::2]:
        start = (0.7 * case.truth).astype(np.float32)
        start = np.where(np.abs(start - case.truth) < 1.5, start, case.truth).astype(np.float32)
        cold.append(endpoint_errors(tvl1(case.fixed, case.moving, backend=backend), case.truth).mean)
        warm.append(endpoint_errors(tvl1(case.fixed, case.moving, backend=backend, start=start), case.truth).mean)
    assert np.mean(warm) <= np.mean(cold)
    assert not np.array_equal(warm, cold)


def test_twins_agree_from_a_known_flow(faces: list[Case]) -> None:
    for case in faces[::3]:
        flows = [
            tvl1(case.fixed, case.moving, backend=backend, start=0.8 * case.truth)
            for backend in ("cpu", "reference")  # type: ignore[arg-type]
        ]
        assert np.abs(flows[0] - flows[1]).mean() < TWINS_MEAN


@pytest.mark.parametrize("far", [1e7, 1e19, 1e30, -1e30, 3e38])
def test_a_start_that_leads_nowhere_is_refused(far: float) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
    with pytest.raises(ArrayError, match="start must be shorter"):
        tvl1(picture, picture, backend="cpu", start=np.full((2, 40, 40), far, np.float32))


def test_it_runs_while_another_thread_imports_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))  # as it is there at first
    picture = np.zeros((16, 16), np.uint8)
    assert tvl1(picture, picture, backend="cpu").shape == (2, 16, 16)


def test_a_start_that_is_no_flow_is_refused() -> None:
    picture = np.zeros((8, 9), np.uint8)
    for bad, says in (
        (np.zeros((2, 8, 8), np.float32), r"\(2, 8, 9\)"),
        (np.zeros((2, 8, 9)), "float64"),
        (np.full((2, 8, 9), np.nan, np.float32), "not finite"),
        ("left", "str"),
    ):
        with pytest.raises(ArrayError, match=says):
            tvl1(picture, picture, start=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_what_leaves_the_picture_stays_finite(backend: Backend) -> None:
    fixed, moving = shifted(1, 0, 40)
    start = np.full((2, 40, 40), 300, np.float32)
    assert np.isfinite(tvl1(fixed, moving, backend=backend, start=start)).all()
    np.testing.assert_allclose(tvl1(fixed, moving, backend=backend, start=-start), -start, atol=1e-3)  # measured 6e-5


def scene(shape: tuple[int, int], kind: str, amplitude: float, noise: float) -> tuple[U8, U8, npt.NDArray[np.float32]]:
    """(fixed, moving, truth): texture of three scales and a bump (smooth) or a disc that slides (sharp), rendered four times as
    fine as it is seen."""
    rng, (height, width) = np.random.default_rng(1), shape
    fine = np.zeros((4 * height, 4 * width), np.float32)
    for pixels, weight in ((3, 1), (7, 2), (18, 4)):
        grains = rng.normal(0, 1, (height // pixels + 2, width // pixels + 2)).astype(np.float32)
        grain = cv2.resize(grains, fine.shape[::-1], interpolation=cv2.INTER_CUBIC)
        fine += weight * grain / grain.std()
    fine = np.clip(128 + 30 * fine / fine.std(), 0, 255)
    y, x = (np.mgrid[: 4 * height, : 4 * width].astype(np.float32) + 0.5) / 4 - 0.5
    away = np.hypot(x - width / 2, y - height / 2) / min(shape)
    form = np.exp(-((away / 0.2) ** 2) / 2) if kind == "smooth" else (away < 0.25).astype(np.float32)
    u, v = 0.8 * amplitude * form, -0.6 * amplitude * form
    moved = cv2.remap(fine, 4 * (x + u) + 1.5, 4 * (y + v) + 1.5, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)

    def seen(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.float32)

    fixed, moving = (np.clip(np.rint(seen(p) + rng.normal(0, noise, shape)), 0, 255).astype(np.uint8) for p in (moved, fine))
    return fixed, moving, np.stack([seen(u), seen(v)])


@pytest.mark.parametrize("noise", [0, 3])
@pytest.mark.parametrize("kind", ["smooth", "sharp"])
@pytest.mark.parametrize("shape", [(28, 28), (61, 47), (64, 81)])
def test_small_and_odd_sizes_are_found_as_well_as_by_opencv(shape: tuple[int, int], kind: str, noise: float) -> None:
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    default, ours = [], []
    for amplitude in (0.2, 1, 3):
        fixed, moving, truth = scene(shape, kind, amplitude, noise)
        default.append(endpoint_errors(solver.calc(fixed, moving, None).transpose(2, 0, 1), truth).mean)
        ours.append(endpoint_errors(tvl1(fixed, moving), truth).mean)
    assert np.mean(ours) <= np.mean(default)  # measured 0.51 to 0.93 of it


@pytest.mark.parametrize(
    ("kind", "noise", "limit"), [("smooth", 0, 0.05), ("sharp", 0, 0.06), ("smooth", 3, 0.12), ("sharp", 3, 0.14)]
)
@pytest.mark.parametrize("shape", [(129, 255), (512, 301)])
def test_large_pictures_are_found(shape: tuple[int, int], kind: str, noise: float, limit: float) -> None:
    for amplitude in (0.2, 2, 6):
        fixed, moving, truth = scene(shape, kind, amplitude, noise)
        assert endpoint_errors(tvl1(fixed, moving), truth).mean < limit, amplitude  # measured up to 0.026, 0.046, 0.084, 0.105


GOOD = np.zeros((8, 8), np.uint8)


def test_the_gpu_says_why_not() -> None:
    with pytest.raises(BackendError, match='"gpu" cannot run here: no '):
        tvl1(GOOD, GOOD, backend="gpu")


def test_an_unknown_backend() -> None:
    with pytest.raises(BackendError, match="'cuda' is none of them"):
        tvl1(GOOD, GOOD, backend="cuda")  # type: ignore[arg-type]


def test_levels_end_before_they_get_too_small() -> None:
    assert sizes(128, 128) == [(128, 128), (90, 90), (63, 63), (44, 44), (31, 31)]
    assert sizes(1, 200) == [(1, 200)]
    assert sizes(15, 15) == [(15, 15)]
    assert all(min(size) >= METHOD.smallest for size in sizes(40, 90)[1:])


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
