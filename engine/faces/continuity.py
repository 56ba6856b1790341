"""How a frame follows the one before: with the next picture of a face, with the same one again, or with another scene.

Sources repeat pictures where they cannot keep up, and films are cut. A picture that came again says nothing about noise and
needs no mesh; after a cut the face in the same place may be another one. Both are seen in what the picture shows around the
face.
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np

from engine.types import F32, U8

Step = Literal["next", "repeat", "cut"]
"""How a picture follows the one before."""

REPEAT = 0.15  # mean difference in grey levels: .14 at most in repeats that were compressed, .18 at least between others
CUT = 0.7  # correlation with the face before, wherever it went: under .7 across 97 of 100 pairs of films,
OTHER_SCENE = 0.5  # and of whole pictures: .36 at most across films, .70 at least in eight films even at 5 frames/s
STOOD_S = 0.3  # a picture that does not change for so long stands still,
JUMP = 4.5  # and jumps where it then changes by so many times as usual: 19 and more at thaws and 5 to 11 where a loss shows or
# ends in rendered clips; key pictures of H.264 pulse by up to 4,
LEAST_USUAL = 1.0  # grey levels, at least that (3.6: key pictures of a still face without noise),
LEAST_SEEN = 5  # over so many pictures,
USUAL_PACE = 0.1  # the last ones counting for more
_AROUND = 1.6  # side of the square that is compared, in widths of the face
_SAMPLES = 48  # pixels along the face's width that are compared
_CELLS = 28  # along the square, in which a face that went elsewhere is sought
_SCENE_WIDE = 80  # pixels across the whole picture that are compared
_FAINT = 6.0  # grey levels of contrast under which a picture shows nothing: a flash, a black frame


class SceneContinuity:
    """Compares whole pictures with the ones before."""

    def __init__(self) -> None:
        self._before: F32 | None = None

    def is_another(self, grey: U8) -> bool:
        """Whether the next frame (grey [H, W]) shows another scene than the one before."""
        stride = max(1, grey.shape[1] // _SCENE_WIDE)
        seen = grey[::stride, ::stride].astype(np.float32)
        seen -= seen.mean()
        before, self._before = self._before, seen
        if before is None or before.shape != seen.shape:
            return before is not None
        shown = float(np.vdot(seen, seen)), float(np.vdot(before, before))
        if min(shown) < _FAINT**2 * seen.size:
            return False
        return float(np.vdot(seen, before)) < OTHER_SCENE * math.sqrt(shown[0] * shown[1])


class Continuity:
    """Compares the pictures of one face with the ones before. box is its centre x, y and width in frame pixels, grey [H, W]
    the frame in which it lies there. change is the mean difference of the last two, in grey levels."""

    def __init__(self, grey: U8, box: tuple[float, float, float]) -> None:
        x, y, width = box
        reach, self._stride = _AROUND * width / 2, max(1, int(width / _SAMPLES))
        self._rows, self._columns = (slice(max(0, round(at - reach)), max(0, round(at + reach)), self._stride) for at in (y, x))
        self._before = self._seen(grey)
        self.change = 0.0

    def step(self, grey: U8) -> Step:
        """How the next frame (grey [H, W]) follows the one before; a "cut" is one only where the scene is another, too: a head
        that turns away quickly looks like one."""
        before, now = self._before, self._seen(grey)
        self._before = now
        self.change = 0.0
        if now.shape != before.shape or not now.size:
            return "next"
        self.change = apart = float(cv2.mean(cv2.absdiff(_inner(now), _inner(before)))[0])
        if apart < REPEAT:
            return "repeat"
        return "cut" if apart > _FAINT and _alike(before, now) < CUT else "next"

    def _seen(self, grey: U8) -> U8:
        return np.ascontiguousarray(grey[self._rows, self._columns])


class JumpDetector:
    """Whether a face's picture goes on from another moment than the one before: it stood still and jumps, or pictures were lost
    and it jumps where that is made up for. Motion never does: it begins slowly and goes no faster than it did."""

    def __init__(self) -> None:
        self._usual = 0.0  # change from one picture to the next
        self._seen = 0
        self._still_since: float | None = None

    def observe(self, t: float, step: Step, change: float, *, doubtful: bool) -> bool:
        """Whether the picture of the time t jumps: step and change are how it follows the one before, doubtful says that
        pictures were lost not long ago."""
        still = self._still_since
        if step == "repeat":
            self._still_since = t if still is None else still
            return False
        self._still_since = None
        stood = still is not None and t - still >= STOOD_S
        jumps = (stood or doubtful) and self._seen >= LEAST_SEEN and change > JUMP * max(self._usual, LEAST_USUAL)
        if not jumps and change > 0:
            self._seen += 1
            self._usual += max(USUAL_PACE, 1 / self._seen) * (change - self._usual)
        return jumps


def _inner(picture: U8) -> U8:
    """The face without what is around it."""
    rows, columns = (round(length * (1 - 1 / _AROUND) / 2) for length in picture.shape)
    return picture[rows : picture.shape[0] - rows, columns : picture.shape[1] - columns]


def _alike(before: U8, now: U8) -> float:
    """The correlation of the face in one picture with the best place for it in the other, 1 where either shows nothing."""
    coarse = [np.asarray(cv2.resize(one, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA), np.uint8) for one in (before, now)]
    face = _inner(coarse[0])
    if min(float(face.std()), float(_inner(coarse[1]).std())) < _FAINT:
        return 1.0
    return float(cv2.matchTemplate(coarse[1], face, cv2.TM_CCOEFF_NORMED).max())
