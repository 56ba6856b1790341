"""Photographs with facial points found by hand, and faces reshaped from them.

Both photographs are in the public domain and carried by packages: Grace Hopper (US Navy) by matplotlib, Eileen Collins (NASA)
by scikit-image. "right" is the person's right side, on the left of the picture. Points are (x, y) pixels of the photograph,
measured on enlarged views.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from apexstream.clips.spec import CROP_EYE_PX
from engine.errors import InputError
from engine.types import F32, F64, U8

Points = dict[str, F64]

OVERSAMPLE = 2.0
"""Pixels of the texture per pixel of the frame: enough that moving by fractions of a pixel does not change the sharpness."""
PSF_SIGMA = 1.05
"""Blur of the texture in its own pixels (a camera's point spread, and what keeps the frame free of aliasing)."""

_RAW: dict[str, dict[str, list[tuple[float, float]]]] = {
    "hopper": {
        "lid_r_up": [(204, 193.5), (209, 186.5), (218, 182.5), (230, 185), (243.5, 193)],
        "lid_r_low": [(204, 194), (212, 197.2), (222, 198.5), (235, 195.5), (243.5, 193.5)],
        "lid_l_up": [(288, 191.8), (294, 185), (303.5, 178.5), (313.5, 182), (324, 190)],
        "lid_l_low": [(288, 192.4), (296, 192.5), (306, 194), (316, 193), (324, 190.6)],
        "brow_r": [(207, 167), (216, 167.5), (225, 168), (233, 170.5), (241, 174.5)],
        "brow_l": [(328, 163.5), (316, 163), (306, 164.5), (297, 166.5), (289, 170)],
        "bridge": [(265.5, 188)],
        "nose_tip": [(268, 239)],
        "nose_r": [(239.5, 242.5)],
        "nose_l": [(296, 239.5)],
        "subnasal": [(268, 252)],
        "mouth_r": [(231.5, 280.5)],
        "mouth_l": [(304, 277)],
        "lip_up": [(267.7, 272.2)],
        "lip_low": [(268, 292)],
        "chin": [(270, 322)],
        "cheek_r": [(214, 238)],
        "cheek_l": [(320, 234)],
        "side_r": [(176, 217)],
        "side_l": [(354, 209)],
        "jaw_r": [(203, 298)],
        "jaw_l": [(334, 291)],
        "top": [(264.5, 134)],
        "temple_r": [(190, 158)],
        "temple_l": [(338, 150)],
    },
    "astronaut": {
        "lid_r_up": [(193.5, 100.6), (196.5, 97.9), (202, 96.9), (208.3, 98.7), (213.5, 103)],
        "lid_r_low": [(193.5, 101.4), (198, 103.6), (203.5, 104.8), (209.3, 104.5), (213.5, 103.8)],
        "lid_l_up": [(236.8, 104.4), (241, 101), (248, 99.1), (253.6, 101), (257, 103.4)],
        "lid_l_low": [(236.8, 105), (241, 106.2), (247, 107.1), (252.5, 106.6), (257, 104.2)],
        "brow_r": [(190.5, 90.3), (197, 88.7), (203.5, 89.6), (209, 91.2), (213, 92.7)],
        "brow_l": [(262, 95.4), (256, 92.7), (250, 92.2), (244, 92.6), (238.5, 93.2)],
        "bridge": [(225, 101)],
        "nose_tip": [(223.5, 127)],
        "nose_r": [(208.5, 125)],
        "nose_l": [(239.5, 127)],
        "subnasal": [(223.4, 132.4)],
        "mouth_r": [(202, 138.5)],
        "mouth_l": [(247.5, 140.5)],
        "lip_up": [(223.6, 140.5)],
        "lip_low": [(222.7, 154.6)],
        "chin": [(221.5, 170)],
        "cheek_r": [(195, 121)],
        "cheek_l": [(254, 124.5)],
        "side_r": [(179.5, 111)],
        "side_l": [(270, 116)],
        "jaw_r": [(187, 152)],
        "jaw_l": [(259, 157)],
        "top": [(226, 74)],
        "temple_r": [(186, 84)],
        "temple_l": [(264, 88)],
    },
}


@dataclass(frozen=True)
class Reshape:
    """How a face differs from its photograph. Lengths are fractions of the eye distance, tone a gamma, gain a contrast,
    gradient the relative change of light from edge to edge of the face (x, y)."""

    mirrored: bool = False
    jaw: float = 0.0
    nose: float = 0.0
    eyes: float = 0.0
    length: float = 0.0
    mouth: float = 0.0
    brows: float = 0.0
    tone: float = 1.0
    gain: float = 1.0
    gradient: tuple[float, float] = (0.0, 0.0)


RESHAPED: dict[str, Reshape] = {
    "hopper-1": Reshape(True, jaw=0.10, nose=0.06, eyes=0.05, mouth=0.05, tone=1.15, gain=0.9, gradient=(0.25, 0.0)),
    "hopper-2": Reshape(False, jaw=-0.09, nose=-0.05, eyes=-0.03, length=0.10, mouth=-0.05, tone=0.85, gradient=(-0.2, 0.15)),
    "hopper-3": Reshape(True, jaw=0.04, nose=0.08, eyes=0.07, length=-0.08, brows=0.04, tone=1.4, gain=0.75),
    "hopper-4": Reshape(False, jaw=-0.05, nose=0.03, eyes=0.02, length=0.05, mouth=0.08, brows=-0.03, tone=1.7, gain=1.1),
    "astronaut-1": Reshape(True, jaw=0.09, nose=0.06, eyes=-0.03, mouth=-0.07, tone=1.2, gain=0.85, gradient=(-0.25, 0.1)),
    "astronaut-2": Reshape(False, jaw=-0.08, nose=-0.05, eyes=0.03, length=0.10, brows=0.04, tone=1.5, gradient=(0.2, -0.15)),
    "astronaut-3": Reshape(True, jaw=0.05, nose=0.07, eyes=0.03, length=-0.07, mouth=0.06, tone=0.85, gain=0.8),
    "astronaut-4": Reshape(False, jaw=0.10, nose=0.02, eyes=-0.02, length=0.06, mouth=0.04, brows=-0.03, tone=1.9, gain=1.1),
}


@dataclass(frozen=True, eq=False)
class Portrait:
    """A face ready to be warped: texture [H, W, 3] RGB uint8, points (x, y) in its pixels by name, [k, 2] each.

    eye_distance lies between the centres of the eyes; across and down are unit vectors of the face's own axes.
    """

    texture: U8
    points: Points
    eye_distance: float
    across: F64
    down: F64

    @property
    def crop_px(self) -> float:
        """Texture pixels that make one pixel of the 128 px crop."""
        return self.eye_distance / CROP_EYE_PX

    @property
    def centre(self) -> F64:
        """(x, y) between the eyes and the mouth, the centre of the face."""
        eyes = (eye_centre(self.points, "r") + eye_centre(self.points, "l")) / 2
        mouth = (self.points["mouth_r"][0] + self.points["mouth_l"][0]) / 2
        return np.asarray((eyes + mouth) / 2)

    def axes(self, xy: F64) -> tuple[F64, F64]:
        """Coordinates of points [..., 2] along the face's axes from its centre, in eye distances."""
        d = (xy - self.centre) / self.eye_distance
        return np.asarray(d @ self.across), np.asarray(d @ self.down)


def eye_centre(points: Points, side: str) -> F64:
    """(x, y) of the middle between an eye's two corners; side is "r" or "l"."""
    return np.asarray((points[f"lid_{side}_up"][0] + points[f"lid_{side}_up"][-1]) / 2)


def photograph(base: str, *, grey: bool = False) -> U8:
    """[H, W, 3] RGB uint8 of "hopper" or "astronaut", or [H, W] grey; raises InputError where the package that carries it is
    missing."""
    package, load = {"hopper": ("matplotlib", _hopper), "astronaut": ("scikit-image", _astronaut)}[base]
    try:
        return np.asarray(load(grey), np.uint8)
    except ImportError as e:
        raise InputError(
            f"the photograph {base!r} comes with {package}, which is not installed: pip install 'apexstream[clips]'"
        ) from e


def _astronaut(grey: bool) -> Any:
    from skimage.data import astronaut

    load: Any = astronaut
    picture = load()
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if grey else picture


def _hopper(grey: bool) -> Any:
    import matplotlib as mpl

    path = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    if not path.is_file():
        raise InputError(f"the installed matplotlib has no {path.name} (looked in {path.parent}); install matplotlib from PyPI")
    # grey is the JPEG's own brightness, which RGB would round
    kind = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), kind)
    if picture is None:
        raise InputError(f"{path} cannot be read as a picture; install matplotlib from PyPI")
    return picture if grey else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


@lru_cache(maxsize=4)
def portrait(name: str, eye_px: float) -> Portrait:
    """The face called name, so large that its eyes are eye_px * OVERSAMPLE texture pixels apart."""
    base = name.split("-", maxsplit=1)[0]
    picture = photograph(base)
    points = {k: np.asarray(v, np.float64) for k, v in _RAW[base].items()}
    shape = RESHAPED.get(name, Reshape())
    if shape.mirrored:
        picture, points = _mirror(picture, points)
    before = portrait_of(picture, points)
    points = {k: _forward(v, before, shape) for k, v in points.items()}
    scale = OVERSAMPLE * eye_px / float(np.linalg.norm(eye_centre(points, "l") - eye_centre(points, "r")))
    texture = _relight(_resample(before, shape, scale), points, scale, shape)
    return portrait_of(texture, {k: (v + 0.5) * scale - 0.5 for k, v in points.items()})


def portrait_of(texture: U8, points: Points) -> Portrait:
    """A portrait of a texture and its points as they are."""
    right, left = eye_centre(points, "r"), eye_centre(points, "l")
    distance = float(np.linalg.norm(left - right))
    across = (left - right) / max(distance, 1e-6)
    return Portrait(texture, points, distance, across, np.array([-across[1], across[0]]))


def _mirror(picture: U8, points: Points) -> tuple[U8, Points]:
    width = picture.shape[1]
    swap = {"r": "l", "l": "r"}
    out = {}
    for name, xy in points.items():
        twin = "_".join(swap.get(part, part) for part in name.split("_"))
        flipped = np.column_stack([width - 1 - xy[:, 0], xy[:, 1]])
        out[twin] = flipped[::-1] if name.startswith("lid") else flipped
    return np.ascontiguousarray(picture[:, ::-1]), out


def _offset(xy: F64, face: Portrait, shape: Reshape) -> F64:
    """Displacement G of the reshape at points xy [..., 2] of the new face: new(p) = old(p - G(p)), photograph pixels."""
    u, v = face.axes(xy)

    def at(name: str) -> tuple[float, float]:
        a, b = face.axes(face.points[name].mean(axis=0))
        return float(a), float(b)

    def window(centre: tuple[float, float], su: float, sv: float) -> F64:
        return np.asarray(np.exp(-0.5 * (((u - centre[0]) / su) ** 2 + ((v - centre[1]) / sv) ** 2)))

    (jaw_u, jaw_v), (_, jaw_v2) = at("jaw_l"), at("jaw_r")
    near_jaw = np.exp(-0.5 * ((v - (jaw_v + jaw_v2) / 2) / 0.5) ** 2)
    du = shape.jaw * np.tanh(u / 0.45) * near_jaw * np.exp(-((u / (2.2 * jaw_u)) ** 4))
    dv = shape.length * v * np.exp(-0.5 * ((u / 1.1) ** 4 + (v / 1.3) ** 4))
    dv += shape.nose * window(at("nose_tip"), 0.25, 0.22)
    for side in ("r", "l"):
        a, b = at(f"lid_{side}_up")
        near = window((a, b), 0.26, 0.16)
        du = du + shape.eyes * (u - a) / 0.26 * near
        dv = dv + shape.eyes * (v - b) / 0.16 * near
        dv = dv - shape.brows * window(at(f"brow_{side}"), 0.3, 0.13)
        near = window(at(f"mouth_{side}"), 0.2, 0.14)
        du = du + shape.mouth * (1 if side == "l" else -1) * near
    return np.asarray((du[..., None] * face.across + dv[..., None] * face.down) * face.eye_distance)


def _forward(xy: F64, face: Portrait, shape: Reshape) -> F64:
    """Where points of the photograph lie on the reshaped face (fixed point of q = p + G(q))."""
    q = xy
    for _ in range(60):
        q = xy + _offset(q, face, shape)
    return q


def _resample(face: Portrait, shape: Reshape, scale: float) -> U8:
    h, w = face.texture.shape[:2]
    rows, cols = round(h * scale), round(w * scale)
    ys, xs = (np.arange(rows) + 0.5) / scale - 0.5, (np.arange(cols) + 0.5) / scale - 0.5
    grid = np.stack(np.meshgrid(xs[::8], ys[::8]), axis=-1)
    coarse = _offset(grid, face, shape).astype(np.float32)
    at_x, at_y = np.meshgrid(*(np.arange(n, dtype=np.float32) / 8 for n in (cols, rows)))
    offset = cv2.remap(coarse, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    maps = np.stack(np.meshgrid(xs, ys), axis=-1).astype(np.float32) - offset
    source = face.texture if scale >= 1 else cv2.GaussianBlur(face.texture, (0, 0), 0.5 / scale)
    big = cv2.remap(source, maps[..., 0], maps[..., 1], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(cv2.GaussianBlur(big, (0, 0), PSF_SIGMA), np.uint8)


def _relight(texture: U8, points: Points, scale: float, shape: Reshape) -> U8:
    if shape.tone == 1 and shape.gain == 1 and shape.gradient == (0, 0):
        return texture
    face = portrait_of(texture, {k: (v + 0.5) * scale - 0.5 for k, v in points.items()})
    h, w = texture.shape[:2]
    u, v = face.axes(np.stack(np.meshgrid(np.arange(w, dtype=float), np.arange(h, dtype=float)), axis=-1))
    light = 1 + shape.gradient[0] * np.tanh(u) + shape.gradient[1] * np.tanh(v)
    lut = (255 * (np.arange(256) / 255) ** shape.tone).astype(np.float32)
    toned: F32 = 128 + shape.gain * (lut[texture] - 128)
    return np.asarray(np.clip(toned * light[..., None] + 0.5, 0, 255), np.uint8)
