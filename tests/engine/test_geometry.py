from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.geometry import (
    CANONICAL_KEYPOINTS,
    FIVE_REGIONS,
    FOUR_REGIONS,
    INPUTS,
    MAP_SIDE,
    MapRegion,
    apply,
    compose,
    input_grid,
    keypoints_to_crop,
    keypoints_to_map,
    linear_grid,
    similarity,
)
from engine.types import F64

SOME_FACE = CANONICAL_KEYPOINTS + np.array([[0.3, 0.1], [-0.2, 0.4], [0.6, -0.3], [0.1, 0.2], [0.7, -0.4]], np.float32)


def test_pixel_centres_map_onto_pixel_centres_of_the_area() -> None:
    corners = np.array([[-0.5, -0.5], [27.5, 27.5]], np.float32)
    assert np.allclose(keypoints_to_crop(corners), [[-0.5, -0.5], [127.5, 127.5]])
    assert np.allclose(keypoints_to_map(keypoints_to_crop(CANONICAL_KEYPOINTS)), CANONICAL_KEYPOINTS, atol=1e-5)


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("away", [0.0, 9.0])
def test_a_grid_is_linear_in_the_keypoints(kind: str, away: float) -> None:
    """Also where keypoints lie outside the map."""
    face = SOME_FACE + np.array([away, -away], np.float32)
    middle, slopes, limits = linear_grid(kind)
    found = middle + (np.clip(face.ravel(), *limits) - (MAP_SIDE - 1) / 2) @ slopes
    np.testing.assert_allclose(found, input_grid(kind, face).ravel(), atol=2e-5)


@pytest.mark.parametrize("kind", INPUTS)
def test_batched_grids_equal_single_ones(kind: str) -> None:
    faces = np.stack([CANONICAL_KEYPOINTS, SOME_FACE, CANONICAL_KEYPOINTS + np.float32(0.4)]).reshape(3, 1, 5, 2)
    grids = input_grid(kind, faces)
    assert grids.shape == (3, 1, *INPUTS[kind][1:], 2)
    for face, grid in zip(faces, grids, strict=True):
        assert np.allclose(grid[0], input_grid(kind, face[0]), atol=1e-5)


@pytest.mark.parametrize("regions", [FIVE_REGIONS, FOUR_REGIONS], ids=["five", "four"])
def test_regions_tile_the_composite_exactly_once(regions: tuple[MapRegion, ...]) -> None:
    covered = np.zeros((MAP_SIDE, MAP_SIDE), int)
    for r in regions:
        covered[r.top : r.top + r.rows, r.left : r.left + r.columns] += 1
    assert (covered == 1).all()
    assert len({r.keypoint for r in regions}) == len(regions)


@pytest.mark.parametrize(("scale", "degrees", "shift"), [(1.0, 0.0, (0.0, 0.0)), (0.9, 8.0, (1.0, -0.5)), (1.1, -12.0, (0, 2))])
def test_aligning_undoes_any_similarity(scale: float, degrees: float, shift: tuple[float, float]) -> None:
    cos, sin = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    turn = np.array([[cos, sin], [-sin, cos]], np.float32)
    y, x = np.mgrid[:MAP_SIDE, :MAP_SIDE].astype(np.float32)
    cells = np.stack((x, y), -1)
    assert np.allclose(input_grid("aligned", CANONICAL_KEYPOINTS @ turn + shift), cells @ turn + shift, atol=1e-4)


def test_aligning_is_the_least_squares_answer() -> None:
    """Solved as a linear system: x' = a x - b y + c, y' = b x + a y + d."""
    x, y = CANONICAL_KEYPOINTS.astype(np.float64).T
    one, none = np.ones(5), np.zeros(5)
    rows = np.concatenate((np.stack((x, -y, one, none), 1), np.stack((y, x, none, one), 1)))
    a, b, c, d = np.linalg.lstsq(rows, SOME_FACE.T.ravel().astype(np.float64), rcond=None)[0]
    v, u = np.mgrid[:MAP_SIDE, :MAP_SIDE]
    assert np.allclose(input_grid("aligned", SOME_FACE), np.stack((a * u - b * v + c, b * u + a * v + d), -1), atol=1e-4)


def test_each_region_is_centred_on_its_keypoint() -> None:
    grid = input_grid("five-regions", CANONICAL_KEYPOINTS)
    for r in FIVE_REGIONS:
        centre = grid[r.top : r.top + r.rows, r.left : r.left + r.columns].mean((0, 1))
        assert np.allclose(centre, CANONICAL_KEYPOINTS[r.keypoint] - (0, r.lift), atol=1e-4)


def transform_of(scale: float, angle: float, x: float, y: float) -> F64:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]])


TRANSFORMS = st.builds(transform_of, st.floats(0.05, 20), st.floats(-3, 3), st.floats(-500, 500), st.floats(-500, 500))
POINTS = st.lists(st.tuples(st.integers(-300, 300), st.integers(-300, 300)), min_size=3, max_size=12, unique=True)


@given(TRANSFORMS, POINTS)
def test_a_similarity_is_recovered_exactly(transform: F64, points: list[tuple[int, int]]) -> None:
    source = np.array(points, float)
    found = similarity(source, apply(transform, source))
    assert np.allclose(apply(found, source), apply(transform, source), atol=1e-6 * (1 + np.abs(transform).max()))
    assert np.allclose(found[:, :2], transform[:, :2], atol=1e-6 * (1 + np.abs(transform).max()))


@given(POINTS, st.integers(0, 2**31))
def test_no_other_similarity_fits_better(points: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = np.array(points, float)
    target = source + rng.normal(0, 5, source.shape)
    best = similarity(source, target)
    error = np.square(apply(best, source) - target).sum()
    for _ in range(5):
        other = compose(transform_of(rng.normal(1, 0.01), rng.normal(0, 0.01), *rng.normal(0, 1, 2)), best)
        assert np.square(apply(other, source) - target).sum() >= error - 1e-6


@given(TRANSFORMS, TRANSFORMS)
def test_composing_is_doing_one_after_the_other(outer: F64, inner: F64) -> None:
    points = np.array([(0.0, 0.0), (3, 7), (-40, 11)])
    assert np.allclose(apply(compose(outer, inner), points), apply(outer, apply(inner, points)), rtol=1e-9, atol=1e-6)


def test_similarities_compose() -> None:
    rng = np.random.default_rng(3)
    a, b, c = (rng.uniform(0, 100, (3, 2)) for _ in range(3))
    first, second = similarity(a, b), similarity(b, c)
    assert np.allclose(apply(compose(second, first), a), apply(second, apply(first, a)))
