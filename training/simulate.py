"""Flow maps simulated from action units: material to pre-train on that holds no recorded face.

A face's displacement is drawn on 56 x 56 points: the patches of the units it shows (`training.units`), eye movement and blinks,
what is left of head motion inside the face's outline, and smooth noise. It is then flattened by total variation, as TV-L1
flow is; strain is taken of it; the three channels are averaged over cells of 28 x 28 and scaled to 0..1 each, as the published
maps are. Everything else that real maps differ in is drawn at random around it: the face's shape, how strong and how one-sided
a unit is, where its patches lie and how sharply they end, and a warp of the whole.

Lengths are cells of the 28 x 28 map, x and u to the right, y and v down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import ConfigError
from engine.geometry import CANONICAL_KEYPOINTS, MAP_SIDE
from engine.types import F32, F64
from training.datasets import CLASSES
from training.units import CLEAR, UNIT_NAMES, Patch, lying, shown

__all__ = ["UNIT_NAMES", "Simulated", "simulate"]

FINE = 2
"""Points of the displacement a cell, along each side."""

POINTS = MAP_SIDE * FINE
MIDDLE = (MAP_SIDE - 1) / 2

_CHUNK = 32
"""Maps computed at a time: few enough that their fields stay in a core's cache."""


@dataclass(frozen=True, eq=False)
class Simulated:
    """N simulated maps.

    maps [N, 3, 28, 28] float32 (u, v, strain) in 0..1; keypoints [N, 5, 2] float32, (x, y) in map cells; labels [N] of CLASSES;
    units [N, len(UNIT_NAMES)] float32, 1 where the action unit is clearly shown on either side of the face, else 0.
    """

    maps: F32
    keypoints: F32
    labels: npt.NDArray[np.int64]
    units: F32

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, which: slice) -> Simulated:
        """A stretch of the maps, sharing their memory."""
        return Simulated(self.maps[which], self.keypoints[which], self.labels[which], self.units[which])


def simulate(count: int, seed: int, *, batch: int = 1000) -> Simulated:
    """Draw maps, each class equally likely; the same count, seed and batch give the same maps.

    With another number of torch threads they agree to float32's rounding. A shorter run whose count is a multiple of batch is
    the beginning of a longer one. Raises ConfigError for a count or batch under 1.
    """
    if min(count, batch) < 1:
        raise ConfigError(f"one map or more can be simulated, in batches of one or more; {count} in batches of {batch} came")
    draw = np.random.default_rng(seed)
    maps, keypoints = np.empty((count, 3, MAP_SIDE, MAP_SIDE), np.float32), np.empty((count, 5, 2), np.float32)
    whole = Simulated(maps, keypoints, np.empty(count, np.int64), np.empty((count, len(UNIT_NAMES)), np.float32))
    for start in range(0, count, batch):
        _fill(whole.part(slice(start, start + batch)), draw)
    return whole


def _fill(out: Simulated, draw: np.random.Generator) -> None:
    """Draw a batch of maps into out."""
    count = len(out)
    out.labels[:] = draw.integers(0, len(CLASSES), count)
    out.keypoints[:], size = faces(count, draw)
    strengths = shown(out.labels, draw)
    out.units[:] = np.abs(strengths).max(1) > CLEAR
    warps = [_knots(7, (0.3, 1.1), count, draw), _knots(18, (0.1, 0.6), count, draw)]
    pieces = patches(out.keypoints, size * np.exp(draw.normal(0.05, 0.18, (count, 1))), strengths, draw)
    scene = _scene(out.keypoints, draw)
    grain = _grain(count, draw)
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        x, y = _positions([warp[part] for warp in warps])
        flow = displacement(pieces[part], x, y)
        flow = flattened(*_beheld(flow, x, y, _Scene(*(values[part] for values in scene))))
        out.maps[part] = scaled(maps_of(flow), grain[part]).numpy()


def faces(count: int, draw: np.random.Generator) -> tuple[F32, F64]:
    """Keypoints [n, 5, 2], and the size [n, 2] of each face along x and y relative to the published maps' mean."""
    size = np.exp(draw.normal(0, (0.04, 0.05), (count, 2)))
    points = (CANONICAL_KEYPOINTS - MIDDLE) * size[:, None] + draw.normal(0, (0.4, 0.7), (count, 1, 2))
    turn = draw.normal(0, 0.035, (count, 1))
    x, y = points[..., 0], points[..., 1]
    points = np.stack((x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)), -1) + MIDDLE
    points[:, :2, 1] += draw.normal(0, 0.7, (count, 1))  # faces differ most in how far the eyes are from the mouth
    return (points + draw.normal(0, 0.35, points.shape)).astype(np.float32), size


class Placed(NamedTuple):
    """k patches as they lie in one face: of a point (x, y), near [2k, 3] @ (x, y, 1) are its k first and k second coordinates
    along the patches' axes in half widths; power [k, 1] says how sharply each ends; move [2, k] is its displacement (u, v)."""

    near: Tensor
    power: Tensor
    move: Tensor


def patches(keypoints: F32, size: F64, strengths: F64, draw: np.random.Generator) -> list[Placed]:
    """The patches of faces with keypoints [n, 5, 2], relative size [n, 2] and strengths [n, 2, units], face by face."""
    owners, rows = [np.empty(0, np.intp)], [np.empty((0, 9))]
    for index, name in enumerate(UNIT_NAMES):
        for patch, side in lying(name):
            amount = strengths[:, :, index].mean(1) if side is None else strengths[:, side, index]
            some = np.flatnonzero(amount)
            if len(some):
                at = keypoints[:, _anchor(patch, side)][some].mean(1)
                owners.append(some)
                rows.append(_placed(patch, at, size[some], amount[some], draw))
    owner, row = np.concatenate(owners), np.concatenate(rows).astype(np.float32)
    order = np.argsort(owner, kind="stable")
    each = torch.split(torch.from_numpy(row[order]), np.bincount(owner, minlength=len(keypoints)).tolist())
    return [Placed(torch.cat((r[:, :3], r[:, 3:6])), r[:, 6:7], r[:, 7:].T) for r in each]


def _anchor(patch: Patch, side: int | None) -> list[int]:
    """The keypoints whose middle a patch is placed by."""
    places = {"eye": [0, 1], "nose": [2, 2], "lip": [3, 4], "eyes": [0, 1], "mouth": [3, 4]}[patch.anchor]
    return places if side is None else places[side : side + 1]


def _placed(patch: Patch, at: F32, size: F64, amount: F64, draw: np.random.Generator) -> F64:
    """One patch in n faces with its anchor at [n, 2], as [n, 9]: both rows of `Placed.near`, its power, and its move."""
    count = len(at)
    x, y = (at + np.array((patch.dx, patch.dy)) * size + draw.normal(0, 0.45, (count, 2))).T
    half_x, half_y = (np.array((patch.half_x, patch.half_y)) * size * np.exp(draw.normal(0, 0.25, (count, 2)))).T
    way = np.array((patch.u, patch.v))
    move = (way + draw.normal(0, 0.15, (count, 2)) * np.hypot(*way)) * amount[:, None]
    power = draw.uniform(1.1, 4.0, count)
    turn = draw.normal(0, 0.25, count)
    cos, sin = np.cos(turn), np.sin(turn)
    across = (cos / half_x, sin / half_x, -(x * cos + y * sin) / half_x)
    down = (-sin / half_y, cos / half_y, (x * sin - y * cos) / half_y)
    return np.column_stack((*across, *down, power, move))


@cache
def _spread(knots: int) -> Tensor:
    """[POINTS, knots], what each point takes of each knot: bicubic interpolation along one side."""
    return functional.interpolate(torch.eye(knots)[None, None], size=(POINTS, knots), mode="bicubic", align_corners=False)[0, 0]


def _smooth(knots: Tensor) -> Tensor:
    """Knots [..., k, k] -> a smooth field through them, [..., POINTS, POINTS]."""
    along = _spread(knots.shape[-1])
    return along @ knots @ along.T


def _normal(shape: tuple[int, ...], draw: np.random.Generator) -> Tensor:
    return torch.from_numpy(draw.standard_normal(shape, np.float32))


def _column(values: F64) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(-1, 1, 1, 1)


def _knots(side: int, amount: tuple[float, float], count: int, draw: np.random.Generator) -> Tensor:
    """Normal knots [n, 2, side, side], those of a map all scaled by one amount between the two."""
    return _normal((count, 2, side, side), draw) * _column(draw.uniform(*amount, count))


def _positions(warps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """x and y of each point, [n, POINTS, POINTS], warped: no two faces' patches have the same shape."""
    line = (torch.arange(POINTS, dtype=torch.float32) + 0.5) / FINE - 0.5
    warp = sum((_smooth(knots) for knots in warps), torch.zeros(()))
    return line + warp[:, 0], line[:, None] + warp[:, 1]


def displacement(pieces: list[Placed], x: Tensor, y: Tensor) -> Tensor:
    """(u, v) of faces with these patches at points x, y [n, POINTS, POINTS] -> [n, 2, POINTS, POINTS]."""
    flow = torch.empty((len(pieces), 2, POINTS * POINTS))
    for placed, out, points in zip(pieces, flow, torch.stack((x, y, torch.ones_like(x)), 1).flatten(2), strict=True):
        near = (placed.near @ points).square_()
        far = near[: len(near) // 2].add_(near[len(near) // 2 :]).clamp_min_(1e-6).pow_(placed.power)
        # Cut off where a patch moves nothing: numbers too small for float32's normal form are slow to compute with.
        torch.mm(placed.move, far.mul_(-0.7).clamp_min_(-60).exp_(), out=out)
    return flow.view(-1, 2, POINTS, POINTS)


class _Scene(NamedTuple):
    """What moves beside the units, each [n, ...]: the face's outline, head motion, noise, and how much is flattened."""

    outline: Tensor  # [n, 4, 1, 1]: middle x, y and half widths x, y of the ellipse; above its middle the face goes on
    head: Tensor  # [n, 2, 3, 1, 1]: (u, v) as a linear function of (1, x, y) from the map's middle
    coarse: Tensor  # knots of noise; these grow towards the hair
    middle: Tensor
    fine: Tensor
    hair: Tensor  # how much stronger noise is at the upper edge
    flatten: Tensor  # weight, of the greatest displacement


def _scene(keypoints: F32, draw: np.random.Generator) -> _Scene:
    count = len(keypoints)
    amount = np.exp(draw.normal(-1.7, 0.9, count))
    x, y = keypoints[:, 2, 0] + draw.normal(0, 0.5, count), keypoints[:, 2, 1] - 4
    outline = np.stack((x, y, draw.uniform(13.5, 19, count), draw.uniform(15.5, 22, count)), 1).astype(np.float32)
    shift, linear = draw.standard_normal((2, count)), draw.standard_normal((2, 2, count)) * 0.03
    head = np.concatenate((shift[:, None], linear), 1) * amount
    noise = _column(np.exp(draw.normal(-2.2, 0.7, count)))
    hair = _column((draw.random(count) < 0.25) * draw.uniform(0, 4, count))
    coarse, middle, fine = (_normal((count, 2, k, k), draw) * (noise * a) for k, a in ((6, 1.0), (14, 0.7), (MAP_SIDE, 0.5)))
    flatten = _column(draw.uniform(0.03, 0.12, count))
    motion = torch.from_numpy(head.astype(np.float32)).permute(2, 0, 1)[..., None, None]
    return _Scene(torch.from_numpy(outline)[..., None, None], motion, coarse, middle, fine, hair, flatten)


def _beheld(flow: Tensor, x: Tensor, y: Tensor, scene: _Scene) -> tuple[Tensor, Tensor]:
    """Flow [n, 2, POINTS, POINTS] as a camera sees it, and the weight [n, 1, 1, 1] it is flattened with."""
    middle_x, middle_y, half_x, half_y = scene.outline.unbind(1)
    out = ((x - middle_x) / half_x) ** 2 + ((y - middle_y) / half_y).clamp_min(0) ** 2
    inside = torch.sigmoid((1 - out) * 12)[:, None]
    still, across, down = scene.head.unbind(2)
    head = still + across * (x - MIDDLE)[:, None] + down * (y - MIDDLE)[:, None]
    edge = 1 + scene.hair * torch.sigmoid((2.5 - y) * 2)[:, None]
    seen = (flow + head) * inside + (_smooth(scene.coarse) + _smooth(scene.middle)) * edge + _smooth(scene.fine)
    return seen, scene.flatten * seen.abs().amax((1, 2, 3), keepdim=True)


def flattened(flow: Tensor, weight: Tensor, steps: int = 12) -> Tensor:
    """Denoise by total variation, each component of flow [n, 2, H, W] on its own; weight [n, 1, 1, 1] in units of the flow.

    Source: Chambolle, "An algorithm for total variation minimization and applications", JMIV 2004. A few steps do: TV-L1 too
    stops early.
    """
    scaled = flow / weight
    px, py, gx, gy = (torch.zeros_like(flow) for _ in range(4))
    for _ in range(steps):
        z = _divergence(px, py).sub_(scaled)
        torch.sub(z[..., 1:], z[..., :-1], out=gx[..., :-1])
        torch.sub(z[..., 1:, :], z[..., :-1, :], out=gy[..., :-1, :])
        scale = (gx * gx).addcmul_(gy, gy).sqrt_().mul_(0.25).add_(1)
        px.add_(gx, alpha=0.25).div_(scale)
        py.add_(gy, alpha=0.25).div_(scale)
    return flow - weight * _divergence(px, py)


def _divergence(px: Tensor, py: Tensor) -> Tensor:
    """Of the dual field, by backward differences: minus the adjoint of the forward ones."""
    out = px + py
    out[..., 1:] -= px[..., :-1]
    out[..., 1:, :] -= py[..., :-1, :]
    return out


def maps_of(flow: Tensor) -> Tensor:
    """Flow [n, 2, POINTS, POINTS] -> (u, v, strain) averaged over each cell, [n, 3, 28, 28]; strain as `engine.ops.strain`."""
    (uy, ux), (vy, vx) = (torch.gradient(flow[:, channel], dim=(1, 2)) for channel in (0, 1))
    strain = torch.sqrt(ux**2 + vy**2 + 0.5 * (uy + vx) ** 2)
    return functional.avg_pool2d(torch.cat((flow, strain[:, None]), 1), FINE)


def _grain(count: int, draw: np.random.Generator) -> Tensor:
    """White noise [n, 3, 28, 28], in standard deviations of its channel."""
    amount = _column(draw.uniform(0, 0.036, count))
    return amount * _normal((count, 3, MAP_SIDE, MAP_SIDE), draw)


def scaled(maps: Tensor, grain: Tensor) -> Tensor:
    """Maps with their grain, each channel scaled to 0..1."""
    maps = maps + grain * maps.std((2, 3), keepdim=True)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-9)
