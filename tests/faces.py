"""Faces for tests: the photographs, pictures put together from them, and rendered clips as frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from apexstream.clips import ClipSpec, Truth, plan, preset, render_frames
from apexstream.clips.portrait import photograph
from apexstream.clips.render import Scene
from apexstream.clips.spec import Action
from engine.faces.landmarks import FaceLocator
from engine.geometry import CROP_SIDE
from engine.recognition.flowmap import face_flow
from engine.registration.align import Registrar
from engine.types import F32, U8, Crop, Face, Frame

MakeLocator = Callable[..., FaceLocator]
"""Makes a locator of settings by name."""

EYES = {"hopper": ((223.75, 193.25), (306.0, 190.9)), "astronaut": ((203.5, 102.2), (246.9, 103.9))}
"""Centres of the eyes, (x, y) in pixels of the photographs, measured by hand (left and right of the picture)."""


@lru_cache(maxsize=8)
def photo(name: str, scale: float = 1.0) -> U8:
    """[H, W, 3] RGB: "hopper" or "astronaut", enlarged or shrunk."""
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(photograph(name), None, fx=scale, fy=scale, interpolation=how), np.uint8)


def side_by_side(shift: int = 0, size: tuple[int, int] = (640, 300)) -> U8:
    """[300, 640, 3]: hopper's face on the left and astronaut's on the right, each moved `shift` px towards the middle."""
    width, height = size
    picture = np.full((height, width, 3), 90, np.uint8)
    hopper, astronaut = photo("hopper", 0.6)[40:290, 60:260], photo("astronaut")[10:260, 120:320]
    picture[25:275, 20 + shift : 220 + shift] = hopper
    picture[25:275, width - 220 - shift : width - 20 - shift] = astronaut
    return picture


def grey_picture(height: int, width: int, level: int = 128) -> U8:
    """[H, W, 3] of one grey."""
    return np.full((height, width, 3), level, np.uint8)


def frames_of(pictures: Iterable[U8], fps: float, start: int = 0) -> list[Frame]:
    """The pictures as frames at a constant rate; start is the number of the first."""
    return [Frame(start + k, (start + k) / fps, picture) for k, picture in enumerate(pictures)]


def eyes(face: Face) -> F32:
    """[2, 2] centres of the eyes, left and right of the picture."""
    return np.asarray([face.points[[33, 133], :2].mean(axis=0), face.points[[362, 263], :2].mean(axis=0)], np.float32)


def alive(pictures: list[U8]) -> list[U8]:
    """Pictures of which none is a repeat of the one before: every other is a grey level lighter."""
    return [np.asarray(np.minimum(picture, 254) + k % 2, np.uint8) for k, picture in enumerate(pictures)]


def ids(found: list[list[Face]]) -> list[list[int]]:
    return [[face.id for face in faces] for faces in found]


@dataclass(frozen=True, eq=False)
class Clip:
    """A rendered clip: its frames (RGB) and what is true of them."""

    frames: Sequence[Frame]
    truth: Truth


def render(spec: ClipSpec) -> Clip:
    """All frames of a clip, uncompressed."""
    frames = [Frame(k, t, picture) for k, (t, picture) in enumerate(render_frames(spec))]
    return Clip(frames, plan(spec))


def registered(frames: Iterable[Frame], registrar: Registrar | None = None) -> Iterator[tuple[Crop, F32]]:
    """The crop of every face in every frame, all by one registrar, and the plain landmarks [478, 3] it came from."""
    locator, one = FaceLocator(), registrar or Registrar()
    for frame in frames:
        for face in locator.locate(frame):
            crop = one.register(frame, face)
            if crop is not None:
                yield crop, face.points
    locator.close()


@lru_cache(maxsize=16)
def rise(action: Action, name: str = "hopper", px: float = 2.0) -> tuple[Scene, list[Crop], F32]:
    """One expression: its scene, the crops from rest (the first) to the apex (the last), the landmarks at rest."""
    event = {"n_events": 1, "macro_fraction": 0.0, "micro_px": (px, px), "actions": (action,)}
    scene = Scene(preset("clean", name, 30, seed=1, duration_s=4, size=(360, 300), eye_px=80.0, noise_sigma=2.0, **event))
    (truth,) = scene.truth.events
    numbers = [0, *range(truth.onset_frame, truth.apex_frame + 1)]
    seen = list(registered(Frame(k, float(scene.times[k]), scene.frame(k)) for k in numbers))
    return scene, [crop for crop, _ in seen], seen[0][1]


def bump(x: float, y: float, u: float, v: float, sigma: float = 9.0) -> F32:
    """[2, 128, 128] flow that moves one place by (u, v) pixels."""
    rows, columns = np.mgrid[0:CROP_SIDE, 0:CROP_SIDE]
    near = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.stack([u * near, v * near]).astype(np.float32)


def moved(crop: Crop, flow: F32) -> Crop:
    """The crop after the flow: what was at (x, y) is at (x + u, y + v)."""
    rows, columns = np.mgrid[0:CROP_SIDE, 0:CROP_SIDE].astype(np.float32)
    back = flow.copy()
    for _ in range(20):
        back = np.stack([cv2.remap(part, columns - back[0], rows - back[1], cv2.INTER_LINEAR) for part in flow])
    pixels = cv2.remap(crop.pixels, columns - back[0], rows - back[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return replace(crop, pixels=np.asarray(pixels, np.uint8))


@lru_cache(maxsize=8)
def laugh(px: float) -> tuple[tuple[Crop, ...], F32]:
    """Ten crops of hopper with a smile as it is rendered, enlarged to px pixels at its strongest, and the flow [2, 128, 128]
    from the first to the last. Their motion says what a registrar would."""
    _, crops, _ = rise("smile", px=4.0)
    rest = crops[0]
    flow, _, _ = face_flow([rest], crops[-1:])
    smooth = np.stack([cv2.GaussianBlur(channel, (0, 0), 5.0) for channel in flow])
    true = np.asarray(smooth * (px / np.hypot(*smooth).max()), np.float32)
    motion = (crops[-1].motion - rest.motion) * (px / 4)
    grown = (replace(moved(rest, true * np.float32(k / 9)), motion=rest.motion + motion * np.float32(k / 9)) for k in range(10))
    return tuple(grown), true
