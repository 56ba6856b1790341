from __future__ import annotations

import sys

import numpy as np
import pytest

from apexstream.clips.portrait import OVERSAMPLE, RESHAPED, eye_centre, photograph, portrait
from apexstream.clips.spec import PHOTOS
from engine.errors import InputError

SMALL = 45.0


@pytest.mark.parametrize("name", PHOTOS)
def test_a_face_has_the_size_asked_for_and_its_points_in_order(name: str) -> None:
    face = portrait(name, SMALL)
    assert face.eye_distance == pytest.approx(SMALL * OVERSAMPLE)
    height, width = face.texture.shape[:2]
    for xy in face.points.values():
        assert ((xy > 0) & (xy < [width, height])).all()

    def at(point: str, index: int = 0) -> tuple[float, float]:
        u, v = face.axes(face.points[point][index])
        return float(u), float(v)

    for left, right in (
        ("brow_r", "brow_l"),
        ("mouth_r", "mouth_l"),
        ("nose_r", "nose_l"),
        ("cheek_r", "cheek_l"),
        ("side_r", "side_l"),
    ):
        assert at(left)[0] < 0 < at(right)[0]
    order = ["top", "bridge", "nose_tip", "subnasal", "lip_up", "lip_low", "chin"]
    heights = [at(p)[1] for p in order]
    assert heights == sorted(heights)
    for side in "rl":
        assert at(f"brow_{side}", 2)[1] < at(f"lid_{side}_up", 2)[1] < at(f"lid_{side}_low", 2)[1]


@pytest.mark.parametrize("name", RESHAPED)
def test_a_reshaped_face_has_other_proportions_than_its_photograph(name: str) -> None:
    face, original = portrait(name, SMALL), portrait(name.split("-", maxsplit=1)[0], SMALL)

    def proportions(f: type(face)) -> np.ndarray:  # type: ignore[valid-type]
        names = ("mouth_r", "mouth_l", "nose_tip", "jaw_r", "jaw_l", "chin", "brow_r", "brow_l")
        return np.array([np.abs(f.axes(f.points[n][0])) for n in names])

    change = np.abs(np.sort(proportions(face), axis=0) - np.sort(proportions(original), axis=0))
    assert change.max() > 0.02


def test_points_follow_the_reshaped_picture() -> None:
    """The pupils are the darkest spots of both pictures: the eye centres must lie in them after reshaping too."""
    for name in ("astronaut", "astronaut-1", "astronaut-2", "astronaut-3"):
        face = portrait(name, SMALL)
        for side in "rl":
            x, y = np.rint(eye_centre(face.points, side)).astype(int)
            iris = face.texture[y - 6 : y + 7, x - 8 : x + 9].mean()
            cheek_x, cheek_y = np.rint(face.points[f"cheek_{side}"][0]).astype(int)
            cheek = face.texture[cheek_y - 6 : cheek_y + 7, cheek_x - 8 : cheek_x + 9].mean()
            assert iris < 0.75 * cheek, name


def test_photographs_are_pictures_in_rgb() -> None:
    hopper, astronaut = photograph("hopper"), photograph("astronaut")
    assert hopper.shape == (600, 512, 3)
    assert astronaut.shape == (512, 512, 3)
    for skin in (hopper[200:260, 250:285], astronaut[110:130, 210:240]):
        red, green, blue = skin.mean(axis=(0, 1))
        assert red > green > blue


@pytest.mark.parametrize(("package", "base"), [("skimage.data", "astronaut"), ("matplotlib", "hopper")])
def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch, package: str, base: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"{base}.*pip install"):
        photograph(base)
