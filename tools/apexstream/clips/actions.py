"""Facial actions as displacement fields on a grid over the face, in two families of warps.

warp-a pushes with Gaussian windows around a few points; warp-b moves many points of the face, holds others, and spans a thin
plate between them. Both give F [H, W, 2], scaled so that the largest displacement is exactly 1: where the picture content at
q lies on the face in motion, the renderer reads the texture at q - amplitude * F(q).

Directions are in the face's axes (outward from the midline, up) and follow the Facial Action Coding System's description of
AU1+2 (brow_raise), AU4 (brow_lower), AU6+12 (smile), AU9+10 (nose_wrinkle) and AU15+17 (lip_depress).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apexstream.clips.portrait import Portrait
from apexstream.clips.spec import Action, Renderer
from engine.types import F32, F64

GRID_STEP = 4.0
"""Spacing of the grid in texture pixels."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid over the face: node (i, j) lies at origin + GRID_STEP * (j, i) of the texture."""

    origin: F64
    nodes: F64


@dataclass(frozen=True)
class Push:
    """A point named in the portrait ("brow_r:2" is its third point), moved (outward, up), with a window's half widths across,
    above and below in eye distances (warp-a)."""

    point: str
    outward: float
    up: float
    across: float
    above: float
    below: float


def both(point: str, *numbers: float) -> tuple[Push, Push]:
    """The push of a point of the right side and of its twin; numbers are a Push's after its point."""
    name, _, index = point.partition(":")
    tail = f":{index}" if index else ""
    return Push(f"{name}_r{tail}", *numbers), Push(f"{name}_l{tail}", *numbers)


PUSHES: dict[Action, tuple[Push, ...]] = {
    "brow_raise": (
        *both("brow:0", 0.05, 0.8, 0.14, 0.14, 0.11),
        *both("brow:2", 0.0, 1.0, 0.15, 0.16, 0.11),
        *both("brow:4", 0.0, 0.85, 0.14, 0.16, 0.11),
        *both("upper_lid", 0.0, 0.15, 0.12, 0.05, 0.04),
    ),
    "brow_lower": (
        *both("brow:4", -0.5, -0.85, 0.15, 0.15, 0.11),
        *both("brow:2", -0.25, -0.7, 0.14, 0.14, 0.10),
        *both("brow:0", 0.0, -0.25, 0.12, 0.12, 0.09),
    ),
    "smile": (
        *both("mouth", 0.75, 0.7, 0.20, 0.22, 0.15),
        *both("cheek", 0.1, 0.5, 0.21, 0.12, 0.22),
        *both("lower_lid", 0.0, 0.12, 0.14, 0.05, 0.07),
    ),
    "nose_wrinkle": (
        *both("nose", 0.08, 1.0, 0.14, 0.16, 0.12),
        Push("lip_up", 0.0, 0.75, 0.22, 0.12, 0.06),
        *both("brow:4", -0.15, -0.4, 0.11, 0.10, 0.10),
    ),
    "lip_depress": (
        *both("mouth", 0.12, -1.0, 0.17, 0.12, 0.18),
        Push("chin", 0.0, 0.45, 0.24, 0.13, 0.12),
        Push("lip_low", 0.0, 0.15, 0.16, 0.06, 0.08),
    ),
}
LID_DROP: tuple[Push, ...] = (
    *both("brow:2", 0.0, -0.25, 0.22, 0.14, 0.10),
    *both("upper_lid", 0.0, -1.0, 0.13, 0.06, 0.04),
    *both("lower_lid", -0.1, 0.25, 0.13, 0.04, 0.06),
)
"""What moves around the eyes in a blink; brows follow the lids a little."""


def grid_over(face: Portrait) -> Grid:
    """The grid that covers the face from the hair to the neck."""
    half = np.array([1.55, 1.9]) * face.eye_distance
    origin = np.floor(face.centre - half)
    cols, rows = (np.ceil(2 * half / GRID_STEP) + 1).astype(int)
    xs, ys = origin[0] + GRID_STEP * np.arange(cols), origin[1] + GRID_STEP * np.arange(rows)
    return Grid(origin, np.stack(np.meshgrid(xs, ys), axis=-1))


def place(face: Portrait, name: str) -> F64:
    """(x, y) of a point by name; upper_lid and lower_lid are the middles of the lids."""
    key, _, index = name.partition(":")
    if key.startswith(("upper_lid", "lower_lid")):
        key, index = f"lid_{key[-1]}_{'up' if key.startswith('upper') else 'low'}", "2"
    return np.asarray(face.points[key][int(index or 0)])


def field(face: Portrait, grid: Grid, action: Action, family: Renderer, rng: np.random.Generator) -> F32:
    """F [H, W, 2] of one event: the action with its own proportions and a slight asymmetry drawn from rng."""
    pushes = varied(PUSHES[action], rng)
    raw = windows(face, grid, pushes) if family == "warp-a" else _plate(face, grid, pushes, rng)
    return unit(raw * _inside(face, grid))


def varied(pushes: tuple[Push, ...], rng: np.random.Generator) -> tuple[Push, ...]:
    """The pushes with proportions and a slight asymmetry drawn from rng."""
    difference = float(rng.uniform(-0.15, 0.15))
    right, left = 1 + difference, 1 - difference
    return tuple(_vary(p, left if p.point.split(":")[0].endswith("_l") else right, rng) for p in pushes)


def lid_drop(face: Portrait, grid: Grid) -> F32:
    """F [H, W, 2] of the skin around closing eyes."""
    return unit(windows(face, grid, LID_DROP))


def unit(raw: F64) -> F32:
    """A field scaled so that its largest displacement is 1."""
    return np.asarray(raw / np.linalg.norm(raw, axis=-1).max(), np.float32)


def _vary(push: Push, strength: float, rng: np.random.Generator) -> Push:
    turn = np.deg2rad(rng.normal(0, 7))
    out, up = push.outward, push.up
    gain = strength * float(np.exp(rng.normal(0, 0.1)))
    outward = gain * float(out * np.cos(turn) - up * np.sin(turn))
    upward = gain * float(out * np.sin(turn) + up * np.cos(turn))
    sizes = np.array([push.across, push.above, push.below]) * np.exp(rng.normal(0, 0.1, 3))
    return Push(push.point, outward, upward, *map(float, sizes))


def direction(face: Portrait, push: Push) -> F64:
    """(x, y) of a push's displacement in the texture."""
    name = push.point.split(":")[0]
    outward = -1.0 if name.endswith("_r") else 1.0
    return np.asarray(push.outward * outward * face.across - push.up * face.down)


def windows(face: Portrait, grid: Grid, pushes: tuple[Push, ...]) -> F64:
    """[H, W, 2] pushes under Gaussian windows; where these overlap, the mean of the pushes (no doubling) under their union."""
    total = np.zeros(grid.nodes.shape)
    weight = np.full(grid.nodes.shape[:2], 1e-9)
    rest = np.ones(grid.nodes.shape[:2])
    for push in pushes:
        d = (grid.nodes - place(face, push.point)) / face.eye_distance
        u, v = d @ face.across, d @ face.down
        w = np.exp(-0.5 * ((u / push.across) ** 2 + (v / np.where(v < 0, push.above, push.below)) ** 2))
        total += (w * w)[..., None] * direction(face, push)
        weight += w * w
        rest *= 1 - w
    return np.asarray(total / weight[..., None] * (1 - rest)[..., None])


_HELD = (
    *("bridge", "side_r", "side_l", "jaw_r", "jaw_l", "top", "temple_r", "temple_l"),
    *("nose_tip", "nose_r", "nose_l", "lip_up", "lip_low", "chin", "mouth_r", "mouth_l", "cheek_r", "cheek_l"),
)


def _plate(face: Portrait, grid: Grid, pushes: tuple[Push, ...], rng: np.random.Generator) -> F64:
    """Thin-plate spline through moved and held points (Bookstein 1989), fading with the distance from what is moved."""
    sites, moves = [], []
    for push in pushes:
        sites.append(place(face, push.point))
        moves.append(direction(face, push))
        if push.point.startswith("brow"):
            sites.append(sites[-1] - (0.2 + rng.uniform(-0.03, 0.03)) * face.eye_distance * face.down)
            moves.append(0.45 * moves[-1])
    moved = np.array(sites)
    for point in _held(face):
        if np.linalg.norm(point - moved, axis=-1).min() > 0.16 * face.eye_distance:
            sites.append(point)
            moves.append(np.zeros(2))
    plate = _thin_plate(np.array(sites) / face.eye_distance, np.array(moves), grid.nodes / face.eye_distance)
    nearest = np.linalg.norm(grid.nodes[..., None, :] - moved, axis=-1).min(axis=-1) / face.eye_distance
    return np.asarray(plate * np.exp(-((nearest / 0.36) ** 4))[..., None])


def _held(face: Portrait) -> list[F64]:
    """Points that stay where they are unless an action moves them."""
    points = [face.points[name][0] for name in _HELD]
    points += [face.points[name].mean(axis=0) for name in ("brow_r", "brow_l")]
    points += [face.points[f"lid_{s}_{e}"][k] for s in "rl" for e in ("up", "low") for k in (0, 2, 4)]
    bridge, tip = face.points["bridge"][0], face.points["nose_tip"][0]
    points += [bridge + part * (tip - bridge) for part in (1 / 3, 2 / 3)]
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.outer(1.15 * np.cos(turns), face.across) + np.outer(1.35 * np.sin(turns), face.down)
    return [*points, *(face.centre + face.eye_distance * ring)]


def _inside(face: Portrait, grid: Grid) -> F64:
    """[H, W, 1] weight that fades to nothing at the outline of the face."""
    u, v = face.axes(grid.nodes)
    x = 1 - np.clip((np.hypot(u / 1.15, v / 1.35) - 0.7) / 0.3, 0, 1)
    return np.asarray((x * x * (3 - 2 * x))[..., None])


def _thin_plate(sites: F64, values: F64, at: F64) -> F64:
    """Interpolate values [n, 2] given at sites [n, 2] at points [..., 2] with U(r) = r^2 log r, lightly smoothed."""
    n = len(sites)

    def kernel(a: F64, b: F64) -> F64:
        r2 = ((a[..., None, :] - b) ** 2).sum(axis=-1)
        return np.asarray(0.5 * r2 * np.log(r2 + 1e-12))

    affine = np.column_stack([np.ones(n), sites])
    top = np.column_stack([kernel(sites, sites) + 1e-3 * np.eye(n), affine])
    system = np.vstack([top, np.column_stack([affine.T, np.zeros((3, 3))])])
    solution = np.linalg.solve(system, np.vstack([values, np.zeros((3, 2))]))
    return np.asarray(kernel(at, sites) @ solution[:n] + solution[n] + at @ solution[n + 1 :])
