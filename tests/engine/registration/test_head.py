from __future__ import annotations

import numpy as np
import pytest

from engine.geometry import apply
from engine.registration.head import CANVAS, fit_head, head_design, roll_of, yaw_and_pitch


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


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (20, 0), (-20, 0), (0, 15), (0, -15)])
def test_angles_of_a_head_that_is_turned(yaw: float, pitch: float) -> None:
    """A face of four points, near ones with small z, turned about the vertical axis or nodding."""
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[[234, 454, 10, 2]] = (-40, 0, 30), (40, 0, 30), (0, -50, 0), (0, 48.9, -15)
    turned, nodded = np.radians(yaw), np.radians(pitch)
    about_y = np.array([[np.cos(turned), 0, -np.sin(turned)], [0, 1, 0], [np.sin(turned), 0, np.cos(turned)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(nodded), -np.sin(nodded)], [0, np.sin(nodded), np.cos(nodded)]])
    nose = about_x @ about_y @ (0, 0, -60)
    assert np.sign(np.round(nose[:2])).tolist() == [np.sign(yaw), np.sign(pitch)], "it looks right and down"
    found = yaw_and_pitch((landmarks @ (about_x @ about_y).T).astype(np.float32))
    assert np.degrees(found) == pytest.approx((yaw, pitch), abs=0.6)


@pytest.mark.parametrize("degrees", [0, 12, -35])
def test_a_head_that_leans_clockwise_leans_by_positive_degrees(degrees: float) -> None:
    angle = np.radians(degrees)
    picture_to_crop = 0.5 * np.array([[np.cos(angle), np.sin(angle), 8], [-np.sin(angle), np.cos(angle), 3]])
    down_the_face = np.linalg.inv(picture_to_crop[:, :2]) @ (0, 1)
    assert np.sign(down_the_face[0]) == -np.sign(degrees), "the chin of a face that leans clockwise lies to the left"
    assert np.degrees(roll_of(picture_to_crop)) == pytest.approx(degrees)
