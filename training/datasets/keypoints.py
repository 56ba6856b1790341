"""Five points on pictures of faces, for a copy of the flow maps that comes with the apex faces but without keypoints.csv."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from engine.errors import InputError
from engine.faces.landmarks import FaceLocator
from engine.geometry import MAP_SIDE, keypoints
from engine.types import F32, U8, Frame
from training.datasets.pictures import decoded

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
"""In the order of `engine.geometry.CANONICAL_KEYPOINTS`."""

COLUMNS = tuple(f"{point}_{axis}" for point in POINTS for axis in "xy")

MARGIN = 0.3
"""Border put around a picture, of its sides: the faces fill their pictures, and detectors want to see more than a face."""


def find(faces: Mapping[str, Path]) -> dict[str, F32]:
    """Name -> picture of one face filling it; returns name -> [5, 2], (x, y) in map cells.

    The picture is taken as the area of its 28 x 28 map. Raises InputError that names a picture which cannot be read or on
    which no face is found: a point is never made up.
    """
    locator, found = FaceLocator(), {}
    try:
        for number, (name, path) in enumerate(faces.items()):
            found[name] = _five_points(locator, _read(path), number, path)
    finally:
        locator.close()
    return found


def _read(path: Path) -> U8:
    try:
        picture = decoded(path.read_bytes())
    except OSError as cause:
        raise InputError(f"the face {path} cannot be read: {cause.strerror}") from cause
    if picture is None:
        raise InputError(f"the face {path} is no picture (JPEG, PNG or BMP)")
    return picture


def _five_points(locator: FaceLocator, picture: U8, number: int, path: Path) -> F32:
    height, width = picture.shape[:2]
    top, left = round(height * MARGIN), round(width * MARGIN)
    wide = cv2.copyMakeBorder(picture, top, top, left, left, cv2.BORDER_REPLICATE)
    # each picture is a source of its own to the locator: ids and windows of the one before must not reach into it
    seen = locator.locate(Frame(number, -float(number), np.asarray(wide, np.uint8), gap=True))
    if not seen:
        raise InputError(f"no face was found on {path}; its map cannot be used without its five points")
    largest = max(seen, key=lambda face: float(np.ptp(face.points[:, 0])))
    pixels = keypoints(largest.points) - np.array([left, top], np.float32)
    return np.asarray((pixels + 0.5) * (MAP_SIDE / np.array([width, height])) - 0.5, np.float32)
