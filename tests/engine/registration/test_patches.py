from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from engine.kernels import MachineCode, machine_code
from engine.registration.head import CANVAS
from engine.registration.patches import Patches
from engine.types import F64, U8

NO_EYES = np.full((478, 2), -99.0)


def code() -> MachineCode:
    made = machine_code()
    assert made is not None
    return made


def texture(shift: tuple[float, float] = (0.0, 0.0), seed: int = 0, gain: float = 1.0, lift: float = 0.0) -> U8:
    """A canvas of soft spots, moved by `shift` (x, y), in another light."""
    rough = np.random.default_rng(seed).uniform(0, 255, (CANVAS + 60, CANVAS + 60)).astype(np.float32)
    soft = cv2.GaussianBlur(rough, (0, 0), 2.5)
    soft = (soft - soft.mean()) * (40 / soft.std()) + 120
    move = np.array([[1, 0, shift[0] - 30], [0, 1, shift[1] - 30]], float)
    fine = cv2.warpAffine(soft, move, (CANVAS, CANVAS), flags=cv2.INTER_CUBIC)
    return np.asarray(np.clip(np.rint(gain * fine + lift), 0, 255), np.uint8)


def grid(edge: float, count: int = 6) -> F64:
    line = np.linspace(edge, CANVAS - 1 - edge, count)
    return np.asarray(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2) + 0.37, np.float64)


def both(patches: Patches, canvas: U8, starts: F64) -> tuple[tuple[F64, F64], tuple[F64, F64]]:
    return patches.find_by_machine_code(canvas, starts, code()), patches.find_by_opencv(canvas, starts)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.7), (-1.6, 1.2), (2.4, 0.1)])
@pytest.mark.parametrize("light", [{}, {"gain": 0.7, "lift": 30.0}])
def test_a_shifted_patch_is_found(shift: tuple[float, float], light: dict[str, Any]) -> None:
    patches, canvas = Patches(texture(), NO_EYES, grid(20)), texture(shift, **light)
    near = np.tile(np.rint(shift), (36, 1))
    for motion, found in both(patches, canvas, near):
        assert found.all()
        assert np.abs(motion - shift).max() < 0.1  # OpenCV, which moves the picture, is off by 0.055 px itself; measured 0.062


@pytest.mark.parametrize("seed", range(4))
def test_both_implementations_agree_also_over_the_border(seed: int) -> None:
    rng = np.random.default_rng(seed)
    patches = Patches(texture(seed=seed), NO_EYES, grid(2 + seed))
    noisy = np.clip(texture((0.6, -0.9), seed=seed) + rng.normal(0, 4, (CANVAS, CANVAS)), 0, 255).astype(np.uint8)
    (motion, found), (wanted, there) = both(patches, noisy, rng.normal(0, 0.5, (36, 2)))
    np.testing.assert_array_equal(found, there)
    assert np.abs(motion - wanted)[found > 0].max() < 0.003  # pixels; measured 0.0004


def test_both_implementations_agree_on_lost_patches() -> None:
    patches, rng = Patches(texture(), NO_EYES, grid(20)), np.random.default_rng(1)
    other, flat = texture(seed=9), np.full((CANVAS, CANVAS), 77, np.uint8)
    for canvas in (other, flat):
        (_, found), (_, there) = both(patches, canvas, np.zeros((36, 2)))
        assert (found != there).mean() < 0.1 and found.mean() < 0.5
    for far in (500.0, -500.0, 1e7):
        (_, found), (_, there) = both(patches, other, np.full((36, 2), far))
        assert not found.any() and not there.any()
    motion, found = patches.find_by_machine_code(texture(), np.full((36, 2), np.nan), code())
    assert not found.any() and motion.shape == (36, 2)
    starts = np.where(rng.uniform(size=(36, 1)) < 0.5, np.nan, 0.0) * np.ones(2)
    motion, found = patches.find_by_machine_code(texture(), starts, code())
    np.testing.assert_array_equal(found > 0, np.isfinite(starts[:, 0]))


def test_patches_without_texture_are_lost() -> None:
    patches = Patches(np.full((CANVAS, CANVAS), 90, np.uint8), NO_EYES, grid(20))
    assert not patches.trust.any()
    for _, found in both(patches, texture(), np.zeros((36, 2))):
        assert not found.any()


def with_eyes() -> F64:
    points = NO_EYES.copy()
    points[[33, 133, 263, 362]] = [(38, 60), (62, 60), (122, 60), (98, 60)]
    return points


def test_eyes_have_no_effect() -> None:
    canvas = texture()
    patches = Patches(canvas, with_eyes(), grid(20))
    awake = canvas.copy()
    for eye in (np.s_[54:65, 36:64], np.s_[54:65, 96:124]):
        awake[eye] = canvas[eye][:, ::-1]
    for motion, found in both(patches, awake, np.zeros((36, 2))):
        assert found.all()
        assert np.abs(motion).max() < 0.03  # measured 0.003; 0.97 where the eyes are seen


def test_any_memory_layout_works() -> None:
    patches, canvas = Patches(texture(), NO_EYES, grid(20)), texture((0.4, 0.2))
    wanted, _ = patches.find_by_machine_code(canvas, np.zeros((36, 2)), code())
    loose = np.repeat(canvas, 2, axis=1)[:, ::2]
    loose.flags.writeable = False
    found, _ = patches.find_by_machine_code(loose, np.zeros((2, 36)).T, code())
    np.testing.assert_array_equal(found, wanted)
    inside = Patches(np.asfortranarray(texture()), NO_EYES, np.asfortranarray(grid(20)))
    np.testing.assert_array_equal(inside.find(canvas, np.zeros((36, 2)))[0], wanted)
