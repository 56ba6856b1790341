"""Pairs of pictures with motion between them: faces where their photographs can be read, else smooth noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.errors import ApexError
from engine.geometry import CROP_SIDE
from engine.mesh import MESH_POINTS
from engine.ops.tvl1 import reference
from engine.types import F32

AMPLITUDES = (0.3, 1.2, 2.0, 3.5, 6.0)
"""Pixels of the longest motion."""
NOISES = (0.0, 1.0, 4.0, 2.0)
"""Grey levels of white noise on both pictures, standard deviation."""
DISTINCT = 15
"""Pairs that are rendered; further ones are these, turned around by some rows."""
SMOOTH = 2.0
"""Pixels of the Gaussian that makes noise smooth."""

Field = Callable[[F32, F32], tuple[F32, F32]]


def shift(x: F32, y: F32) -> tuple[F32, F32]:
    """Everything moves alike; x and y in -1..1."""
    return np.full_like(x, 0.8), np.full_like(y, -0.6)


def bump(x: F32, y: F32) -> tuple[F32, F32]:
    """Smooth: something above the middle rises."""
    return 0 * x, -np.exp(-(x**2 + (y + 0.3) ** 2) / 0.08)


def patch(x: F32, y: F32) -> tuple[F32, F32]:
    """Sharp: an oval slides as one piece over what stays."""
    inside = ((x + 0.2) ** 2 + (1.3 * y) ** 2 < 0.1).astype(np.float32)
    return 0.8 * inside, -0.6 * inside


FIELDS: tuple[Field, ...] = (shift, bump, patch)


def moved_pairs(count: int, side: int, seed: int = 0) -> tuple[F32, F32]:
    """count pictures [side, side] of float32 grey levels 0..255, and the same moved: fixed and moving [count, side, side]."""
    rng, scenes = np.random.default_rng(seed), _scenes(side, seed)
    rendered = [_pair(scenes[k % len(scenes)], k, rng) for k in range(min(count, DISTINCT))]
    turned = [np.roll(rendered[k % len(rendered)], 5 * (k // len(rendered)), axis=1) for k in range(count)]
    fixed, moving = np.ascontiguousarray(np.asarray(turned, np.float32).transpose(1, 0, 2, 3))
    return fixed, moving


def _pair(scene: F32, number: int, rng: np.random.Generator) -> F32:
    """[2, H, W]: fixed and moving, by the field, amplitude and noise of that number."""
    height, width = scene.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    u, v = FIELDS[number % len(FIELDS)](2 * x / max(1, width - 1) - 1, 2 * y / max(1, height - 1) - 1)
    length = AMPLITUDES[number // len(FIELDS) % len(AMPLITUDES)] / max(float(np.hypot(u, v).max()), 1e-6)
    both = np.stack([reference.sample(scene, x + length * u, y + length * v), scene])
    noise = rng.normal(0, NOISES[number % len(NOISES)], both.shape)
    return np.asarray(np.clip(np.rint(both + noise), 0, 255), np.float32)


def _scenes(side: int, seed: int) -> list[F32]:
    try:
        from apexstream.clips.portrait import photograph

        whole = [photograph(name, grey=True) for name in ("astronaut", "hopper")]
    except (ImportError, ApexError):
        return [smooth_noise(side, seed + k) for k in range(2)]
    faces = (whole[0][65:185, 163:283], whole[1][110:375, 135:400])
    return [reference.resize(face.astype(np.float32), (side, side)) for face in faces]


def smooth_noise(side: int, seed: int) -> F32:
    """[side, side], 0..255."""
    rough = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    smooth = reference.smooth(rough, SMOOTH)
    spread = max(float(np.ptp(smooth)), 1e-6)
    return np.asarray(255 * (smooth - smooth.min()) / spread, np.float32)


def scattered_meshes(count: int, seed: int = 0) -> F32:
    """[count, 478, 3]: points scattered over a crop as a mesh's are, a few outside; depth like a face's; in pixels."""
    points = np.random.default_rng(seed).normal(CROP_SIDE / 2, CROP_SIDE / 4, (count, MESH_POINTS, 3)).astype(np.float32)
    points[..., 2] = ((points[..., :2] - CROP_SIDE / 2) ** 2).sum(-1) / 100
    return points
