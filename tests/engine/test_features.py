from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ArrayError
from engine.features import (
    CANONICAL_KEYPOINTS,
    REGIONS,
    SIDE,
    five_regions,
    keypoints_to_crop,
    keypoints_to_map,
    mirrored,
    region_grid,
    sample,
    whole_map,
)
from engine.types import F32


def waves(channels: int, side: int) -> F32:
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    out = [np.sin(5 * x + 3 * y + 2 * c) + 0.3 * np.cos(11 * y * x) for c in range(channels)]
    return np.stack(out).astype(np.float32)


def scaled(maps: F32) -> F32:
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / (high - low)


def flipped_points(points: F32) -> F32:
    turned = points[[1, 0, 2, 4, 3]].copy()
    turned[:, 0] = SIDE - 1 - turned[:, 0]
    return turned


def test_pixel_centres_map_onto_pixel_centres_of_the_area() -> None:
    corners = np.array([[-0.5, -0.5], [27.5, 27.5]], np.float32)
    assert np.allclose(keypoints_to_crop(corners), [[-0.5, -0.5], [127.5, 127.5]])
    assert np.allclose(keypoints_to_map(keypoints_to_crop(CANONICAL_KEYPOINTS)), CANONICAL_KEYPOINTS, atol=1e-5)


def test_every_channel_of_a_whole_map_spans_zero_to_one() -> None:
    cells = whole_map(waves(2, 128))
    assert cells.shape == (3, SIDE, SIDE) and cells.dtype == np.float32
    assert np.allclose(cells.min((1, 2)), 0) and np.allclose(cells.max((1, 2)), 1)


def test_flow_without_motion_gives_zeros_not_noise() -> None:
    flow = np.stack([np.full((128, 128), 0.7, np.float32), waves(1, 128)[0]])
    cells = whole_map(flow)
    assert not cells[0].any() and cells[1].any() and cells[2].any()


def test_a_cell_is_the_mean_of_its_area() -> None:
    flow = np.zeros((2, 56, 56), np.float32)
    flow[0, 10, 20] = 4.0
    flow[0, 40, 40:42] = 4.0
    cells = whole_map(flow)
    assert cells[0, 20, 20] == 1 and np.isclose(cells[0, 5, 10], 0.5)


def test_a_constant_flow_added_to_all_pixels_changes_nothing() -> None:
    flow = waves(2, 128)
    assert np.allclose(whole_map(flow), whole_map(flow + np.float32(1.5)), atol=1e-5)


def test_mirrored_flow_gives_the_mirrored_map() -> None:
    flow = waves(2, 128)
    turned = flow[..., ::-1].copy()
    turned[0] *= -1
    assert np.allclose(whole_map(turned), mirrored(whole_map(flow)), atol=1e-5)


def test_mirrored_face_gives_the_mirrored_composite() -> None:
    whole = scaled(waves(3, SIDE))
    points = CANONICAL_KEYPOINTS + np.array([[0.3, 0.1], [-0.2, 0.4], [0.6, -0.3], [0.1, 0.2], [0.7, -0.4]], np.float32)
    assert np.allclose(five_regions(mirrored(whole), flipped_points(points)), mirrored(five_regions(whole, points)), atol=1e-5)


def test_regions_tile_the_composite_exactly_once() -> None:
    covered = np.zeros((SIDE, SIDE), int)
    for r in REGIONS:
        covered[r.top : r.top + r.rows, r.left : r.left + r.columns] += 1
    assert (covered == 1).all()
    assert sorted(r.keypoint for r in REGIONS) == [0, 1, 2, 3, 4]


def test_each_region_is_centred_on_its_keypoint() -> None:
    grid = region_grid(CANONICAL_KEYPOINTS)
    for r in REGIONS:
        centre = grid[r.top : r.top + r.rows, r.left : r.left + r.columns].mean((0, 1))
        assert np.allclose(centre, CANONICAL_KEYPOINTS[r.keypoint] - (0, r.lift), atol=1e-4)


def test_batched_grids_equal_single_ones() -> None:
    both = np.stack([CANONICAL_KEYPOINTS, CANONICAL_KEYPOINTS + np.float32(0.4)])
    assert np.array_equal(region_grid(both)[1], region_grid(both[1]))


def test_reading_between_cells_is_exact_on_a_plane_and_holds_the_edge() -> None:
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    grid = np.array([[[3.25, 7.5], [-4.0, 2.0], [40.0, 26.5]]], np.float32)
    read = sample((2 * x + y)[None], grid)
    assert np.allclose(read[0, 0], [14.0, 2.0, 54 + 26.5])


@pytest.mark.parametrize("shape", [(3, 128, 128), (2, 128), (2, 20, 128)])
def test_a_flow_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArrayError, match="cannot be mapped"):
        whole_map(np.zeros(shape, np.float32))


def test_values_that_are_not_finite_are_refused() -> None:
    flow = waves(2, 64)
    flow[0, 3, 3] = np.nan
    with pytest.raises(ArrayError, match="not finite"):
        whole_map(flow)
    with pytest.raises(ArrayError, match="five finite points"):
        five_regions(scaled(waves(3, SIDE)), np.full((5, 2), np.nan, np.float32))
    with pytest.raises(ArrayError, match="whole map"):
        five_regions(waves(3, 14))
