from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.geometry import CROP_SIDE
from engine.recognition.residual import relief, take_out_head
from engine.registration.head import MARGIN, fit_head, head_design
from engine.registration.regions import HEAD_POINTS, REGIONS
from engine.types import F32

TRACKED = [*HEAD_POINTS, *(i for points in REGIONS.values() for i in points)]


def mesh(seed: int = 4) -> F32:
    """Points spread over the crop as a mesh's are, a few outside of it; depth like that of a face."""
    points = np.random.default_rng(seed).normal(64, 30, (478, 3)).astype(np.float32)
    points[:, 2] = ((points[:, 0] - 64) ** 2 + (points[:, 1] - 64) ** 2) / 100
    return points


def plain_relief(points: F32) -> F32:
    """The same, every blur as OpenCV takes it and nothing left out."""
    weight, depth = np.zeros((2, CROP_SIDE, CROP_SIDE), np.float32)
    column, row = np.clip(np.rint(points[:, :2]).astype(int), 0, CROP_SIDE - 1).T
    np.add.at(weight, (row, column), 1.0)
    np.add.at(depth, (row, column), points[:, 2])
    near, far = ([cv2.GaussianBlur(p, (0, 0), sigma).astype(np.float64) for p in (depth, weight)] for sigma in (4.0, 24.0))
    return np.asarray((near[0] + 1e-3 * far[0]) / np.maximum(near[1] + 1e-3 * far[1], 1e-12), np.float32)


@pytest.mark.parametrize("crowd", [1.0, 0.2])
def test_depth_lies_smoothly_between_the_points(crowd: float) -> None:
    """Also where the mesh leaves most of the crop alone, so that far points speak."""
    points = mesh()
    points[:, :2] = 64 + crowd * (points[:, :2] - 64)
    found, wanted = relief(points), plain_relief(points)
    np.testing.assert_allclose(found, wanted, atol=1e-3 if crowd == 1 else 2e-2)  # of 140 px; measured 4e-4 and 5e-3
    assert found.shape == (CROP_SIDE, CROP_SIDE) and found.dtype == np.float32


def test_what_is_left_is_the_flow_less_the_heads_motion() -> None:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:CROP_SIDE, :CROP_SIDE] / CROP_SIDE
    waves = [np.sin(a * x + b * y) + c * (x - 0.5) + d for a, b, c, d in rng.uniform(-3, 3, (2, 4))]
    flow, points = np.asarray(waves, np.float32), mesh()
    at = points[TRACKED].astype(np.float64)
    level = at[: len(HEAD_POINTS), 2].mean()
    smooth = [cv2.blur(channel, (9, 9)) for channel in flow]
    places = at[:, 0].astype(np.float32)[None], at[:, 1].astype(np.float32)[None]
    moved = np.stack([cv2.remap(channel, *places, cv2.INTER_LINEAR)[0] for channel in smooth], 1).astype(np.float64)
    votes = np.where(np.arange(len(at)) < len(HEAD_POINTS), 1.0, 0.15)
    votes *= ((at[:, :2] >= 0) & (at[:, :2] <= CROP_SIDE - 1)).all(1)
    head = fit_head(head_design(at[:, :2] + MARGIN, at[:, 2] - level), moved, votes, slice(0, len(HEAD_POINTS)))
    places = np.stack(np.meshgrid(*[np.arange(CROP_SIDE) + MARGIN] * 2), -1).reshape(-1, 2)
    depth = plain_relief(points).astype(np.float64).ravel() - level
    wanted = flow - (head_design(places, depth) @ head.terms).T.reshape(flow.shape)
    found = take_out_head(flow, points)
    assert np.abs(found - flow).mean() > 0.1
    np.testing.assert_allclose(found, wanted, atol=5e-5)  # measured 5e-6
    assert found.dtype == np.float32


def test_the_flow_given_stays_as_it_was() -> None:
    flow = np.ones((2, CROP_SIDE, CROP_SIDE), np.float32)
    left = take_out_head(flow, mesh())
    assert (flow == 1).all()
    assert np.abs(left).max() < 0.01, "a shift of all is the head's"
