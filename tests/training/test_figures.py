from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.geometry import CANONICAL_KEYPOINTS
from training.answers import Answers
from training.calibration import calibrate
from training.figures import DARK, LIGHT, Theme, confusion, contact_sheet, hits, map_strip, reliability

CLASSES = ("negative", "positive", "surprise")


def picture(png: bytes) -> np.ndarray:
    """[H, W, 3] RGB."""
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[..., ::-1]


def share(shown: np.ndarray, colour: str) -> float:
    """Share of the pixels that have this very colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((shown == rgb).all(2).mean())


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_pictures_have_the_themes_page(theme: Theme) -> None:
    shown = picture(confusion(np.eye(3) * 5, CLASSES, "all", theme))
    assert share(shown[:4], theme.page) == 1
    assert share(shown, theme.right) > 0.1  # the diagonal: all of a row's maps


def test_a_row_without_maps_is_drawn_empty() -> None:
    counts = np.array([[4.0, 0, 0], [0, 0, 0], [0, 0, 4]])
    full, lacking = picture(confusion(np.eye(3) * 4, CLASSES, "x")), picture(confusion(counts, CLASSES, "x"))
    assert share(lacking, LIGHT.right) == pytest.approx(share(full, LIGHT.right) * 2 / 3, rel=0.05)


def test_bars_are_as_long_as_the_hits() -> None:
    shown = picture(hits(("a", "b"), np.array([3.0, 1.0]), np.array([4.0, 4.0]), "SMIC"))
    assert share(shown, LIGHT.right) == pytest.approx(share(shown, LIGHT.wrong), rel=0.05)
    assert share(picture(hits(("a", "b"), np.array([4.0, 4.0]), np.array([4.0, 4.0]), "x")), LIGHT.wrong) == 0


def test_the_diagram_shows_band_and_curve() -> None:
    draw = np.random.default_rng(0)
    people = tuple(f"a/{i % 20}" for i in range(300))
    truth, names = draw.integers(0, 3, 300), tuple(map(str, range(300)))
    logits = draw.normal(0, 1, (300, 3)) + 1.5 * np.eye(3)[truth]
    found = calibrate([Answers(0, names, ("a",) * 300, people, truth, logits)])
    shown = picture(reliability(found))
    assert share(shown, LIGHT.band) > 0.02 and share(shown, LIGHT.right) > 0.001


def test_a_strip_shows_direction_strain_and_keypoints() -> None:
    whole = np.full((3, 28, 28), 0.5, np.float32)
    whole[0, 2, 3], whole[1, 2, 3], whole[2] = 1.0, 0.0, 0.0
    whole[2, 25, 25] = 1.0
    strip = map_strip(whole, CANONICAL_KEYPOINTS)
    assert strip.shape == (140, 428, 3)
    u, v, strain = strip[:, :140], strip[:, 144:284], strip[:, 288:]
    right, up, calm = u[12, 17].astype(int), v[12, 17].astype(int), u[60, 5].astype(int)
    assert right[0] > right[2] + 40 and up[2] > up[0] + 40 and np.ptp(calm) < 12
    assert strain[127, 127].sum() > 500 and strain[60, 5].sum() < 40
    assert (strip == (40, 200, 90)).all(2).sum() == 3 * 5 * 9


def test_a_map_without_motion_is_calm() -> None:
    strip = map_strip(np.zeros((3, 28, 28), np.float32), CANONICAL_KEYPOINTS)
    assert np.ptp(strip[60, 5].astype(int)) < 12


def test_the_sheet_grows_with_its_pictures() -> None:
    strip = map_strip(np.zeros((3, 28, 28), np.float32), CANONICAL_KEYPOINTS)
    short, tall = (picture(contact_sheet([strip] * n, ["a"] * n)) for n in (1, 5))
    assert tall.shape[1] == short.shape[1] and tall.shape[0] > 2 * short.shape[0]
