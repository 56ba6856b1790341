"""Varied network inputs for fitting, a whole batch at a time.

The differences of live flow from the published maps are varied: where the regions lie (common shift, zoom and turn, and each
keypoint on its own), how sharp the map is, what noise it holds, and where the extremes lie that scale it. A mirrored face
has its columns reversed and u -> 1 - u.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.geometry import INPUTS, MAP_SIDE, input_grid, linear_grid
from training.device import CPU
from training.recipe import AugmentSettings

_MIDDLE = (MAP_SIDE - 1) / 2
"""Of a map, each way, in cells."""


class Draws:
    """Random numbers for the maps of a batch, on a device; from PyTorch's default generator where none is given.

    Of several stacked batches, one after the other in a tensor's rows, each gets the same numbers: those of the first `width`
    rows of a batch of `batch`, so that they depend neither on how many are stacked nor on the width.
    """

    def __init__(
        self, generator: torch.Generator | None, device: torch.device = CPU, batch: int | None = None, width: int | None = None
    ) -> None:
        self.generator, self.device, self._batch, self._width = generator, device, batch, width

    def uniform(self, shape: Sequence[int], greatest: float = 1.0) -> Tensor:
        """Numbers in -greatest..greatest."""
        return (self.share(shape) * 2 - 1) * greatest

    def share(self, shape: Sequence[int]) -> Tensor:
        """Numbers in 0..1."""
        rows, copies = self._drawn(shape)
        return self._repeated(torch.rand(rows, generator=self.generator, device=self.device), copies)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Normal numbers of mean 0 and variance 1."""
        rows, copies = self._drawn(shape)
        return self._repeated(torch.randn(rows, generator=self.generator, device=self.device), copies)

    def _drawn(self, shape: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """The shape to draw, and for how many batches."""
        if self._batch is None or self._width is None:
            return tuple(shape), 1
        return (self._batch, *shape[1:]), shape[0] // self._width

    def _repeated(self, drawn: Tensor, copies: int) -> Tensor:
        return drawn if self._width is None else drawn[: self._width].repeat(copies, *(1 for _ in drawn.shape[1:]))


def inputs(kind: str, maps: Tensor, keypoints: Tensor, settings: AugmentSettings, draw: Draws) -> Tensor:
    """Whole maps [B, 3, 28, 28] and their keypoints [B, 5, 2] (map cells) -> varied inputs [B, 3, H, W] of the kind, one of
    `engine.geometry.INPUTS`."""
    grid = _grid(kind, keypoints, settings, draw)
    pieces = functional.grid_sample(
        _disturbed(maps, settings, draw), (grid + 0.5) * (2 / MAP_SIDE) - 1, padding_mode="border", align_corners=False
    )
    return _mirrored_half(pieces, draw) if settings.flip else pieces


def _grid(kind: str, keypoints: Tensor, settings: AugmentSettings, draw: Draws) -> Tensor:
    """Where the cells of each input are read, [B, H, W, 2] of (x, y) in map cells."""
    count = len(keypoints)
    moved = keypoints + draw.normal(keypoints.shape) * settings.jitter
    grid = _positions(kind, moved) + draw.uniform((count, 1, 1, 2), settings.shift)
    angle = draw.uniform((count, 1, 1), settings.turn * math.pi / 180)
    scale = 1 + draw.uniform((count, 1, 1), settings.zoom)
    x, y = grid[..., 0] - _MIDDLE, grid[..., 1] - _MIDDLE
    cos, sin = angle.cos() * scale, angle.sin() * scale
    return torch.stack((x * cos - y * sin, x * sin + y * cos), -1) + _MIDDLE


def _positions(kind: str, keypoints: Tensor) -> Tensor:
    """`engine.geometry.input_grid` of keypoints [B, 5, 2] on any device, [B, H, W, 2]."""
    if keypoints.device == CPU:
        return torch.tensor(input_grid(kind, np.asarray(keypoints.numpy(), np.float32)))
    return linear_positions(kind, keypoints)


def linear_positions(kind: str, keypoints: Tensor) -> Tensor:
    """`engine.geometry.input_grid`, which is linear in the keypoints, without numpy."""
    middle, slopes, limits = _slopes(kind, keypoints.device)
    kept = keypoints.clamp(*limits).flatten(1)
    moved = (kept.double() - _MIDDLE) @ slopes  # in float64, which no GPU shortens to TF32
    return (middle + moved).float().reshape(-1, *INPUTS[kind][1:], 2)


@lru_cache
def _slopes(kind: str, device: torch.device) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """`engine.geometry.linear_grid` on a device."""
    middle, slopes, limits = linear_grid(kind)
    return torch.from_numpy(middle).to(device), torch.from_numpy(slopes).to(device), limits


def _disturbed(maps: Tensor, settings: AugmentSettings, draw: Draws) -> Tensor:
    """Blur, noise, each channel back to 0..1, contrast."""
    count = len(maps)
    out = maps
    if settings.blur:
        kernel = (2 - torch.arange(-1.0, 2.0, device=maps.device).abs()) / 4  # 1, 2, 1
        weight = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
        share = draw.share((count, 1, 1, 1)) * settings.blur
        soft = functional.conv2d(functional.pad(maps, (1, 1, 1, 1), mode="replicate"), weight, groups=3)
        out = out + share * (soft - out)
    if settings.noise:
        amount = draw.share((count, 1, 1, 1)) * settings.noise
        out = out + draw.normal(out.shape) * amount
    if settings.smooth_noise:
        amount = draw.share((count, 1, 1, 1)) * settings.smooth_noise
        coarse = draw.normal((count, 3, MAP_SIDE // 4, MAP_SIDE // 4))
        out = out + functional.interpolate(coarse, size=(MAP_SIDE, MAP_SIDE), mode="bilinear", align_corners=False) * amount
    low, high = out.amin((2, 3), keepdim=True), out.amax((2, 3), keepdim=True)
    out = (out - low) / (high - low).clamp_min(1e-6)
    if settings.gain:
        middle = out.flatten(2).median(2).values[..., None, None]
        out = middle + (out - middle) * (1 + draw.uniform((count, 3, 1, 1), settings.gain))
    return out


def _mirrored_half(pieces: Tensor, draw: Draws) -> Tensor:
    """Mirror each input with probability one half."""
    chosen = draw.share((len(pieces),)) < 0.5
    turned = pieces.flip(3)
    turned = torch.cat((1 - turned[:, :1], turned[:, 1:]), 1)
    return torch.where(chosen[:, None, None, None], turned, pieces)
