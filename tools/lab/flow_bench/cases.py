"""Pairs of pictures whose true motion is known, the set that TV-L1 is measured on.

Each case is a public-domain photograph's face at 128 px and the same face moved by a known field: five shapes of field, six
amplitudes (the longest motion, 0.3 to 6 px), four levels of sensor noise, two photographs. The parameters of `tvl1` were
chosen on the first photograph alone; the second judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from apexstream.clips.portrait import photograph
from engine.types import F32, U8

SIDE = 128
FINE = 4
"""Pictures are rendered at FINE times their size and averaged down, so that the truth holds below a pixel."""
AMPLITUDES = (0.3, 0.7, 1.2, 2.0, 3.5, 6.0)
NOISES = (0.0, 1.0, 2.0, 4.0)
MOVING_SHARE = 0.25
"""A pixel counts as moving when it moves at least this share of the field's longest motion."""

Field = Callable[[F32, F32], tuple[F32, F32]]


@dataclass(frozen=True, eq=False)
class Case:
    """One rendered pair: moving(x + u, y + v) = fixed(x, y) up to noise, truth [2, H, W] (u, v) in pixels."""

    face: str
    field: str
    amplitude: float
    noise: float
    fixed: U8
    moving: U8
    truth: F32


@dataclass(frozen=True)
class Errors:
    """Endpoint errors in pixels: over all pixels, over the moving ones, and the 95th percentile of all."""

    mean: float
    moving: float
    p95: float


def faces() -> dict[str, U8]:
    """The faces, grey [512, 512], cut from public-domain photographs. Raises InputError where these are missing."""
    astronaut, hopper = (photograph(name, grey=True) for name in ("astronaut", "hopper"))
    cuts = {"astronaut": astronaut[65:185, 163:283], "hopper": hopper[110:375, 135:400]}
    side = (SIDE * FINE, SIDE * FINE)
    return {name: np.asarray(cv2.resize(cut, side, interpolation=cv2.INTER_CUBIC), np.uint8) for name, cut in cuts.items()}


def bump(x: F32, y: F32, at: tuple[float, float], sigma: float) -> F32:
    """A Gaussian of height 1 around `at`, (x, y) in pixels of the 128 px picture."""
    return np.asarray(np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * sigma**2)), np.float32)


def brows_up(x: F32, y: F32) -> tuple[F32, F32]:
    """Smooth: both brows rise."""
    return 0 * x, -(bump(x, y, (40, 40), 11) + bump(x, y, (88, 40), 11))


def corners_out(x: F32, y: F32) -> tuple[F32, F32]:
    """Smooth and stretching: the lip corners go up and apart."""
    left, right = bump(x, y, (44, 92), 9), bump(x, y, (84, 92), 9)
    return 0.7 * (right - left), -0.7 * (left + right)


def patch(x: F32, y: F32) -> tuple[F32, F32]:
    """Sharp: an oval of the cheek slides as one piece over what stays."""
    inside = ((x - 46) / 20) ** 2 + ((y - 74) / 15) ** 2 < 1
    return 0.8 * inside.astype(np.float32), -0.6 * inside.astype(np.float32)


def parting(x: F32, y: F32) -> tuple[F32, F32]:
    """Sharp along one line: above the mouth up, below it down, fading with distance."""
    near = np.exp(-(((x - 64) / 22) ** 2) - ((y - 94) / 12) ** 2).astype(np.float32)
    return 0 * x, np.where(y < 94, -near, near)


def head_and_brows(x: F32, y: F32) -> tuple[F32, F32]:
    """Everywhere: what registration leaves of the head's motion, with the brows drawn together on top."""
    u = 0.3 + 0.2 * (y - 64) / 64 + 0.5 * (bump(x, y, (46, 42), 10) - bump(x, y, (82, 42), 10))
    v = -0.2 - 0.2 * (x - 64) / 64 + 0.3 * bump(x, y, (64, 44), 14)
    return u, v


FIELDS: tuple[Field, ...] = (brows_up, corners_out, patch, parting, head_and_brows)


def cases() -> Iterator[Case]:
    """The published set, in a fixed order, the same on every machine."""
    seed = 0
    for face in faces().items():
        for field in FIELDS:
            for amplitude in AMPLITUDES:
                for noise in NOISES:
                    seed += 1
                    yield render(face, field, amplitude=amplitude, noise=noise, seed=seed)


def render(face: tuple[str, U8], field: Field, *, amplitude: float, noise: float, seed: int) -> Case:
    """A named face moved by `field`, with sensor noise of that standard deviation in grey levels on both pictures."""
    name, picture = face
    fine = (np.mgrid[: SIDE * FINE, : SIDE * FINE].astype(np.float32) + 0.5) / FINE - 0.5
    y, x = fine[0], fine[1]
    u, v = field(x, y)
    scale = amplitude / float(np.sqrt(u**2 + v**2).max())
    to_x, to_y = ((x + scale * u + 0.5) * FINE - 0.5), ((y + scale * v + 0.5) * FINE - 0.5)
    warped = cv2.remap(
        picture, to_x.astype(np.float32), to_y.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    rng = np.random.default_rng(seed)
    truth = np.stack([shrink(scale * u), shrink(scale * v)])
    return Case(name, field.__name__, amplitude, noise, expose(warped, noise, rng), expose(picture, noise, rng), truth)


def shrink(picture: F32) -> F32:
    """[H * FINE, W * FINE] -> [H, W], the mean of each square."""
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.float32)


def expose(fine: npt.NDArray[Any], noise: float, rng: np.random.Generator) -> U8:
    """The picture a sensor of 128 px would give, with its noise, in whole grey levels."""
    light = shrink(fine.astype(np.float32))
    return np.clip(np.rint(light + rng.normal(0, noise, light.shape)), 0, 255).astype(np.uint8)


def endpoint_errors(flow: F32, truth: F32) -> Errors:
    """How far the flow's arrows end from the true ones."""
    error = np.sqrt(((flow - truth) ** 2).sum(0))
    length = np.sqrt((truth**2).sum(0))
    moving = length >= MOVING_SHARE * length.max()
    return Errors(float(error.mean()), float(error[moving].mean()), float(np.percentile(error, 95)))
