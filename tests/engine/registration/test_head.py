from __future__ import annotations

import numpy as np
import pytest

from engine.geometry import apply
from engine.registration.head import CANVAS, fit_head, head_design


def field(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(10, CANVAS - 10, (60, 2)), rng.normal(0, 20, 60)


@pytest.mark.parametrize(
    "terms", [(0.01, -0.02, 1.5, -0.7, 0.0, 0.0), (0, 0, 0, 0, 0.04, -0.03), (0.02, 0.01, -2, 1, 0.05, 0.02)]
)
def test_head_motion_is_recovered(terms: tuple[float, ...]) -> None:
    points, depth = field()
    design = head_design(points, depth)
    head = fit_head(design, design @ np.array(terms), np.ones(60), slice(0, 60))
    assert np.allclose(head.terms, terms, atol=2e-3)
    assert head.residual < 0.05
    assert head.agree == pytest.approx(1.0)


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
