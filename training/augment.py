"""Varied network inputs for fitting, a whole batch at a time.

What live flow differs in from the published maps is varied: where the regions lie (common shift, zoom and turn, and each
keypoint on its own), how sharp the map is, what noise it holds, and where the extremes lie that scale it. A mirrored face
has its columns reversed and u -> 1 - u.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.geometry import MAP_SIDE, input_grid
from training.recipe import AugmentSettings


def inputs(kind: str, maps: Tensor, keypoints: Tensor, settings: AugmentSettings, draw: torch.Generator) -> Tensor:
    """Whole maps [B, 3, 28, 28] and their keypoints [B, 5, 2] (map cells) -> varied inputs [B, 3, H, W] of the kind, one of
    `engine.geometry.INPUTS`."""
    grid = _grid(kind, keypoints, settings, draw)
    pieces = functional.grid_sample(
        _disturbed(maps, settings, draw), (grid + 0.5) * (2 / MAP_SIDE) - 1, padding_mode="border", align_corners=False
    )
    return _mirrored_half(pieces, draw) if settings.flip else pieces


def _uniform(shape: tuple[int, ...], greatest: float, draw: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=draw) * 2 - 1) * greatest


def _grid(kind: str, keypoints: Tensor, settings: AugmentSettings, draw: torch.Generator) -> Tensor:
    """Where the cells of each input are read, [B, H, W, 2] of (x, y) in map cells."""
    count = len(keypoints)
    moved = keypoints + torch.randn(keypoints.shape, generator=draw) * settings.jitter
    grid = torch.tensor(input_grid(kind, np.asarray(moved.numpy(), np.float32)))
    grid = grid + _uniform((count, 1, 1, 2), settings.shift, draw)
    angle = _uniform((count, 1, 1), settings.turn * math.pi / 180, draw)
    scale = 1 + _uniform((count, 1, 1), settings.zoom, draw)
    centre = (MAP_SIDE - 1) / 2
    x, y = grid[..., 0] - centre, grid[..., 1] - centre
    cos, sin = angle.cos() * scale, angle.sin() * scale
    return torch.stack((x * cos - y * sin, x * sin + y * cos), -1) + centre


def _disturbed(maps: Tensor, settings: AugmentSettings, draw: torch.Generator) -> Tensor:
    """Blur, noise, each channel back to 0..1, contrast."""
    count = len(maps)
    out = maps
    if settings.blur:
        kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
        weight = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
        share = torch.rand((count, 1, 1, 1), generator=draw) * settings.blur
        soft = functional.conv2d(functional.pad(maps, (1, 1, 1, 1), mode="replicate"), weight, groups=3)
        out = out + share * (soft - out)
    if settings.noise:
        amount = torch.rand((count, 1, 1, 1), generator=draw) * settings.noise
        out = out + torch.randn(out.shape, generator=draw) * amount
    if settings.smooth_noise:
        amount = torch.rand((count, 1, 1, 1), generator=draw) * settings.smooth_noise
        coarse = torch.randn((count, 3, MAP_SIDE // 4, MAP_SIDE // 4), generator=draw)
        out = out + functional.interpolate(coarse, size=(MAP_SIDE, MAP_SIDE), mode="bilinear", align_corners=False) * amount
    low, high = out.amin((2, 3), keepdim=True), out.amax((2, 3), keepdim=True)
    out = (out - low) / (high - low).clamp_min(1e-6)
    if settings.gain:
        middle = out.flatten(2).median(2).values[..., None, None]
        out = middle + (out - middle) * (1 + _uniform((count, 3, 1, 1), settings.gain, draw))
    return out


def _mirrored_half(pieces: Tensor, draw: torch.Generator) -> Tensor:
    """Mirror each input with probability one half."""
    chosen = torch.rand(len(pieces), generator=draw) < 0.5
    turned = pieces.flip(3)
    turned = torch.cat((1 - turned[:, :1], turned[:, 1:]), 1)
    return torch.where(chosen[:, None, None, None], turned, pieces)
