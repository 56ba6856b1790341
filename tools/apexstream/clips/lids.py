"""Blinks: upper lids that slide down over the eyes, drawn into the texture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from apexstream.clips.portrait import Portrait
from engine.types import F32, F64, U8

FOLD = 0.03
"""How far above the upper lid line its skin comes out from under the fold, in eye distances."""
LASH = 0.012
"""Half width of the line of lashes, in eye distances."""


@dataclass(frozen=True, eq=False)
class Lid:
    """One eye as a patch of the texture.

    rows and cols place the patch; opened [h, w, 3] is the patch as photographed, closed the same with skin where the eye is;
    upper and lower are the lid lines, [w] rows of the patch; inside [w] fades to 0 at the corners of the eye; unit is the eye
    distance in texture px.
    """

    rows: slice
    cols: slice
    opened: U8
    closed: F32
    upper: F32
    lower: F32
    inside: F32
    unit: float


def lid_of(face: Portrait, side: str) -> Lid:
    """The lid of the right or the left eye; side is "r" or "l"."""
    up, low = face.points[f"lid_{side}_up"], face.points[f"lid_{side}_low"]
    margin = 0.12 * face.eye_distance
    x0, y0 = (int(n) for n in np.floor(np.minimum(up.min(axis=0), low.min(axis=0)) - margin))
    x1, y1 = (int(n) for n in np.ceil(np.maximum(up.max(axis=0), low.max(axis=0)) + margin))
    columns = np.arange(x0, x1)
    upper, lower = (_line(line, columns) - np.float32(y0) for line in (up, low))
    left, right = up[:, 0].min(), up[:, 0].max()
    inside = np.clip(np.minimum(columns - left, right - columns) / (0.04 * face.eye_distance), 0, 1).astype(np.float32)
    opened = face.texture[y0:y1, x0:x1].copy()
    closed = _skin(opened, upper, np.maximum(lower, upper + 1), face.eye_distance)
    return Lid(slice(y0, y1), slice(x0, x1), opened, closed, upper, lower, inside, face.eye_distance)


def _line(points: F64, columns: npt.NDArray[np.int64]) -> F32:
    """Rows of a smooth line through a lid's points, level beyond its corners."""
    x = np.clip(columns, points[:, 0].min(), points[:, 0].max())
    return np.polyval(np.polyfit(points[:, 0], points[:, 1], 3), x).astype(np.float32)


def _skin(opened: U8, upper: F32, lower: F32, unit: float) -> F32:
    """The patch with the eye painted over: colours run smoothly from the skin above it to the skin below, slightly darker."""
    soft = cv2.GaussianBlur(opened, (0, 0), 0.02 * unit)
    x = np.arange(len(upper), dtype=np.float32)

    def colours(row: F32) -> F64:
        there = cv2.remap(soft, x[None], row[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.GaussianBlur(there.astype(float), (0, 0), 0.06 * unit)[0], np.float64)

    above, below = colours(upper - np.float32(0.05 * unit)), colours(lower + np.float32(0.06 * unit))
    y = np.arange(opened.shape[0])[:, None]
    part = np.clip((y - upper) / (lower - upper), 0, 1)[..., None]
    return np.asarray(0.95 * (above + part * (below - above)), np.float32)


def draw(texture: U8, lid: Lid, down: float) -> None:
    """Draw a lid that is down by 0 (open) to 1 (closed) into the texture, in place."""
    if down <= 0:
        texture[lid.rows, lid.cols] = lid.opened
        return
    height, width = lid.opened.shape[:2]
    edge = lid.upper + np.float32(down) * (lid.lower - lid.upper)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    skin = cv2.remap(lid.closed, x, y + (lid.lower - edge), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    fold = np.clip((y - lid.upper) / (FOLD * lid.unit) + 1, 0, 1) * min(1.0, 4 * down)
    covered = fold * np.clip(edge - y + 0.5, 0, 1) * lid.inside
    lash = 0.55 * min(1.0, 4 * down) * np.exp(-0.5 * ((y - edge) / (LASH * lid.unit)) ** 2) * lid.inside
    blend = lid.opened + covered[..., None] * (skin - lid.opened)
    texture[lid.rows, lid.cols] = np.clip(blend * (1 - lash)[..., None] + 0.5, 0, 255).astype(np.uint8)
