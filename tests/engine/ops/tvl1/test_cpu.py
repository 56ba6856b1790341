"""The CPU path as a whole: early stop, its parameters, and what happens where numba cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from engine.ops.tvl1 import cpu, reference
from engine.ops.tvl1.method import METHOD

F32 = npt.NDArray[np.float32]
SOLVERS: tuple[Callable[..., F32], ...] = (reference.solve, cpu.solve)


def pair(side: int = 48) -> tuple[F32, F32]:
    rough = np.random.default_rng(0).uniform(0, 255, (side, side + 8)).astype(np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), 2)
    return np.ascontiguousarray(smooth[:, 4:-4]), np.ascontiguousarray(smooth[:, 3:-5])


@pytest.mark.parametrize("solve", SOLVERS)
def test_iterations_end_once_they_change_little(solve: Callable[..., F32]) -> None:
    fixed, moving = pair()
    once, never = replace(METHOD, iterations=1), replace(METHOD, settled=0)
    np.testing.assert_array_equal(solve(fixed, moving, replace(METHOD, settled=1e9)), solve(fixed, moving, once))
    whole = solve(fixed, moving, never)
    assert 0 < np.abs(solve(fixed, moving, METHOD) - whole).mean() < 0.01  # measured 0.002
    assert np.abs(solve(fixed, moving, once) - whole).mean() > 0.05


@pytest.mark.parametrize(
    "change",
    [
        {"median": 1},
        {"smoothing": 0.0},
        {"smoothing": 1.0},
        {"levels": 1},
        {"levels": 3, "step": 0.5},
        {"warps": 1, "iterations": 7},
        {"lam": 0.3, "theta": 0.3, "tau": 0.2},
    ],
)
def test_twins_agree_for_other_parameters(change: dict[str, float]) -> None:
    fixed, moving = pair(40)
    method = replace(METHOD, settled=0, **change)  # type: ignore[arg-type]
    np.testing.assert_allclose(cpu.solve(fixed, moving, method), reference.solve(fixed, moving, method), atol=1e-3)


def test_another_median_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3"):
        cpu.solve(*pair(), replace(METHOD, median=5))


@pytest.mark.parametrize("pairs", [1, cpu.SHARED + 1])
def test_a_batch_is_its_pairs(pairs: int) -> None:
    fixed, moving = (np.stack([np.roll(picture, k, 0) for k in range(pairs)]) for picture in pair(24))
    expected = [cpu.solve(*each) for each in zip(fixed, moving, strict=True)]
    np.testing.assert_array_equal(cpu.solve_batch(fixed, moving), expected)


def test_a_batch_is_shared_among_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(2, timeout=20)

    def solve(fixed: F32, moving: F32) -> F32:
        meeting.wait()  # raises unless two calls run at the same time
        return np.stack([fixed, moving])

    monkeypatch.setattr(cpu, "solve", solve)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    before = threading.active_count()
    pictures = np.zeros((cpu.SHARED, 3, 3), np.float32)
    assert cpu.solve_batch(pictures, pictures).shape == (cpu.SHARED, 2, 3, 3)
    assert threading.active_count() == before


def test_without_numba_the_reference_answers_and_says_so() -> None:
    script = """
import sys, warnings
sys.modules["numba"] = None
import numpy as np
from engine.errors import BackendError
from engine.ops.tvl1 import prepare, tvl1
picture = np.zeros((8, 8), np.uint8)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(prepare(), tvl1(picture, picture).shape)
    tvl1(picture, picture)
print(len(caught), caught[0].message)
try:
    tvl1(picture, picture, backend="cpu")
except BackendError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    answer, warning, refused = done.stdout.strip().split("\n")
    assert answer == "reference (2, 8, 8)"
    assert warning.startswith("1 TV-L1 runs some") and "numba" in warning
    assert "no fast CPU path here" in refused and "pip install" in refused


def test_a_compiler_that_is_switched_off_is_reported() -> None:
    script = "from engine.ops.tvl1 import cpu; print(cpu.refusal())"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert "NUMBA_DISABLE_JIT" in done.stdout


def test_numba_is_not_loaded_before_it_is_needed() -> None:
    script = "import sys, engine.ops.tvl1; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
