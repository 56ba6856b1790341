from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from engine.errors import ConfigError
from engine.geometry import CANONICAL_KEYPOINTS
from engine.recognition.flowmap import mirrored, whole_map
from training.datasets import CLASSES
from training.simulate import FINE, POINTS, Simulated, displacement, faces, flattened, maps_of, patches, scaled, simulate
from training.units import UNIT_NAMES, UNMIRRORED

F32 = npt.NDArray[np.float32]

LEFT_EYE, RIGHT_EYE, _, LEFT_LIP, RIGHT_LIP = CANONICAL_KEYPOINTS
BROW = np.float32([0, -5])


@pytest.fixture(scope="module")
def drawn() -> Simulated:
    return simulate(1500, seed=3, batch=500)


def mean_flow(names: tuple[str, ...], sides: tuple[float, float] = (1, 1), count: int = 200) -> F32:
    """[2, POINTS, POINTS] of (u, v), the mean over faces that show these units alone."""
    draw = np.random.default_rng(8)
    keypoints, size = np.stack([CANONICAL_KEYPOINTS] * count), np.ones((count, 2))
    strengths = np.zeros((count, 2, len(UNIT_NAMES)))
    for name in names:
        strengths[:, :, UNIT_NAMES.index(name)] = sides
    line = (torch.arange(POINTS) + 0.5) / FINE - 0.5
    y, x = (g.expand(count, -1, -1) for g in torch.meshgrid(line, line, indexing="ij"))
    return displacement(patches(keypoints, size, strengths, draw), x, y).mean(0).numpy()


def at(flow: F32, place: F32) -> F32:
    """(u, v) at a place (x, y) in map cells."""
    column, row = np.rint((place + 0.5) * FINE - 0.5).astype(int)
    return flow[:, row, column]


def test_shapes_types_and_ranges(drawn: Simulated) -> None:
    assert len(drawn) == 1500
    assert drawn.maps.shape == (1500, 3, 28, 28) and drawn.maps.dtype == np.float32
    assert drawn.keypoints.shape == (1500, 5, 2) and drawn.keypoints.dtype == np.float32
    assert drawn.units.shape == (1500, len(UNIT_NAMES)) and drawn.units.dtype == np.float32
    assert drawn.labels.dtype == np.int64
    assert np.isfinite(drawn.maps).all() and np.isfinite(drawn.keypoints).all()
    assert (drawn.maps.min((2, 3)) == 0).all() and (drawn.maps.max((2, 3)) == 1).all()
    assert set(np.unique(drawn.units)) == {0, 1}


def test_faces_lie_about_where_the_published_ones_do(drawn: Simulated) -> None:
    assert np.abs(drawn.keypoints.mean(0) - CANONICAL_KEYPOINTS).max() < 0.1
    assert drawn.keypoints.std(0).min() > 0.3 and drawn.keypoints.std(0).max() < 1.6


def test_classes_are_equally_likely(drawn: Simulated) -> None:
    counts = np.bincount(drawn.labels, minlength=len(CLASSES))
    assert np.abs(counts - 500).max() < 4 * np.sqrt(1500 * 2 / 9)


def test_the_same_seed_gives_the_same_maps_and_a_longer_run_begins_with_a_shorter(drawn: Simulated) -> None:
    again, other = simulate(500, seed=3, batch=500), simulate(20, seed=4)
    for name in ("maps", "keypoints", "labels", "units"):
        assert np.array_equal(getattr(again, name), getattr(drawn, name)[:500])
    assert not np.array_equal(other.keypoints, drawn.keypoints[:20])


@pytest.mark.parametrize(("count", "batch"), [(0, 10), (-1, 10), (10, 0)])
def test_nothing_to_simulate_is_refused(count: int, batch: int) -> None:
    with pytest.raises(ConfigError, match="one map or more"):
        simulate(count, 0, batch=batch)


def test_a_batch_of_one_and_a_last_batch_that_is_not_full() -> None:
    assert len(simulate(3, 0, batch=1)) == len(simulate(3, 0, batch=2)) == 3


def test_a_smile_moves_the_lip_corners_outwards_and_up() -> None:
    flow = mean_flow(("AU12",))
    (left_u, left_v), (right_u, right_v) = at(flow, LEFT_LIP), at(flow, RIGHT_LIP)
    assert left_u < -0.2 and right_u > 0.2
    assert max(left_v, right_v) < -0.2
    assert np.abs(at(flow, LEFT_EYE + BROW)).max() < 0.02


def test_a_brow_raise_moves_the_brows_up() -> None:
    flow = mean_flow(("AU1", "AU2"))
    assert max(at(flow, LEFT_EYE + BROW)[1], at(flow, RIGHT_EYE + BROW)[1]) < -0.5
    assert np.abs(at(flow, LEFT_LIP)).max() < 0.02


def test_a_brow_lowerer_moves_the_brows_down_and_together() -> None:
    flow = mean_flow(("AU4",))
    (left_u, left_v), (right_u, right_v) = at(flow, LEFT_EYE + BROW), at(flow, RIGHT_EYE + BROW)
    assert left_u > 0.2 and right_u < -0.2
    assert min(left_v, right_v) > 0.3


@pytest.mark.parametrize("name", UNIT_NAMES)
def test_the_right_side_of_a_unit_mirrors_its_left(name: str) -> None:
    left, right = mean_flow((name,), (1, 0)), mean_flow((name,), (0, 1))
    turned = right[..., ::-1] * (np.float32([1, 1]) if name == UNMIRRORED else np.float32([-1, 1]))[:, None, None]
    assert np.abs(left).max() > 0.1
    assert np.abs(turned - left).max() < 0.12 * np.abs(left).max()  # each patch has its own random place and strength


def test_one_sided_strength_moves_one_side() -> None:
    flow = mean_flow(("AU12",), (1, 0))
    assert at(flow, LEFT_LIP)[0] < -0.2 and np.abs(at(flow, RIGHT_LIP)).max() < 0.02


def test_a_face_that_shows_nothing_is_still() -> None:
    assert not mean_flow((), count=3).any()


def test_finished_maps_show_their_units(drawn: Simulated) -> None:
    """What is added to the units does not hide them: means over maps, relative to the mean map's median."""

    def shows(name: str, place: F32) -> tuple[F32, F32]:
        """(u, v) at a place on the left and at its mirror image."""
        mean = drawn.maps[drawn.units[:, UNIT_NAMES.index(name)] == 1].mean(0)
        mean -= np.median(mean, (1, 2), keepdims=True)
        column, row = np.rint(place).astype(int)
        return mean[:2, row, column], mean[:2, row, 27 - column]

    (left_u, left_v), (right_u, right_v) = shows("AU12", LEFT_LIP)
    assert left_u < -0.1 and right_u > 0.1 and max(left_v, right_v) < -0.1
    (_, left_v), (_, right_v) = shows("AU1", LEFT_EYE + BROW)
    assert max(left_v, right_v) < -0.1
    (left_u, left_v), (right_u, right_v) = shows("AU4", LEFT_EYE + BROW)
    assert left_u > 0.1 and right_u < -0.1 and min(left_v, right_v) > 0.1


def test_neither_side_of_the_picture_is_preferred(drawn: Simulated) -> None:
    for label in range(len(CLASSES)):
        mean = drawn.maps[drawn.labels == label].mean(0)
        assert np.abs(mean - mirrored(mean)).max() < 0.1, CLASSES[label]  # measured 0.06 at most with three seeds


def test_maps_are_made_as_live_analysis_makes_them() -> None:
    """Strain belongs to u and v: from the same flow come the same three channels."""
    flow = np.random.default_rng(2).normal(size=(4, 2, POINTS, POINTS)).cumsum(2).cumsum(3).astype(np.float32)
    ours = scaled(maps_of(torch.from_numpy(flow)), torch.zeros(4, 3, 28, 28)).numpy()
    assert np.allclose(ours, np.stack([whole_map(one) for one in flow]), atol=1e-5)


def test_flattening_takes_noise_and_leaves_an_edge() -> None:
    edge = torch.zeros(1, 2, POINTS, POINTS)
    edge[..., POINTS // 2 :] = 1
    noisy = edge + torch.from_numpy(np.random.default_rng(0).normal(0, 0.05, edge.shape)).float()
    flat = flattened(noisy, torch.full((1, 1, 1, 1), 0.1), steps=50)
    assert (flat - edge).std() < 0.5 * (noisy - edge).std()
    assert flat.mean() == pytest.approx(float(noisy.mean()), abs=1e-5)
    step = flat[..., POINTS // 2].mean() - flat[..., POINTS // 2 - 1].mean()
    assert step > 0.8


def test_faces_are_drawn_by_the_generator_alone() -> None:
    one, again = (faces(5, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(one[0], again[0]) and np.array_equal(one[1], again[1])
