"""Optical strain against fields whose strain is known on paper, on every backend."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ArrayError, BackendError
from engine.ops.backend import Backend
from engine.ops.strain import gpu, strain

BACKENDS: tuple[Backend, ...] = ("reference", "cpu", "auto")
EXACT = 2e-6
"""Float32 rounding of fields a few pixels long; measured: 7e-7 at most over the fields here."""


def linear(u_x: float, u_y: float, v_x: float, v_y: float, shape: tuple[int, int] = (17, 23)) -> npt.NDArray[np.float32]:
    """A flow whose derivatives are the same everywhere."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return np.stack([u_x * x + u_y * y, v_x * x + v_y * y]).astype(np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("derivatives", "expected"),
    [
        ((0.1, 0, 0, 0), 0.1),
        ((0, 0, 0, -0.2), 0.2),
        ((0.03, 0, 0, 0.04), 0.05),
        ((0, 0.1, 0, 0), 0.1 / np.sqrt(2)),
        ((0, 0.1, 0.1, 0), 0.2 / np.sqrt(2)),
        ((0.1, 0.05, 0.15, -0.1), np.sqrt(0.01 + 0.01 + 0.02)),
    ],
    ids=["stretch x", "squeeze y", "stretch both", "simple shear", "pure shear", "mixed"],
)
def test_linear_fields(backend: Backend, derivatives: tuple[float, ...], expected: float) -> None:
    got = strain(linear(*derivatives), backend=backend)
    assert got.shape == (17, 23)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shift_has_no_strain(backend: Backend) -> None:
    flow = np.broadcast_to(np.float32([[[3.5]], [[-1.25]]]), (2, 9, 11))
    assert not strain(flow, backend=backend).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_small_rotation_has_strain_of_second_order_only(backend: Backend) -> None:
    angle = 0.02
    flow = linear(np.cos(angle) - 1, -np.sin(angle), np.sin(angle), np.cos(angle) - 1)
    expected = np.sqrt(2) * (1 - np.cos(angle))  # 2.8e-4 against a motion gradient of 0.02
    np.testing.assert_allclose(strain(flow, backend=backend), expected, atol=EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_v_changes_along_rows_and_u_along_columns(backend: Backend) -> None:
    y, x = np.mgrid[:12, :20].astype(np.float32)
    flow = np.stack([0 * x, 0.01 * y**2]).astype(np.float32)
    expected = np.broadcast_to(0.02 * np.arange(12, dtype=np.float32)[:, None], (12, 20))
    np.testing.assert_allclose(strain(flow, backend=backend)[1:-1], expected[1:-1], atol=EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5)])
def test_tiny_fields(backend: Backend, shape: tuple[int, int]) -> None:
    got = strain(linear(0.1, 0, 0, 0.1, shape), backend=backend)
    count = (shape[0] > 1) + (shape[1] > 1)
    np.testing.assert_allclose(got, np.full(shape, 0.1 * np.sqrt(count)), atol=EXACT)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 100))
def test_backends_agree(height: int, width: int, seed: int, scale: float) -> None:
    flow = (np.random.default_rng(seed).normal(size=(2, height, width)) * scale).astype(np.float32)
    np.testing.assert_allclose(strain(flow, backend="cpu"), strain(flow, backend="reference"), rtol=2e-6, atol=1e-7 * scale)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_turning_the_picture_turns_the_strain(seed: int) -> None:
    flow = np.random.default_rng(seed).normal(size=(2, 8, 8)).astype(np.float32)
    turned = np.stack([np.rot90(flow[1]), -np.rot90(flow[0])])
    np.testing.assert_allclose(strain(turned), np.rot90(strain(flow)), atol=EXACT)


def test_arrays_that_are_not_contiguous_give_the_same() -> None:
    flow = np.random.default_rng(1).normal(size=(2, 20, 30)).astype(np.float32)
    interleaved = np.ascontiguousarray(flow.transpose(1, 2, 0)).transpose(2, 0, 1)
    np.testing.assert_array_equal(strain(interleaved), strain(flow))
    np.testing.assert_array_equal(strain(flow[:, ::2, ::-1]), strain(flow[:, ::2, ::-1].copy()))


@pytest.mark.parametrize(
    ("flow", "says"),
    [
        (np.zeros((2, 4), np.float32), r"\[2, H, W\]"),
        (np.zeros((4, 4, 2), np.float32), r"\(4, 4, 2\)"),
        (np.zeros((2, 0, 4), np.float32), "at least one pixel"),
        (np.zeros((2, 4, 4)), "float64"),
        (np.full((2, 4, 4), np.nan, np.float32), "finite"),
        (np.full((2, 4, 4), np.inf, np.float32), "finite"),
        (np.full((2, 4, 4), -2e6, np.float32), "2e\\+06"),
        ([[1.0]], "list"),
    ],
)
def test_what_is_no_flow_is_refused(flow: object, says: str) -> None:
    with pytest.raises(ArrayError, match=says):
        strain(flow)  # type: ignore[arg-type]


def test_the_gpu_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "refusal", lambda: "no CUDA GPU")
    with pytest.raises(BackendError, match="no CUDA GPU"):
        strain(np.zeros((2, 4, 4), np.float32), backend="gpu")


def test_an_unknown_backend() -> None:
    with pytest.raises(BackendError, match="'cuda' is none of them"):
        strain(np.zeros((2, 4, 4), np.float32), backend="cuda")  # type: ignore[arg-type]
