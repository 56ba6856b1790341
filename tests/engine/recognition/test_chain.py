from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from engine.ops.backend import Chosen
from engine.ops.tvl1 import tvl1
from engine.recognition.chain import STEPS, chained_flow, joined, spread_out
from engine.recognition.likeness import ALIKE, like
from tests.faces import laugh, rise


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
