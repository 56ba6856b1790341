from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.errors import ArrayError, ConfigError
from engine.recognition.flowmap import (
    CANONICAL_KEYPOINTS,
    INPUTS,
    REGIONS,
    SIDE,
    TILES,
    Region,
    five_regions,
    input_grid,
    keypoints_to_crop,
    keypoints_to_map,
    mirrored,
    network_input,
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


SOME_FACE = CANONICAL_KEYPOINTS + np.array([[0.3, 0.1], [-0.2, 0.4], [0.6, -0.3], [0.1, 0.2], [0.7, -0.4]], np.float32)


@pytest.mark.parametrize("kind", INPUTS)
def test_mirrored_face_gives_the_mirrored_input(kind: str) -> None:
    whole = scaled(waves(3, SIDE))
    turned = network_input(kind, mirrored(whole), flipped_points(SOME_FACE))
    assert np.allclose(turned, mirrored(network_input(kind, whole, SOME_FACE)), atol=1e-5)


@pytest.mark.parametrize("kind", INPUTS)
def test_an_input_has_its_stated_shape_and_stays_in_range(kind: str) -> None:
    read = network_input(kind, scaled(waves(3, SIDE)), SOME_FACE + np.float32(3))
    assert read.shape == INPUTS[kind] and read.dtype == np.float32
    assert read.min() >= 0 and read.max() <= 1


@pytest.mark.parametrize("kind", INPUTS)
def test_batched_grids_equal_single_ones(kind: str) -> None:
    faces = np.stack([CANONICAL_KEYPOINTS, SOME_FACE, CANONICAL_KEYPOINTS + np.float32(0.4)]).reshape(3, 1, 5, 2)
    grids = input_grid(kind, faces)
    assert grids.shape == (3, 1, *INPUTS[kind][1:], 2)
    for face, grid in zip(faces, grids, strict=True):
        assert np.allclose(grid[0], input_grid(kind, face[0]), atol=1e-5)


@pytest.mark.parametrize("regions", [REGIONS, TILES], ids=["five", "four"])
def test_regions_tile_the_composite_exactly_once(regions: tuple[Region, ...]) -> None:
    covered = np.zeros((SIDE, SIDE), int)
    for r in regions:
        covered[r.top : r.top + r.rows, r.left : r.left + r.columns] += 1
    assert (covered == 1).all()
    assert len({r.keypoint for r in regions}) == len(regions)


def test_four_tiles_are_crops_around_eyes_and_lips_kept_inside_the_map() -> None:
    whole = scaled(waves(3, SIDE))
    points = np.array([[10.5, 9.5], [22.0, 2.0], [0.0, 0.0], [6.5, 20.5], [27.0, 27.0]], np.float32)
    read = network_input("four-regions", whole, points)
    assert np.array_equal(read[:, :14, :14], whole[:, 3:17, 4:18])
    assert np.array_equal(read[:, :14, 14:], whole[:, :14, 14:])
    assert np.array_equal(read[:, 14:, :14], whole[:, 14:, :14])
    assert np.array_equal(read[:, 14:, 14:], whole[:, 14:, 14:])


def test_whole_is_the_map() -> None:
    whole = scaled(waves(3, SIDE))
    assert np.array_equal(network_input("whole", whole, SOME_FACE), whole)


def test_whole_224_is_a_bilinear_enlargement() -> None:
    whole = scaled(waves(3, SIDE))
    expected = np.stack([cv2.resize(c, (224, 224), interpolation=cv2.INTER_LINEAR) for c in whole])
    assert np.allclose(network_input("whole-224", whole, SOME_FACE), expected, atol=1e-5)


@pytest.mark.parametrize(("scale", "degrees", "shift"), [(1.0, 0.0, (0.0, 0.0)), (0.9, 8.0, (1.0, -0.5)), (1.1, -12.0, (0, 2))])
def test_aligning_undoes_any_similarity(scale: float, degrees: float, shift: tuple[float, float]) -> None:
    cos, sin = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    turn = np.array([[cos, sin], [-sin, cos]], np.float32)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    cells = np.stack((x, y), -1)
    assert np.allclose(input_grid("aligned", CANONICAL_KEYPOINTS @ turn + shift), cells @ turn + shift, atol=1e-4)


def test_aligning_is_the_least_squares_answer() -> None:
    """Solved as a linear system: x' = a x - b y + c, y' = b x + a y + d."""
    x, y = CANONICAL_KEYPOINTS.astype(np.float64).T
    one, none = np.ones(5), np.zeros(5)
    rows = np.concatenate((np.stack((x, -y, one, none), 1), np.stack((y, x, none, one), 1)))
    a, b, c, d = np.linalg.lstsq(rows, SOME_FACE.T.ravel().astype(np.float64), rcond=None)[0]
    v, u = np.mgrid[:SIDE, :SIDE]
    assert np.allclose(input_grid("aligned", SOME_FACE), np.stack((a * u - b * v + c, b * u + a * v + d), -1), atol=1e-4)


def test_aligned_and_regions_are_one_above_the_other() -> None:
    whole = scaled(waves(3, SIDE))
    both = network_input("aligned-and-regions", whole, SOME_FACE)
    assert np.array_equal(both[:, :SIDE], network_input("aligned", whole, SOME_FACE))
    assert np.array_equal(both[:, SIDE:], five_regions(whole, SOME_FACE))


def test_an_input_nobody_knows_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'half'; there are five-regions, four-regions"):
        network_input("half", scaled(waves(3, SIDE)))


def test_each_region_is_centred_on_its_keypoint() -> None:
    grid = region_grid(CANONICAL_KEYPOINTS)
    for r in REGIONS:
        centre = grid[r.top : r.top + r.rows, r.left : r.left + r.columns].mean((0, 1))
        assert np.allclose(centre, CANONICAL_KEYPOINTS[r.keypoint] - (0, r.lift), atol=1e-4)


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
