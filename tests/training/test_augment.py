from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.geometry import CANONICAL_KEYPOINTS, INPUTS
from engine.recognition.flowmap import mirrored, network_input
from training import augment
from training.recipe import AugmentSettings

STILL = AugmentSettings(flip=False)


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    maps = draw.random((count, 3, 28, 28), np.float32)
    low, high = maps.min((2, 3), keepdims=True), maps.max((2, 3), keepdims=True)
    keypoints = CANONICAL_KEYPOINTS + draw.normal(0, 0.4, (count, 5, 2)).astype(np.float32)
    return torch.from_numpy((maps - low) / (high - low)), torch.from_numpy(keypoints.astype(np.float32))


def draw(seed: int = 1) -> augment.Draws:
    return augment.Draws(torch.Generator().manual_seed(seed))


def composites(
    maps: torch.Tensor, keypoints: torch.Tensor, settings: AugmentSettings, drawn: augment.Draws, kind: str = "five-regions"
) -> torch.Tensor:
    return augment.inputs(kind, maps, keypoints, settings, drawn)


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.filterwarnings("error")
def test_without_variation_an_input_is_what_live_analysis_makes(kind: str) -> None:
    maps, keypoints = batch()
    expected = np.stack([network_input(kind, m, k) for m, k in zip(maps.numpy(), keypoints.numpy(), strict=True)])
    assert np.allclose(composites(maps, keypoints, STILL, draw(), kind).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["five-regions", "whole", "aligned-and-regions"])
def test_a_flip_negates_u_and_mirrors_the_face(kind: str) -> None:
    maps, keypoints = batch(16)
    plain = composites(maps, keypoints, STILL, draw(), kind).numpy()
    varied = composites(maps, keypoints, AugmentSettings(flip=True), draw(), kind).numpy()
    same = [np.allclose(v, p, atol=1e-5) for v, p in zip(varied, plain, strict=True)]
    turned = [np.allclose(v, mirrored(p), atol=1e-5) for v, p in zip(varied, plain, strict=True)]
    assert all(s != t for s, t in zip(same, turned, strict=True)) and any(same) and any(turned)


@pytest.mark.parametrize(
    "setting",
    [
        {"shift": 2.0},
        {"jitter": 0.5},
        {"zoom": 0.1},
        {"turn": 5.0},
        {"gain": 0.2},
        {"noise": 0.05},
        {"smooth_noise": 0.05},
        {"blur": 1.0},
    ],
)
def test_each_variation_changes_maps_a_little_and_by_the_seed_alone(setting: dict[str, float]) -> None:
    maps, keypoints = batch()
    before = maps.clone()
    smooth = torch.nn.functional.avg_pool2d(maps, 5, 1, 2, count_include_pad=False)
    settings = AugmentSettings(flip=False, **setting)
    plain = composites(smooth, keypoints, STILL, draw())
    one, again = (composites(smooth, keypoints, settings, draw(3)) for _ in range(2))
    assert torch.equal(one, again) and torch.equal(maps, before)
    change = (one - plain).abs().mean()
    assert 1e-4 < change < 0.2


def test_a_shift_moves_all_regions_alike() -> None:
    ramp = torch.arange(28.0).expand(1, 3, 28, 28) / 27
    keypoints = torch.from_numpy(CANONICAL_KEYPOINTS)[None]
    settings = AugmentSettings(flip=False, shift=1.0)
    moved = composites(ramp, keypoints, settings, draw(2)) - composites(ramp, keypoints, STILL, draw(2))
    inside = moved[0, 0, 16:, 2:26]
    assert inside.std() < 1e-4 and 0 < inside.abs().mean() <= 1 / 27 + 1e-4


def test_of_a_whole_map_keypoints_change_nothing() -> None:
    maps, keypoints = batch()
    jittered = AugmentSettings(flip=False, jitter=2.0)
    assert torch.equal(
        composites(maps, keypoints, STILL, draw(), "whole"), composites(maps, keypoints, jittered, draw(), "whole")
    )


def test_disturbed_maps_span_zero_to_one_again() -> None:
    maps, _ = batch()
    centred = torch.from_numpy(np.stack([CANONICAL_KEYPOINTS] * 4))
    out = composites(maps, centred, AugmentSettings(flip=False, blur=1.0, noise=0.1), draw())
    assert out.min() >= -1e-5 and out.max() <= 1 + 1e-5
