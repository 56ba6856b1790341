"""How alike two pictures of one face are: brightness matched, and what of the change a flow explains.

Pictures are [H, W] float32, grey levels 0..255; flows [2, H, W] are (u, v) in pixels from the first to the second.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engine.quantiles import percentile
from engine.recognition.tables import LEAST_GAIN, MOST_GAIN, PATCH_SIDE, PATCH_STEP, SMOOTH_PATCH, face_window
from engine.types import F32, F64

ALIKE = 0.8  # where the flow explains less of the change than this, no class is named

FOLDED = 8.0**2
"""Variance, grey levels squared, that counts as common to both patches in `face_explained`: folds that deepen, their shadows
and noise make no other cheek of a smooth one. Chosen on 45 moments of real clips of 10 people: nearly all broad smiles,
grimaces and open mouths reach ALIKE (without it two of three), hands before the face 0.5."""

_LEAST_SHARE = 0.35  # of a patch that must lie outside of lips and lids for it to be compared
_AROUND = 4  # pixels around lips and lids that are left out with them
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_LEFT_LIDS = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
_RIGHT_LIDS = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
_OPENINGS = tuple(np.array(ring) for ring in (_LIPS, _LEFT_LIDS, _RIGHT_LIDS))


def explained(before: F32, after: F32, flow: F32) -> float:
    """How alike both pictures are once the flow is undone: the tenth percentile of patches' correlations.

    1 where every part of one face was only moved; low where a hand came between or the head turned away, so that the flow
    means nothing.
    """
    undone = read_along(after, flow, outside=cv2.BORDER_CONSTANT)
    (mean_b, square_b), (mean_u, square_u) = _patches(before), _patches(undone)
    (product, _) = _patches(before * undone)
    spread = np.sqrt(np.maximum(square_b - mean_b**2, 0) * np.maximum(square_u - mean_u**2, 0))
    found = np.where(spread > SMOOTH_PATCH, (product - mean_b * mean_u) / np.maximum(spread, SMOOTH_PATCH), 1.0)
    return percentile(found.ravel(), 10)


def face_explained(before: F32, after: F32, flow: F32, landmarks: F32) -> float:
    """`explained` for a large change: without lips and lids, since teeth and eyeballs appear that no flow brings, and without
    what folds of the skin change (FOLDED).

    landmarks [478, >= 2] are the mesh on the first picture, (x, y) in its pixels.
    """
    counts = _clear_of_openings(landmarks, before.shape[0], before.shape[1])
    undone = read_along(after, flow)
    (share, _) = _patches(counts)
    pictures = (before, before * before, undone, undone * undone, before * undone)
    mean_b, square_b, mean_u, square_u, product = (_patches(one * counts)[0] / np.maximum(share, 1e-9) for one in pictures)
    spread = np.sqrt(np.maximum(square_b - mean_b**2, 0) * np.maximum(square_u - mean_u**2, 0))
    found = (product - mean_b * mean_u + FOLDED) / (spread + FOLDED)
    known = share > _LEAST_SHARE
    return percentile(found[known], 10) if known.any() else 1.0


def like(picture: F32, model: F32) -> F32:
    """The picture with brightness and contrast of the model, as far as both show the same face: TV-L1 assumes constancy."""
    window = face_window(model.shape[0], model.shape[1])
    total = float(window.sum())
    mean_p, mean_m = float((picture * window).sum()) / total, float((model * window).sum()) / total
    var_p = float((window * (picture - mean_p) ** 2).sum()) / total
    var_m = float((window * (model - mean_m) ** 2).sum()) / total
    gain = float(np.clip(np.sqrt(var_m / max(var_p, 1e-6)), LEAST_GAIN, MOST_GAIN))
    return np.asarray(np.clip((picture - mean_p) * gain + mean_m, 0, 255), np.float32)


def read_along(picture: npt.NDArray[Any], flow: F32, *, outside: int = cv2.BORDER_REPLICATE) -> F32:
    """A picture [H, W] read, bilinearly, where the flow leads from each pixel; outside is OpenCV's border mode (black for
    BORDER_CONSTANT)."""
    x, y = _places(picture.shape[0], picture.shape[1])
    return np.asarray(cv2.remap(picture, x + flow[0], y + flow[1], cv2.INTER_LINEAR, borderMode=outside), np.float32)


def _patches(picture: F32) -> tuple[F64, F64]:
    """Mean and mean square of patches of a picture [H, W], overlapping and clear of its border: each [rows, columns]."""
    side, step = PATCH_SIDE, PATCH_STEP
    sums = cv2.integral2(picture[step // 2 : -1, step // 2 : -1], sdepth=cv2.CV_64F, sqdepth=cv2.CV_64F)
    edges = ((one[:-side:step], one[side::step]) for one in sums)
    totals = (low[:, side::step] - top[:, side::step] - low[:, :-side:step] + top[:, :-side:step] for top, low in edges)
    mean, square = (np.asarray(total / side**2, np.float64) for total in totals)
    return mean, square


def _clear_of_openings(landmarks: F32, rows: int, columns: int) -> F32:
    """[rows, columns]: 0 on lips and lids and close to them, 1 elsewhere."""
    openings = np.zeros((rows, columns), np.uint8)
    for ring in _OPENINGS:
        cv2.fillPoly(openings, [np.rint(landmarks[ring, :2]).astype(np.int32)], 1)
    side = 2 * _AROUND + 1
    return np.asarray(1 - cv2.dilate(openings, np.ones((side, side), np.uint8)), np.float32)


@lru_cache(maxsize=4)
def _places(rows: int, columns: int) -> tuple[F32, F32]:
    """Each pixel's x and y."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    return x, y
