from __future__ import annotations

import numpy as np
import pytest

from stream.sources.strobe import WINDOW, StrobeDetector
from tests.faces import grey_picture


def dark(levels: list[int]) -> list[bool]:
    strobe = StrobeDetector()
    found = [strobe.is_dark(grey_picture(48, 64, level)[..., 0]) for level in levels]
    assert strobe.unlit == sum(found)
    return found


@pytest.mark.parametrize("every", [2, 3, 4])
def test_pictures_between_flashes_are_dark(every: int) -> None:
    levels = [120 if number % every == 0 else 8 for number in range(60)]
    found = dark(levels)[2 * WINDOW :]
    assert found == [level == 8 for level in levels[2 * WINDOW :]]


def test_a_light_that_stays_on_after_strobing_leaves_no_picture_dark() -> None:
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
def test_other_changes_of_light_leave_no_picture_dark(levels: list[int]) -> None:
    assert not any(dark(levels))
