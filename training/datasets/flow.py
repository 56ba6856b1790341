"""A clip's pictures -> its flow map, by the very stages of live analysis (`engine.pipeline`).

The pictures from shortly before the onset to shortly after the apex pass through landmarks and registration one after the
other, as a camera's would; then the mean of the crops at the onset and of those at the apex give the flow, the whole map and
the five keypoints. Where the apex follows the onset so closely that resting pictures are within reach, only those nearer to the
apex stand for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np

import engine
from engine.config import LandmarkSettings
from engine.errors import InputError
from engine.faces.boxes import face_box
from engine.faces.landmarks import FaceLocator
from engine.geometry import CANONICAL_KEYPOINTS, CROP_SIDE, MAP_SIDE, keypoints_to_map
from engine.ops.tvl1.method import METHOD
from engine.pipeline import APEX_REACH_S, ONSET_REACH_S
from engine.recognition.flowmap import face_flow, intensity, whole_map
from engine.recognition.likeness import ALIKE
from engine.registration.align import Registrar
from engine.types import F32, U8, Crop, Frame
from training.datasets import pictures
from training.datasets.clips import Clip, badly_framed
from training.datasets.keypoints import MARGIN
from training.datasets.pictures import ClipFolder, read_picture

DECIDING_FOLDERS = ("faces", "kernels", "mesh", "ops", "recognition", "registration")
DECIDING_MODULES = ("geometry.py", "quantiles.py")
"""Parts of `engine` whose code, with that of `flow` and `pictures` here, decides what a map is."""

LIBRARIES = ("ai-edge-litert", "dlib-bin", "opencv-contrib-python", "numpy", "numba")
"""The packages that have a part in it."""

LANDMARKS = LandmarkSettings(backend="litert")
"""Maps are made one way alone."""

_APART_S = 1e4  # clips lie so far apart in the locator's time


@dataclass(frozen=True, eq=False)
class ClipFlow:
    """What one clip gives: whole [3, 28, 28], keypoints [5, 2] in map cells, and how far to trust them.

    alike is how well the flow explains the change (`engine.recognition.likeness.explained`); one_reference says that onset and
    apex were registered to one picture; live analysis names nothing where it is False or alike under its limit. px is the
    intensity in crop pixels. onset, apex and offset are the pictures' numbers, stamp tells the pictures (`LookedAt.stamp`).
    """

    whole: F32
    keypoints: F32
    alike: float
    one_reference: bool
    px: float
    onset: int
    apex: int
    offset: int
    stamp: str

    @property
    def sure(self) -> bool:
        """Whether live analysis would name an expression with this flow."""
        return self.one_reference and self.alike >= ALIKE


def settings() -> dict[str, object]:
    """What decides how pictures become a map, the libraries (`versions`) aside: the settings and a digest of the code.

    Maps made with other settings or by other code are not mixed.
    """
    return {
        "code": _code(),
        "landmarks": LANDMARKS.model_dump(),
        "onset_reach_s": ONSET_REACH_S,
        "apex_reach_s": APEX_REACH_S,
        "crop_side": CROP_SIDE,
        "map_side": MAP_SIDE,
        "keypoints": [[round(float(v), 4) for v in point] for point in CANONICAL_KEYPOINTS],
        "flow": asdict(METHOD),
        "cropped_margin": MARGIN,
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that have a part in a map; "absent" for what is not installed."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _code() -> str:
    digest = hashlib.sha256()
    for path in deciding_files(Path(engine.__file__).parent):
        digest.update(path.read_text(encoding="utf-8").encode())
    return digest.hexdigest()[:16]


def deciding_files(package: Path) -> list[Path]:
    """The sources that decide what a map is, in a fixed order; package is the folder of `engine`."""
    in_folders = sorted(path for folder in DECIDING_FOLDERS for path in (package / folder).rglob("*.py"))
    return [*in_folders, *(package / name for name in DECIDING_MODULES), Path(__file__), Path(pictures.__file__)]


@dataclass(frozen=True)
class LookedAt:
    """Numbers of a clip's onset, apex and offset, and the pictures from shortly before the onset to shortly after the apex."""

    onset: int
    apex: int
    offset: int
    pictures: dict[int, Path]

    def stamp(self) -> str:
        """A digest of the pictures' names, sizes and times of writing. Raises InputError."""
        facts = []
        for number, path in self.pictures.items():
            try:
                about = path.stat()
            except OSError as cause:
                raise InputError(f"the picture {path} cannot be read: {cause.strerror}") from cause
            facts.append((number, path.name, about.st_size, about.st_mtime_ns))
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def looked_at(clip: Clip, folder: ClipFolder) -> LookedAt:
    """What is looked at for the map of a clip. Raises InputError where a picture is missing or the folder cannot be read."""
    numbered = folder.numbered()
    onset, apex, offset = _span(clip, folder, numbered)
    first, last = onset - round(ONSET_REACH_S * clip.fps), apex + round(APEX_REACH_S * clip.fps)
    return LookedAt(onset, apex, offset, {n: path for n, path in numbered.items() if first <= n <= last})


class FlowMaker:
    """Makes flow maps, clip after clip; `close` frees the models, or use it as a context.

    The face detectors take a second to load, so they are kept; each clip is a source of its own to them all the same, whose
    time begins before all that was, at which the locator forgets what it followed.
    """

    def __init__(self) -> None:
        self._locator = FaceLocator(LANDMARKS)
        self._clips = 0

    def __enter__(self) -> FlowMaker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the models."""
        self._locator.close()

    def make(self, clip: Clip, folder: ClipFolder) -> ClipFlow:
        """The flow map of a clip. Raises InputError that says why there is none: pictures missing or damaged, no face found."""
        span = looked_at(clip, folder)
        stamp = span.stamp()
        self._clips += 1
        begin = -min(span.pictures) / clip.fps - _APART_S * self._clips
        crops = list(self._registered(_frames(span.pictures, clip.fps, begin, folder.cropped)))
        before = [crop for crop in crops if crop.mark.frame <= span.onset]
        after = [crop for crop in crops if _at_apex(crop.mark.frame, span, clip.fps)]
        for moment, number, seen in (("onset", span.onset, before), ("apex", span.apex, after)):
            if not seen:
                raise InputError(f"no face was found at the {moment} of {clip.name}, {span.pictures[number]}")
        flow, points, alike = face_flow(before, after, backend="cpu")
        return ClipFlow(
            whole=whole_map(flow),
            keypoints=keypoints_to_map(points),
            alike=alike,
            one_reference=before[-1].anchor == after[0].anchor,
            px=intensity(flow, points),
            onset=span.onset,
            apex=span.apex,
            offset=span.offset,
            stamp=stamp,
        )

    def _registered(self, frames: Iterable[Frame]) -> Iterator[Crop]:
        """The crop of the largest face of the first frames in every frame where it is seen."""
        registrar, chosen = Registrar(), None
        for frame in frames:
            faces = self._locator.locate(frame)
            if chosen is None and faces:
                chosen = max(faces, key=lambda face: face_box(face.points)[2]).id
            crop = next((registrar.register(frame, face) for face in faces if face.id == chosen), None)
            if crop is not None:
                yield crop


def _at_apex(number: int, span: LookedAt, fps: float) -> bool:
    """Whether a picture stands for the apex: near it, and no nearer to the onset, whose rest would halve the motion."""
    return 2 * number > span.onset + span.apex and abs(number - span.apex) <= APEX_REACH_S * fps + 1e-6


def _span(clip: Clip, folder: ClipFolder, numbered: dict[int, Path]) -> tuple[int, int, int]:
    """Numbers of onset, apex and offset among the pictures."""
    if folder.just_expression:
        numbers = list(numbered)
        if len(numbers) < 3:
            raise InputError(f"{folder.path} holds {len(numbers)} numbered pictures; an expression has at least 3")
        return numbers[0], numbers[(len(numbers) - 1) // 2], numbers[-1]
    assert clip.onset is not None and clip.apex is not None and clip.offset is not None
    wrong = badly_framed(clip.onset, clip.apex, clip.offset)
    if wrong:
        raise InputError(wrong)
    for moment, number in (("onset", clip.onset), ("apex", clip.apex)):
        if number not in numbered:
            held = f"{min(numbered)} to {max(numbered)}" if numbered else "no numbered picture"
            raise InputError(f"the {moment}, picture {number}, is not in {folder.path}, which holds {held}")
    return clip.onset, clip.apex, clip.offset


def _frames(shown: dict[int, Path], fps: float, begin: float, cropped: bool) -> Iterator[Frame]:
    size = None
    for number, path in shown.items():
        picture = read_picture(path)
        if size not in (None, picture.shape):
            raise InputError(f"{path} has another size than the pictures before it")
        size = picture.shape
        yield Frame(number, begin + number / fps, _widened(picture) if cropped else picture)


def _widened(picture: U8) -> U8:
    """A face that fills its picture gets a border: detectors want to see more than a face."""
    top, left = (round(side * MARGIN) for side in picture.shape[:2])
    return np.asarray(cv2.copyMakeBorder(picture, top, top, left, left, cv2.BORDER_REPLICATE), np.uint8)
