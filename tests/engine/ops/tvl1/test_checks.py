"""What is no picture, no pair and no batch of pictures, and the errors that say so."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ArrayError
from engine.ops.tvl1 import tvl1, tvl1_batch

GOOD = np.zeros((8, 8), np.uint8)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((8, 8, 3), np.uint8), r"one grey picture \[H, W\].*\(8, 8, 3\)"),
        (np.zeros(8, np.uint8), r"\[H, W\]"),
        (np.zeros((0, 8), np.uint8), "at least one pixel"),
        (np.zeros((8, 8)), "float64"),
        (np.zeros((8, 8), np.int16), "int16"),
        (np.zeros((8, 8), bool), "bool"),
        (np.full((8, 8), np.nan, np.float32), "not finite"),
        (np.full((8, 8), np.inf, np.float32), "not finite"),
        (np.full((8, 8), -1, np.float32), "0..255"),
        (np.full((8, 8), 300, np.float32), "from 300 to 300"),
        (np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8), "multiply it by 255"),
        (np.broadcast_to(np.uint8(0), (1, 40_000)), "32000"),
        ([[0.0]], "not list"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(place: int, bad: object, says: str) -> None:
    pair = [GOOD, GOOD]
    pair[place] = bad  # type: ignore[call-overload]
    with pytest.raises(ArrayError, match=("fixed", "moving")[place]) as caught:
        tvl1(*pair)
    caught.match(says)


def test_pictures_of_two_shapes_are_refused() -> None:
    with pytest.raises(ArrayError, match=r"\(8, 8\).*\(8, 9\)"):
        tvl1(GOOD, np.zeros((8, 9), np.uint8))


@pytest.mark.parametrize(
    ("fixed", "moving", "says"),
    [
        (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8), r"\[N, H, W\].*\(8, 8\)"),
        (np.zeros((0, 8, 8), np.uint8), np.zeros((0, 8, 8), np.uint8), "at least one pixel"),
        (np.zeros((2, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8), r"\(2, 8, 8\).*\(3, 8, 8\)"),
        (np.zeros((2, 8, 8), np.uint8), np.full((2, 8, 8), np.nan, np.float32), "moving holds values that are not finite"),
        (np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), "float64"),
        ([[[0]]], np.zeros((1, 1, 1), np.uint8), "not list"),
    ],
)
def test_what_is_no_batch_is_refused(fixed: object, moving: object, says: str) -> None:
    with pytest.raises(ArrayError, match=says):
        tvl1_batch(fixed, moving)  # type: ignore[type-var]


def test_tensors_are_held_to_the_same() -> None:
    torch = pytest.importorskip("torch")
    good = torch.zeros((2, 8, 8))
    for bad, says in (
        (torch.full((2, 8, 8), float("nan")), "not finite"),
        (torch.full((2, 8, 8), 300.0), "from 300 to 300"),
        (torch.linspace(0, 1, 128).reshape(2, 8, 8), "multiply it by 255"),
        (torch.zeros((2, 8, 8), dtype=torch.float64), "float64"),
        (np.zeros((2, 8, 8), np.uint8), "both"),
    ):
        with pytest.raises(ArrayError, match=says):
            tvl1_batch(good, bad)
