"""From a spec to frames.

One inverse map a frame: frame -> posed picture (sway, roll, zoom) -> face from the front (yaw, pitch over a depth map) ->
neutral face (expressions) -> texture (with lids drawn in). Light, flicker and noise follow as on a sensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from apexstream.clips.actions import GRID_STEP, field, grid_over, lid_drop
from apexstream.clips.lids import draw, lid_of
from apexstream.clips.motion import depth, motion
from apexstream.clips.plan import closing, course, frame_times, generator, plan
from apexstream.clips.portrait import OVERSAMPLE, portrait
from apexstream.clips.spec import ClipSpec
from engine.types import F32, F64, U8

BLINK_PX = 1.0
"""Largest motion of the skin around the eyes in a blink, pixels of the 128 px crop (the brows' is a quarter of it)."""
NOISE_MARGIN = 61


def render_frames(spec: ClipSpec) -> Iterator[tuple[float, U8]]:
    """Yield (time in seconds, [H, W, 3] RGB uint8) for every frame; raises InputError where the photograph is missing."""
    scene = Scene(spec)
    for i, t in enumerate(scene.times):
        yield float(t), scene.frame(i)


@dataclass(frozen=True, eq=False)
class Move:
    """A field and its largest displacement in texture px from frame `first` on."""

    field: F32
    first: int
    peaks: F64


class Scene:
    """Everything of a clip that is computed once; frame(i) renders any frame, in any order."""

    def __init__(self, spec: ClipSpec) -> None:
        self.spec = spec
        self.truth = plan(spec)
        self.times = frame_times(spec)
        self.face = portrait(spec.photo, spec.eye_px)
        self.motion = motion(spec, self.times)
        self._grid = grid_over(self.face)
        self._nodes = self._grid.nodes.astype(np.float32)
        self._depth = depth(self.face, self._grid)
        self._texture = self.face.texture.copy()
        self._lids = [lid_of(self.face, side) for side in "rl"]
        self._down = closing(self.truth.blinks, self.times)
        self._drawn = 0.0
        self._moves = self._prepare()
        self._noise = _noise_bank(spec)
        w, h = spec.size
        self._ramps = np.linspace(-1, 1, w), np.linspace(-1, 1, h)
        self._xs, self._ys = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)

    def _prepare(self) -> list[Move]:
        """What moves the face: each event, and last the skin around the eyes in all blinks."""
        rng = generator(self.spec, "faces")
        moves = []
        for event in self.truth.events:
            f = field(self.face, self._grid, event.action, self.spec.renderer, rng)
            first, last = np.searchsorted(self.times, [event.onset_t, event.offset_t])
            part = course(event, self.times[first:last], self.spec.renderer, rng)
            moves.append(Move(f, int(first), event.amplitude * self.face.crop_px * part))
        moves.append(Move(lid_drop(self.face, self._grid), 0, BLINK_PX * self.face.crop_px * self._down))
        return moves

    def expression(self, i: int) -> F32:
        """[H, W, 2] displacement on the grid, texture px, in frame i."""
        total = np.zeros_like(self._nodes)
        for move in self._moves:
            if move.first <= i < move.first + len(move.peaks) and move.peaks[i - move.first] > 0:
                total += np.float32(move.peaks[i - move.first]) * move.field
        return total

    def placement(self, i: int) -> F64:
        """[2, 3] affine map from frame pixels to the posed picture in frame i (sway, roll, zoom)."""
        w, h = self.spec.size
        scale = OVERSAMPLE / self.motion.zoom[i]
        c, s = scale * np.cos(self.motion.roll[i]), scale * np.sin(self.motion.roll[i])
        turn = np.array([[c, s], [-s, c]])
        middle = np.array([(w - 1) / 2 + self.motion.x[i], (h - 1) / 2 + self.motion.y[i]])
        return np.column_stack([turn, self.face.centre - turn @ middle])

    def frame(self, i: int) -> U8:
        """[H, W, 3] RGB uint8, frame i."""
        down = float(self._down[i])
        if down != self._drawn:
            for lid in self._lids:
                draw(self._texture, lid, down)
            self._drawn = down
        map_x, map_y = self._maps(i)
        picture = cv2.remap(self._texture, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        return self._sensor(np.asarray(picture, np.uint8), i)

    def _maps(self, i: int) -> tuple[F32, F32]:
        a = self.placement(i).astype(np.float32)
        map_x = a[0, 0] * self._xs + (a[0, 1] * self._ys + a[0, 2])[:, None]
        map_y = a[1, 0] * self._xs + (a[1, 1] * self._ys + a[1, 2])[:, None]
        x0, y0, x1, y1 = self._face_box(a)
        if x0 < x1 and y0 < y1:
            to_grid = a.copy()
            to_grid[:, 2] += a[:, :2] @ np.array([x0, y0], np.float32) - self._grid.origin
            how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            moved = cv2.warpAffine(self._offset(i), to_grid / GRID_STEP, (x1 - x0, y1 - y0), flags=how)
            map_x[y0:y1, x0:x1] += moved[..., 0]
            map_y[y0:y1, x0:x1] += moved[..., 1]
        return map_x, map_y

    def _face_box(self, a: F32) -> tuple[int, int, int, int]:
        """The grid's bounding box in the frame: x0, y0, x1, y1, clipped."""
        corners = self._nodes[[0, 0, -1, -1], [0, -1, 0, -1]]
        there = np.linalg.solve(a[:, :2].astype(float), (corners - a[:, 2]).T.astype(float))
        low, high = np.floor(there.min(axis=1)), np.ceil(there.max(axis=1)) + 1
        (x0, x1), (y0, y1) = (np.clip([low[k], high[k]], 0, self.spec.size[k]).astype(int) for k in (0, 1))
        return int(x0), int(y0), int(x1), int(y1)

    def _offset(self, i: int) -> F32:
        """[H, W, 2] on the grid of the posed picture: where to read the texture, less where the node lies."""
        expression = self.expression(i)
        yaw, pitch = float(self.motion.yaw[i]), float(self.motion.pitch[i])
        if yaw == 0 and pitch == 0:
            return -expression
        turn = np.asarray(np.sin(yaw) * self.face.across + np.sin(pitch) * self.face.down, np.float32)
        q = self._nodes
        for _ in range(3):
            q = self._nodes - self._sample(self._depth, q)[..., None] * turn  # weak perspective
        return q - self._sample(expression, q) - self._nodes

    def _sample(self, values: F32, q: F32) -> F32:
        at = (q - self._grid.origin.astype(np.float32)) / np.float32(GRID_STEP)
        return np.asarray(
            cv2.remap(values, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
        )

    def _sensor(self, picture: U8, i: int) -> U8:
        light, tilt = self.motion.light[i], self.motion.tilt[i]
        if tilt.any():
            gain = 1 + tilt[0] * self._ramps[0] + (tilt[1] * self._ramps[1])[:, None]
            picture = np.asarray(cv2.multiply(picture, cv2.merge([gain.astype(np.float32)] * 3), dtype=cv2.CV_8U), np.uint8)
        if light != 1:
            picture = np.asarray(cv2.LUT(picture, np.clip(np.arange(256) * light + 0.5, 0, 255).astype(np.uint8)), np.uint8)
        if self.spec.noise_sigma == 0:
            return picture
        rng = np.random.default_rng([self.spec.seed & 0xFFFFFFFF, 7, i])
        (dy, dx), (w, h) = rng.integers(0, NOISE_MARGIN, 2), self.spec.size
        grain = self._noise[int(rng.integers(len(self._noise)))][dy : dy + h, dx : dx + w]
        return np.asarray(cv2.add(picture, grain, dtype=cv2.CV_8U), np.uint8)


def _noise_bank(spec: ClipSpec) -> list[np.ndarray[tuple[int, ...], np.dtype[np.int16]]]:
    """A few pictures of sensor noise, larger than a frame, from which each frame cuts its own at a random place."""
    if spec.noise_sigma == 0:
        return []
    rng = generator(spec, "noise")
    w, h = spec.size
    shape = (h + NOISE_MARGIN, w + NOISE_MARGIN, 3)
    return [np.rint(spec.noise_sigma * rng.standard_normal(shape, np.float32)).astype(np.int16) for _ in range(4)]
