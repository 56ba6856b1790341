"""Small pictures of a face, upright and at one size, compared by correlation: whether two show the same person.

This distinguishes the few people before one camera for a while and identifies no one. It is kept in memory, and while the parts
of a long video wait to be joined, in their files.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.geometry import CANONICAL_KEYPOINTS, CROP_SIDE, keypoints, keypoints_to_crop, similarity
from engine.types import F32, U8

SAME = 0.8
"""Likeness from which on two appearances are of one person. In 30 clips of people a face is to its own earlier ones by .9 and
more (median of each clip), and .71 at most to other people."""
OTHER = 0.6
"""Likeness up to which an appearance shows nothing of another person, even in part."""
VIEWS = 6
_NEW_VIEW = 0.95  # an appearance that is less like all that are kept is kept too
_SIDE, _FINE = 32, 4  # pixels along an appearance, and how many times finer it is cut out
_SHARE = 0.7  # of the side between the edges of the registered crop: hair and chin are in it
_GRAIN, _LIGHT = 0.8, 8.0  # widths, pixels of an appearance, of what is smoothed, and of light that is taken out

_PLACES = (keypoints_to_crop(CANONICAL_KEYPOINTS).astype(np.float64) - (CROP_SIDE - 1) / 2) * (_SHARE * _SIDE / CROP_SIDE)
_TARGET = (_PLACES + (_SIDE - 1) / 2) * _FINE + (_FINE - 1) / 2


def appearance_of(grey: U8, points: F32) -> F32:
    """[32, 32] of the face with mesh points [478, >= 2] in a frame [H, W]: upright, without its light, of unit length."""
    place = similarity(keypoints(points).astype(np.float64), _TARGET)
    side = _FINE * _SIDE
    cut = cv2.warpAffine(grey, place, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    small = cv2.resize(cut, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    plain = np.asarray(cv2.GaussianBlur(small - cv2.GaussianBlur(small, (0, 0), _LIGHT), (0, 0), _GRAIN), np.float32)
    plain -= plain.mean()
    return np.asarray(plain / max(float(np.linalg.norm(plain)), 1e-6), np.float32)


class Gallery:
    """The last different appearances of one face."""

    def __init__(self) -> None:
        self._views: list[F32] = []

    def __bool__(self) -> bool:
        return bool(self._views)

    def likeness(self, appearance: F32) -> float:
        """Correlation with the most similar of them, -1 to 1; 1 where there is none yet."""
        return max((float(np.vdot(view, appearance)) for view in self._views), default=1.0)

    def add(self, appearance: F32) -> None:
        """Keeps an appearance, if it differs from those that are kept."""
        if not self._views or self.likeness(appearance) < _NEW_VIEW:
            self._views = [*self._views[1 - VIEWS :], appearance]
