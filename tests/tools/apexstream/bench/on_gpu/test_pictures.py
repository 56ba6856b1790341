from __future__ import annotations

import numpy as np
import pytest

from apexstream.bench.on_gpu import pictures
from apexstream.clips import portrait
from engine.errors import InputError


@pytest.mark.parametrize("faces", [True, False])
def test_pairs_are_grey_pictures_that_moved(faces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not faces:

        def missing(base: str, *, grey: bool) -> None:
            raise InputError(f"{base} comes with another package")

        monkeypatch.setattr(portrait, "photograph", missing)
    count = pictures.DISTINCT + 2
    fixed, moving = pictures.moved_pairs(count, 24)
    assert fixed.shape == moving.shape == (count, 24, 24) and fixed.dtype == moving.dtype == np.float32
    assert fixed.min() >= 0 and fixed.max() <= 255 and np.ptp(fixed[0]) > 50
    assert all(abs(a - b).mean() > 0.05 for a, b in zip(fixed, moving, strict=True))
    assert len({picture.tobytes() for picture in fixed}) == count


def test_fields_are_at_most_one_long_before_they_are_scaled() -> None:
    y, x = np.mgrid[-1:1:21j, -1:1:21j].astype(np.float32)
    for field in pictures.FIELDS:
        u, v = field(x, y)
        assert u.shape == v.shape == x.shape and 0.5 < np.hypot(u, v).max() <= 1.01


def test_a_picture_of_one_pixel() -> None:
    fixed, moving = pictures.moved_pairs(1, 1)
    assert fixed.shape == moving.shape == (1, 1, 1) and np.isfinite(fixed).all()


def test_meshes() -> None:
    points = pictures.scattered_meshes(3)
    inside = ((points[..., :2] >= 0) & (points[..., :2] < 128)).all(-1).mean()
    assert points.shape == (3, 478, 3) and points.dtype == np.float32 and 0.8 < inside < 1
