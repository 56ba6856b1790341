"""The machine code, part by part, against the reference's parts."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from engine.kernels.machine import FAST, part
from engine.ops.tvl1 import compiled, reference
from engine.ops.tvl1.method import gaussian

F32 = npt.NDArray[np.float32]
SHAPES = [(1, 1), (1, 9), (9, 1), (2, 3), (5, 7), (31, 64), (64, 128), (50, 77)]


def texture(height: int, width: int) -> F32:
    rough = np.random.default_rng(0).uniform(0, 255, (height, width)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(rough, (0, 0), 1), np.float32)


def planes(flow: F32) -> F32:
    _, height, width = flow.shape
    cells = np.zeros((10, (height + 1) * (width + 1)), np.float32)
    compiled.take(cells, flow)
    return cells


def seen(cells: F32, plane: int, shape: tuple[int, int]) -> F32:
    height, width = shape
    return cells[plane, : height * (width + 1)].reshape(height, width + 1)[:, :width]


@pytest.mark.parametrize("shape", SHAPES)
def test_twins_share_their_parts(shape: tuple[int, int]) -> None:
    picture = texture(*shape)
    for height, width in [shape, (23, 17), (2 * shape[0], 3 * shape[1])]:
        resized = compiled.resized(picture[None], height, width)[0]
        np.testing.assert_allclose(resized, reference.resize(picture, (height, width)), atol=1e-3)  # measured 3e-4
    for sigma in (0.0, 0.5, 0.8):
        blurred = compiled.blur(picture[None], gaussian(sigma))[0]
        np.testing.assert_allclose(blurred, reference.smooth(picture, sigma), atol=5e-4)  # measured 5e-5
    np.testing.assert_allclose(compiled.slopes(picture), reference.derivatives(picture), atol=5e-4)  # measured 2e-5
    flow = np.stack([picture, -picture])
    expected = [reference.median(part, 3) for part in flow]
    np.testing.assert_array_equal(compiled.median(planes(flow), *shape), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach", [0.3, 5])
def test_twins_expand_alike_inside_and_outside(shape: tuple[int, int], reach: float) -> None:
    fixed, moving = texture(*shape), texture(shape[0], shape[1] + 1)[:, 1:].copy()
    flow = np.random.default_rng(1).normal(0, reach, (2, *shape)).astype(np.float32)
    cells = planes(flow)
    compiled.expand(fixed, compiled.slopes(fixed), compiled.interleaved(moving), cells)
    warped, slope = reference.expand(fixed, moving, flow)
    inside = (slope != 0).any(0)
    constant = warped - fixed - (slope * flow).sum(0)
    for plane, expected in ((compiled.ACROSS, slope[0]), (compiled.DOWN, slope[1])):
        np.testing.assert_allclose(seen(cells, plane, shape), expected, atol=2e-3)
    np.testing.assert_allclose(seen(cells, compiled.CONSTANT, shape)[inside], constant[inside], atol=2e-2)


def test_one_signature_only_so_that_nothing_is_compiled_later() -> None:
    solver = compiled.solver()
    with pytest.raises(TypeError):
        solver(np.zeros((2, 4, 4)), *[None] * 10)
    assert len(solver.signatures) == 1
    assert not solver._can_compile


def test_the_loops_are_simd() -> None:
    """LLVM writes packed square roots and packed multiplications for the iterations."""

    @part(FAST)
    def run(cells):  # type: ignore[no-untyped-def]
        return compiled.iterate(cells, np.uintp(8), np.uintp(9), np.float32(0.1), np.float32(0.2), np.float32(0.3))

    run(np.zeros((10, 81), np.float32))
    compiled.ascend(
        np.zeros((10, 81), np.float32), np.uintp(72), np.uintp(9), np.float32(0.3), compiled.U, compiled.U_X, compiled.U_Y
    )
    text = "".join(compiled.ascend.inspect_llvm().values())
    assert "x float> @llvm.sqrt" in text


def test_nothing_is_gathered_or_scattered_where_intel_would() -> None:
    """For Intel's Skylake to Ice Lake, whose microcode has made gathering slow (INTEL-SA-00828), compiled and not run."""
    script = """
from numba import float32, int64, njit
from engine.kernels.machine import FAST
from engine.ops.tvl1 import compiled
plane = float32[:, ::1]
for name, given in (("interleaved", (plane,)), ("taken_out", (plane, int64, int64))):
    function = njit(given, **FAST)(getattr(compiled, name).py_func)
    text = function.inspect_asm(function.signatures[0])
    print(name, "ymm" in text, "gather" in text or "scatter" in text)
"""
    environment = {**os.environ, "NUMBA_CPU_NAME": "cascadelake", "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == [f"{name} True False" for name in ("interleaved", "taken_out")]
