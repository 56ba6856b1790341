from __future__ import annotations

import numpy as np
import pytest

from apexstream.clips.lids import draw, lid_of
from apexstream.clips.portrait import portrait
from apexstream.clips.spec import PHOTOS


@pytest.mark.parametrize("photo", PHOTOS)
def test_a_closed_lid_hides_the_eye_and_an_open_one_is_the_photograph(photo: str) -> None:
    face = portrait(photo, 45.0)
    texture = face.texture.copy()
    for lid in (lid_of(face, side) for side in "rl"):
        draw(texture, lid, 1.0)
    for side in "rl":
        middle = (face.points[f"lid_{side}_up"][2] + face.points[f"lid_{side}_low"][2]) / 2
        x, y = np.rint(middle).astype(int)
        before, after = (t[y - 3 : y + 3, x - 6 : x + 7].mean() for t in (face.texture, texture))
        assert after > 1.5 * before, "skin is brighter than the iris"
    for lid in (lid_of(face, side) for side in "rl"):
        draw(texture, lid, 0.0)
    assert np.array_equal(texture, face.texture)


def test_a_lid_covers_more_the_further_it_is_down_and_nothing_else() -> None:
    face = portrait("astronaut", 45.0)
    lid = lid_of(face, "r")
    changed = []
    for down in (0.2, 0.5, 0.8, 1.0):
        texture = face.texture.copy()
        draw(texture, lid, down)
        different = np.abs(texture.astype(int) - face.texture).max(axis=-1) > 20
        changed.append(int(different.sum()))
        outside = different.copy()
        outside[lid.rows, lid.cols] = False
        assert not outside.any()
    assert changed == sorted(changed)
    assert changed[0] < 0.6 * changed[-1]
