from __future__ import annotations

from dataclasses import replace
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ArrayError, ConfigError
from engine.geometry import (
    CANONICAL_KEYPOINTS,
    CROP_SIDE,
    INPUTS,
    MAP_SIDE,
    keypoints_to_crop,
)
from engine.ops.backend import Chosen
from engine.ops.tvl1 import tvl1
from engine.recognition.flowmap import (
    STEPS,
    chained_flow,
    face_flow,
    intensity,
    joined,
    mirrored,
    network_input,
    sample,
    spread_out,
    whole_map,
)
from engine.recognition.likeness import ALIKE, like
from engine.types import F32, Crop
from tests.faces import bump, laugh, moved, rise

POINTS = keypoints_to_crop(CANONICAL_KEYPOINTS)


def waves(channels: int, side: int) -> F32:
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    out = [np.sin(5 * x + 3 * y + 2 * c) + 0.3 * np.cos(11 * y * x) for c in range(channels)]
    return np.stack(out).astype(np.float32)


def scaled(maps: F32) -> F32:
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / (high - low)


def flipped_points(points: F32) -> F32:
    turned = points[[1, 0, 2, 4, 3]].copy()
    turned[:, 0] = MAP_SIDE - 1 - turned[:, 0]
    return turned


def test_every_channel_of_a_whole_map_spans_zero_to_one() -> None:
    cells = whole_map(waves(2, 128))
    assert cells.shape == (3, MAP_SIDE, MAP_SIDE) and cells.dtype == np.float32
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
    whole = scaled(waves(3, MAP_SIDE))
    turned = network_input(kind, mirrored(whole), flipped_points(SOME_FACE))
    assert np.allclose(turned, mirrored(network_input(kind, whole, SOME_FACE)), atol=1e-5)


@pytest.mark.parametrize("kind", INPUTS)
def test_an_input_has_its_stated_shape_and_stays_in_range(kind: str) -> None:
    read = network_input(kind, scaled(waves(3, MAP_SIDE)), SOME_FACE + np.float32(3))
    assert read.shape == INPUTS[kind] and read.dtype == np.float32
    assert read.min() >= 0 and read.max() <= 1


def test_four_tiles_are_crops_around_eyes_and_lips_kept_inside_the_map() -> None:
    whole = scaled(waves(3, MAP_SIDE))
    points = np.array([[10.5, 9.5], [22.0, 2.0], [0.0, 0.0], [6.5, 20.5], [27.0, 27.0]], np.float32)
    read = network_input("four-regions", whole, points)
    assert np.array_equal(read[:, :14, :14], whole[:, 3:17, 4:18])
    assert np.array_equal(read[:, :14, 14:], whole[:, :14, 14:])
    assert np.array_equal(read[:, 14:, :14], whole[:, 14:, :14])
    assert np.array_equal(read[:, 14:, 14:], whole[:, 14:, 14:])


def test_whole_is_the_map() -> None:
    whole = scaled(waves(3, MAP_SIDE))
    assert np.array_equal(network_input("whole", whole, SOME_FACE), whole)


def test_whole_224_is_a_bilinear_enlargement() -> None:
    whole = scaled(waves(3, MAP_SIDE))
    expected = np.stack([cv2.resize(c, (224, 224), interpolation=cv2.INTER_LINEAR) for c in whole])
    assert np.allclose(network_input("whole-224", whole, SOME_FACE), expected, atol=1e-5)


def test_aligned_and_regions_are_one_above_the_other() -> None:
    whole = scaled(waves(3, MAP_SIDE))
    both = network_input("aligned-and-regions", whole, SOME_FACE)
    assert np.array_equal(both[:, :MAP_SIDE], network_input("aligned", whole, SOME_FACE))
    assert np.array_equal(both[:, MAP_SIDE:], network_input("five-regions", whole, SOME_FACE))


def test_an_unknown_input_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'half'; there are five-regions, four-regions"):
        network_input("half", scaled(waves(3, MAP_SIDE)))


def test_reading_between_cells_is_exact_on_a_plane_and_holds_the_edge() -> None:
    y, x = np.mgrid[:MAP_SIDE, :MAP_SIDE].astype(np.float32)
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
        network_input("five-regions", scaled(waves(3, MAP_SIDE)), np.full((5, 2), np.nan, np.float32))
    with pytest.raises(ArrayError, match="whole map"):
        network_input("five-regions", waves(3, 14))


@pytest.fixture(scope="module")
def rest() -> Crop:
    return rise("smile")[1][0]


@pytest.mark.parametrize(("u", "v"), [(1.5, 0.0), (-1.0, -1.2), (0.0, 2.5)])
@pytest.mark.parametrize("place", [3, 4])
def test_the_flow_is_the_motion_from_onset_to_apex(rest: Crop, u: float, v: float, place: int) -> None:
    true = bump(*POINTS[place], u, v)
    flow, points, _ = face_flow([rest], [moved(rest, true)])
    assert flow.shape == (2, CROP_SIDE, CROP_SIDE) and points.shape == (5, 2)
    moving = np.hypot(*true) > 0.5 * np.hypot(u, v)
    error = np.hypot(*(flow - true))
    assert error[moving].mean() < 0.2 * np.hypot(u, v)
    still = np.hypot(*true) < 0.01
    still[:10], still[-10:], still[:, :10], still[:, -10:] = False, False, False, False
    assert error[still].mean() < 0.1


def test_several_crops_are_their_mean(rest: Crop) -> None:
    """Noise that is there in each of them is halved in the mean of four."""
    rng = np.random.default_rng(0)

    def noisy(crop: Crop) -> Crop:
        return replace(crop, pixels=np.clip(crop.pixels + rng.normal(0, 6, crop.pixels.shape), 0, 255).astype(np.uint8))

    apex = moved(rest, bump(*POINTS[3], -1.0, -1.0))
    clean, _, _ = face_flow([rest], [apex])
    one, _, _ = face_flow([noisy(rest)], [noisy(apex)])
    four, _, _ = face_flow([noisy(rest) for _ in range(4)], [noisy(apex) for _ in range(4)])
    assert np.hypot(*(four - clean)).mean() < 0.8 * np.hypot(*(one - clean)).mean()


@given(st.integers(0, 4), st.floats(0.1, 5), st.floats(-3.1, 3.1))
def test_intensity_is_the_mean_flow_where_it_is_greatest(place: int, px: float, angle: float) -> None:
    flow = np.zeros((2, CROP_SIDE, CROP_SIDE), np.float32)
    x, y = np.rint(POINTS[place]).astype(int)
    flow[:, max(y - 30, 0) : y + 31, max(x - 30, 0) : x + 31] = np.array([px * np.cos(angle), px * np.sin(angle)])[
        :, None, None
    ]
    assert intensity(flow, POINTS) == pytest.approx(px, rel=0.01)
    assert intensity(-2 * flow, POINTS) == pytest.approx(2 * px, rel=0.01)


@pytest.mark.parametrize("where", [(-500.0, 10.0), (10.0, 900.0), (127.0, 127.0)])
def test_a_point_outside_the_crop_is_no_crash(where: tuple[float, float]) -> None:
    points = POINTS.copy()
    points[2] = where
    assert intensity(np.ones((2, CROP_SIDE, CROP_SIDE), np.float32), points) == pytest.approx(2**0.5)


@pytest.mark.parametrize("moments", [0, 1, STEPS - 2, STEPS - 1, STEPS, 37, 500])
def test_links_lie_evenly_between_the_ends(moments: int) -> None:
    links = spread_out(moments)
    assert len(links) == min(moments, STEPS - 1)
    assert sorted(set(links)) == links and all(0 <= k < moments for k in links)
    if links:
        gaps = np.diff([-1, *links, moments])
        assert gaps.max() - gaps.min() <= 1


def test_joined_flows_lead_where_both_lead_one_after_the_other() -> None:
    y, x = np.mgrid[0:64, 0:64].astype(np.float32)
    ramp, shift = np.stack([0.1 * x, 0 * y]), np.stack([np.full_like(x, 2.0), np.full_like(y, -1.0)])
    inside = (slice(2, -4), slice(2, -8))
    np.testing.assert_allclose(joined(shift, ramp)[0][inside], (2 + 0.1 * (x + 2))[inside], atol=1e-4)
    np.testing.assert_allclose(joined(ramp, shift), ramp + shift, atol=1e-5)
    np.testing.assert_array_equal(joined(np.zeros_like(ramp), ramp), ramp)


@pytest.mark.parametrize("px", [18.0, 21.0, 24.0])
def test_a_motion_too_large_for_one_step_is_found_in_several(px: float) -> None:
    crops, true = laugh(px)
    pictures = [crop.pixels.astype(np.float32) for crop in crops]
    flow, alike = chained_flow(
        [pictures[0], *(pictures[1 + k] for k in spread_out(len(pictures) - 2)), pictures[-1]], crops[0].landmarks
    )
    direct = tvl1(pictures[0], like(pictures[-1], pictures[0]))
    far = np.hypot(*true) > 0.4 * px
    error, directly = (float(np.hypot(*(one - true))[far].mean()) for one in (flow, direct))
    assert error < 1.0 and alike > 0.95  # measured: 0.36 to 0.77 px, 0.98
    assert directly > 6 * error


def test_light_that_changes_from_step_to_step_does_not_matter() -> None:
    crops, true = laugh(18.0)
    lit = [np.clip(crop.pixels * (1 - 0.02 * k) + 3 * k, 0, 255).astype(np.float32) for k, crop in enumerate(crops)]
    flow, alike = chained_flow(lit, crops[0].landmarks)
    assert float(np.hypot(*(flow - true))[np.hypot(*true) > 7].mean()) < 1.0 and alike > 0.95


def test_what_comes_before_the_face_is_not_explained_in_steps_either() -> None:
    """A bright hand that rises over the lower half of the face, a few pixels a step."""
    rest = rise("smile")[1][0]
    hand = 110 + 60 * np.random.default_rng(2).random((128, 128), np.float32)
    pictures = [rest.pixels.astype(np.float32)]
    for top in range(120, 50, -7):
        pictures.append(pictures[0].copy())
        pictures[-1][top:, 20:110] = hand[: 128 - top, 20:110]
    assert chained_flow(pictures, rest.landmarks)[1] < ALIKE


def test_without_moments_in_between_the_direct_flow_is_refined() -> None:
    crops, true = laugh(6.0)
    flow, alike = chained_flow([crops[0].pixels.astype(np.float32), crops[-1].pixels.astype(np.float32)], crops[0].landmarks)
    assert float(np.hypot(*(flow - true))[np.hypot(*true) > 3].mean()) < 0.3 and alike > 0.95


@pytest.mark.parametrize("backend", [one for one in get_args(Chosen) if one != "gpu"])
def test_every_backend_finds_the_same(backend: Chosen) -> None:
    crops, _ = laugh(12.0)
    pictures = [crop.pixels.astype(np.float32) for crop in crops[::3]]
    wanted, _ = chained_flow(pictures, crops[0].landmarks, backend="cpu")
    flow, alike = chained_flow(pictures, crops[0].landmarks, backend=backend)
    assert alike > 0.9 and float(np.hypot(*(flow - wanted)).mean()) < 0.05
