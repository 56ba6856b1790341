"""Blinks: upper lids that slide down over the eyes, drawn into the texture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from engine.types import F32, U8
from tools.clips.portrait import Portrait


@dataclass(frozen=True, eq=False)
class Lid:
    """One eye: rows and columns of its patch in the texture, the patch open [h, w, 3] and with the eye painted over by the
    skin around it, and the lines of both lids in patch rows by column ([w] each)."""

    rows: slice
    cols: slice
    opened: U8
    closed: U8
    upper: F32
    lower: F32
    lash: float


def lids_of(face: Portrait) -> tuple[Lid, Lid]:
    """Both eyes' lids."""
    return _lid(face, "r"), _lid(face, "l")


def _lid(face: Portrait, side: str) -> Lid:
    up, low = face.points[f"lid_{side}_up"], face.points[f"lid_{side}_low"]
    margin = 0.12 * face.eye_distance
    x0, y0 = np.floor(np.minimum(up.min(axis=0), low.min(axis=0)) - margin).astype(int)
    x1, y1 = np.ceil(np.maximum(up.max(axis=0), low.max(axis=0)) + margin).astype(int)
    columns = np.arange(x0, x1)
    upper, lower = (_line(line, columns) - y0 for line in (up, low))
    opened = face.texture[y0:y1, x0:x1].copy()
    y = np.arange(y1 - y0)[:, None]
    pad = 0.03 * face.eye_distance
    hole = (y > upper - pad) & (y < lower + 0.5 * pad) & (upper < lower)
    closed = cv2.inpaint(opened, hole.astype(np.uint8) * 255, 3, cv2.INPAINT_TELEA)
    closed = np.where(hole[..., None], cv2.GaussianBlur(closed, (0, 0), 1.5), closed)
    return Lid(slice(y0, y1), slice(x0, x1), opened, np.asarray(closed, np.uint8), upper, lower, 0.012 * face.eye_distance)


def _line(
    points: np.ndarray[tuple[int, ...], np.dtype[np.float64]], columns: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> F32:
    """Rows of a smooth line through points at columns (a parabola fitted to both sides, ends kept)."""
    curve = np.poly1d(np.polyfit(points[:, 0], points[:, 1], 3))(columns)
    ends = np.interp(columns, points[:, 0], points[:, 1])
    inside = (columns > points[0, 0]) & (columns < points[-1, 0])
    return np.where(inside, curve, ends).astype(np.float32)


def draw(texture: U8, lid: Lid, down: float) -> None:
    """Draw a lid that is down by 0 (open) to 1 (closed) into the texture, in place."""
    if down <= 0:
        texture[lid.rows, lid.cols] = lid.opened
        return
    height, width = lid.opened.shape[:2]
    edge = lid.upper + down * (lid.lower - lid.upper)
    y = np.arange(height, dtype=np.float32)[:, None]
    slide = np.broadcast_to((lid.lower - edge)[None, :], (height, width))
    x = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
    skin = cv2.remap(
        lid.closed, np.ascontiguousarray(x), (y + slide).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    covered = np.clip(edge - y + 0.5, 0, 1) * np.clip(y - lid.upper + 1.5, 0, 1) * np.clip((lid.lower - lid.upper) / 2, 0, 1)
    lash = 0.55 * np.exp(-0.5 * ((y - edge) / lid.lash) ** 2) * np.clip((lid.lower - lid.upper) / 3, 0, 1)
    blend = lid.opened + covered[..., None] * (skin.astype(np.float32) - lid.opened)
    texture[lid.rows, lid.cols] = np.clip(blend * (1 - lash * min(1.0, 3 * down))[..., None] + 0.5, 0, 255).astype(np.uint8)
