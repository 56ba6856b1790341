from __future__ import annotations

import numpy as np
import pytest

from stream.sources.lighting import LOOKED_AT, Flashing
from tests.faces import grey_picture


def dark(levels: list[int]) -> list[bool]:
    flashing = Flashing()
    found = [flashing.is_dark(grey_picture(48, 64, level)[..., 0]) for level in levels]
    assert flashing.unlit == sum(found)
    return found


@pytest.mark.parametrize("every", [2, 3, 4])
def test_between_flashes_pictures_are_dark(every: int) -> None:
    levels = [120 if number % every == 0 else 8 for number in range(60)]
    found = dark(levels)[2 * LOOKED_AT :]
    assert found == [level == 8 for level in levels[2 * LOOKED_AT :]]


def test_a_light_that_stays_on_after_flashing_hides_nothing() -> None:
    assert not any(dark([120, 8] * 20 + [120] * 30)[40:])


@pytest.mark.parametrize(
    "levels",
    [
        [100] * 60,
        [100] * 30 + [10] * 30,  # switched off
        [60 + 40 * (number % 2) for number in range(60)],  # flicker
        list(np.linspace(200, 5, 60, dtype=int)),
        ([100] * 10 + [10] * 10) * 3,  # a slow blink
    ],
)
def test_other_changes_of_light_hide_no_picture(levels: list[int]) -> None:
    assert not any(dark(levels))
