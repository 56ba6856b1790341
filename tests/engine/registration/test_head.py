"""The robust model of the head, on motions that are known."""

from __future__ import annotations

import numpy as np
import pytest

from engine.geometry import apply
from engine.registration.head import CANVAS, Head, fit_head, head_design


def field(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(10, CANVAS - 10, (60, 2)), rng.normal(0, 20, 60)


@pytest.mark.parametrize(
    "terms", [(0.01, -0.02, 1.5, -0.7, 0.0, 0.0), (0, 0, 0, 0, 0.04, -0.03), (0.02, 0.01, -2, 1, 0.05, 0.02)]
)
def test_a_motion_of_the_head_is_found_exactly(terms: tuple[float, ...]) -> None:
    points, depth = field()
    design = head_design(points, depth)
    head = fit_head(design, design @ np.array(terms), np.ones(60), slice(0, 60))
    assert np.allclose(head.terms, terms, atol=2e-3)
    assert head.residual < 0.05
    assert head.agree == pytest.approx(1.0)


def test_the_motion_of_a_head_anywhere_is_that_of_its_design() -> None:
    points, depth = field(2)
    head = Head(np.array([0.02, 0.01, -2, 1, 0.05, 0.02]), 0.0, 1.0)
    assert np.allclose(head.motion(points[:, 0], points[:, 1], depth).T, head_design(points, depth) @ head.terms, atol=1e-12)


def test_a_cheek_that_moves_is_outvoted() -> None:
    points, depth = field(1)
    design = head_design(points, depth)
    terms = np.array([0.0, 0.01, 1.0, 0.5, 0.02, 0.0])
    moved = design @ terms
    moved[:15] += (0.0, -2.5)
    head = fit_head(design, moved, np.ones(60), slice(0, 60))
    assert np.abs(moved - design @ head.terms)[15:].max() < 0.25
    assert np.allclose((moved - design @ head.terms)[:15].mean(axis=0), (0, -2.5), atol=0.25)


def test_the_similarity_of_the_head_takes_reference_points_to_the_frame() -> None:
    points, depth = field(2)
    terms = np.array([0.02, -0.03, 4.0, -1.0, 0.0, 0.0])
    design = head_design(points, depth)
    head = fit_head(design, design @ terms, np.ones(60), slice(0, 60))
    assert np.allclose(apply(head.transform, points), points + design @ terms, atol=0.05)
