"""Known expressions, put into a video of a person.

The face is followed through the video (`follow`); in the frames of an event, the picture around it is warped by the action's
displacement field, which goes with the mesh. Everything else stays as it was filmed: head motion, speech, light, noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from apexstream.clips.actions import GRID_STEP, Grid, Push, both, grid_over, unit, varied, windows
from apexstream.clips.follow import Followed, follow
from apexstream.clips.injection_plan import plan_into
from apexstream.clips.plan import course
from apexstream.clips.portrait import Portrait
from apexstream.clips.spec import Action, EventTruth, IntoSpec, Truth, truth_path
from apexstream.clips.write import encode
from engine.errors import OutputError
from engine.types import F32, F64, U8

_WIDE, _LOW = 0.17, 0.13
"""Half widths of the windows in distances of the eye centres: .12 of the distance between the outer eye corners, and a little
less below the brows, so that the eyes hardly move with them."""

INTO: dict[Action, tuple[Push, ...]] = {
    "brow_raise": (
        *both("brow:0", 0.0, 0.9, _WIDE, _WIDE, _LOW),
        *both("brow:2", 0.0, 1.0, _WIDE, _WIDE, _LOW),
        *both("brow:4", 0.0, 0.9, _WIDE, _WIDE, _LOW),
    ),
    "brow_lower": (
        *both("brow:4", -0.5, -0.85, _WIDE, _WIDE, _LOW),
        *both("brow:2", -0.2, -0.6, _WIDE, _WIDE, _LOW),
    ),
    "smile": both("mouth", 0.75, 0.66, _WIDE, _WIDE, _WIDE),
    "lip_depress": both("mouth", 0.15, -1.0, _WIDE, _WIDE, _WIDE),
}
"""What moves in the actions that can be put into a video."""

_SKIN = 0.15  # distances of the eye centres over which an expression fades towards the outline of the face
_INVERSIONS = 12  # at 10 px, what is left of the error is below .02 px
_FIELD_EYE_PX = 120.0  # distance of the eyes at which the field is computed, so that its grid is fine on small faces too

Progress = Callable[[str, int, int | None], None]
"""Called with what is done ("following", "writing"), frames so far, frames in all where that is known."""


def put_into(spec: IntoSpec, path: Path, progress: Progress | None = None, sheet: Path | None = None) -> Truth:
    """Put expressions into spec.video: an H.264 file with the video's own times, and its truth in PATH.truth.json; on request
    a contact sheet too. Sound is left out.

    Raises SourceError where the video cannot be read, InputError where it shows no face or has no room for so many events,
    OutputError where a file cannot be written.
    """

    def step(name: str) -> Callable[[int, int | None], None] | None:
        return None if progress is None else lambda done, total: progress(name, done, total)

    face = follow(Path(spec.video), spec.seconds, step("following"))
    truth = plan_into(spec, face)
    injection = Injection(face, truth)
    kept = _Sheet(injection)
    pictures = injection.pictures() if sheet is None else kept.pictures()
    write = step("writing")
    written = None if write is None else lambda i: write(i + 1, len(face.times))
    encode(path, pictures, size=face.size, fps=face.fps, crf=spec.crf, progress=written)
    truth.write(truth_path(path))
    if sheet is not None:
        kept.write(sheet)
    return truth


@dataclass(frozen=True, eq=False)
class Move:
    """An event, how far it is at each frame (part [N], 0 to 1), and the seed of its own proportions."""

    event: EventTruth
    part: F64
    seed: list[int]


class Injection:
    """The pictures of a followed video with the events of a truth put in."""

    def __init__(self, face: Followed, truth: Truth) -> None:
        self.face = face
        self.truth = truth
        self.moves = []
        for k, event in enumerate(truth.events):
            seed = [truth.spec.seed & 0xFFFFFFFF, 12, k]
            self.moves.append(Move(event, course(event, face.times, "warp-a", np.random.default_rng(seed)), seed))

    def pictures(self) -> Iterator[tuple[float, U8]]:
        """(time in seconds, [H, W, 3] RGB) of every frame."""
        for i, (t, picture) in enumerate(self.face.pictures()):
            yield t, self.applied(i, picture)

    def applied(self, i: int, picture: U8) -> U8:
        """Frame i with what moves in it moved; the picture itself where nothing does."""
        for move in self.moves:
            if move.part[i] > 0:
                return self._warped(i, picture, move)
        return picture

    def displacement(self, i: int, move: Move) -> tuple[F32, tuple[int, int]]:
        """For a part of frame i, [h, w, 2]: how far what is seen at each pixel was moved, in frame px; and (x, y) of its first
        pixel."""
        scale = _FIELD_EYE_PX / self.face.portrait(i).eye_distance
        portrait = self.face.portrait(i, scale)
        grid = grid_over(portrait)
        raw = windows(portrait, grid, varied(INTO[move.event.action], np.random.default_rng(move.seed)))
        outline = np.asarray(self.face.outline(i), np.float64) * scale
        displacement = unit(np.asarray(raw * _within(outline, grid), np.float64))
        moved = _carried(displacement * np.float32(move.event.amplitude * move.part[i] * portrait.crop_px / GRID_STEP))
        low = np.maximum(np.floor(grid.nodes[0, 0] / scale), 0).astype(int)
        high = np.minimum(np.ceil(grid.nodes[-1, -1] / scale), self.face.size).astype(int)
        w, h = np.maximum(high - low, 0)
        if not w or not h:  # the face has left the picture
            return np.zeros((0, 0, 2), np.float32), (0, 0)
        xs, ys = (((np.arange(n) + low[k]) * scale - grid.origin[k]) / GRID_STEP for k, n in enumerate((w, h)))
        at_x, at_y = np.meshgrid(xs.astype(np.float32), ys.astype(np.float32))
        there = cv2.remap(moved, at_x, at_y, cv2.INTER_LINEAR)
        return np.asarray(there * np.float32(GRID_STEP / scale), np.float32), (int(low[0]), int(low[1]))

    def _warped(self, i: int, picture: U8, move: Move) -> U8:
        shift, (x, y) = self.displacement(i, move)
        h, w = shift.shape[:2]
        if not w or not h:
            return picture
        at_x, at_y = np.meshgrid(np.arange(x, x + w, dtype=np.float32), np.arange(y, y + h, dtype=np.float32))
        part = cv2.remap(
            picture, at_x - shift[..., 0], at_y - shift[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        out = picture.copy()
        out[y : y + h, x : x + w] = part
        return out


def _within(outline: F64, grid: Grid) -> F64:
    """[H, W, 1] weight that is 0 at the outline [n, 2] of the face and beyond, and 1 from _SKIN within it on: hair and what is
    behind the face stay where they are."""
    mask = np.zeros(grid.shape, np.uint8)
    cv2.fillPoly(mask, [np.round((outline - grid.origin) / GRID_STEP).astype(np.int32)], 1)
    x = np.clip(cv2.distanceTransform(mask, cv2.DIST_L2, 5) * (GRID_STEP / (_SKIN * _FIELD_EYE_PX)), 0, 1).astype(np.float64)
    return np.asarray((x * x * (3 - 2 * x))[..., None])


def _carried(displacement: F32) -> F32:
    """From the displacement of what lies at each node at rest to that of what is seen there after it moved; [H, W, 2] in
    steps of the grid. (So a brow under the middle of a window moves by all of it.)"""
    rows, columns = np.mgrid[: displacement.shape[0], : displacement.shape[1]].astype(np.float32)
    seen = displacement
    for _ in range(_INVERSIONS):
        seen = np.asarray(cv2.remap(displacement, columns - seen[..., 0], rows - seen[..., 1], cv2.INTER_LINEAR), np.float32)
    return seen


class _Sheet:
    """A contact sheet, gathered while the frames pass: for each event the onset, the apex as filmed and as it became, and the
    difference of these two enlarged four times."""

    PX = 240

    def __init__(self, injection: Injection) -> None:
        self._injection = injection
        self._seen: dict[tuple[int, str], U8] = {}

    def pictures(self) -> Iterator[tuple[float, U8]]:
        """The injection's frames, while those of onsets and apexes are kept."""
        for i, (t, picture) in enumerate(self._injection.face.pictures()):
            made = self._injection.applied(i, picture)
            for k, event in enumerate(self._injection.truth.events):
                face = self._injection.face.portrait(event.apex_frame)
                if i == event.onset_frame:
                    self._seen[k, "onset"] = self._cut(picture, face)
                if i == event.apex_frame:
                    self._seen[k, "filmed"], self._seen[k, "apex"] = self._cut(picture, face), self._cut(made, face)
            yield t, made

    def _cut(self, picture: U8, face: Portrait) -> U8:
        half = max(4, round(1.5 * face.eye_distance))
        x, y = np.round(face.centre).astype(int)
        window = cv2.copyMakeBorder(picture, half, half, half, half, cv2.BORDER_REPLICATE)[y : y + 2 * half, x : x + 2 * half]
        return np.asarray(cv2.resize(window, (self.PX, self.PX), interpolation=cv2.INTER_AREA), np.uint8)

    def write(self, path: Path) -> None:
        """Write the PNG; raises OutputError where it cannot be written."""
        rows = []
        for k, event in enumerate(self._injection.truth.events):
            onset, filmed, apex = (self._seen[k, name] for name in ("onset", "filmed", "apex"))
            change = np.clip(128 + 4.0 * (apex.astype(float) - filmed), 0, 255).astype(np.uint8)
            row = np.hstack([onset, filmed, apex, change])
            title = f"{event.kind} {event.action} {event.amplitude:.1f} px at {event.apex_t:.2f} s"
            cv2.putText(row, title, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
            rows.append(row)
        sheet = np.vstack(rows) if rows else np.zeros((self.PX, 4 * self.PX, 3), np.uint8)
        if not cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
            raise OutputError(
                f"the contact sheet cannot be written to {path}; choose a writable place with a name ending in .png"
            )
