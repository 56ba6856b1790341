"""Known expressions, put into a video of a person.

The face is followed through the video (`follow`); in the frames of an event, the picture around it is warped by the action's
displacement field, which goes with the mesh. Everything else stays as it was filmed: head motion, speech, light, noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from apexstream.clips.actions import GRID_STEP, Grid, Push, both, grid_over, unit, varied, windows
from apexstream.clips.follow import Followed, follow
from apexstream.clips.plan import MACRO_S, MICRO_S, course, draw_actions, draw_kinds, with_frames
from apexstream.clips.portrait import Portrait
from apexstream.clips.spec import LABEL_OF, WITHOUT_DISTURBANCE, Action, ClipSpec, EventTruth, IntoSpec, Truth, truth_path
from apexstream.clips.write import encode, sheet_row, write_sheet
from engine.errors import InputError
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

REST_S = 1.0
"""Least time between two events, and from the start of a stretch to its first event."""
END_S = 0.3
"""Least time from an event to the end of its stretch."""
_TRIES = 200


def put_into(
    spec: IntoSpec,
    path: Path,
    progress: Callable[[str, int, int | None], None] = lambda name, done, total: None,
    sheet: Path | None = None,
) -> Truth:
    """Put expressions into spec.video: an H.264 file with the video's own times, and its truth in PATH.truth.json; on request
    a contact sheet too. Sound is left out.

    progress is called with what is done ("following", "writing"), frames so far, frames in all where that is known. Raises
    SourceError where the video cannot be read, InputError where it shows no face or has no room for so many events, OutputError
    where a file cannot be written.
    """
    face = follow(Path(spec.video), spec.seconds, partial(progress, "following"))
    truth = plan_into(spec, face)
    injection = Injection(face, truth)
    kept = _Sheet(injection)
    pictures = injection.pictures() if sheet is None else kept.pictures()
    frames = len(face.times)
    encode(path, pictures, size=face.size, fps=face.fps, crf=spec.crf, progress=lambda i: progress("writing", i + 1, frames))
    truth.write(truth_path(path))
    if sheet is not None:
        kept.write(sheet)
    return truth


def plan_into(spec: IntoSpec, face: Followed) -> Truth:
    """When which expression comes; none within REST_S of another, on a cut or where the face is not seen."""
    rng = np.random.default_rng([spec.seed & 0xFFFFFFFF, 11])
    length = float(face.times[-1] - face.times[0]) + 1 / face.fps
    wanted = spec.n_events if spec.n_events is not None else round(spec.events_per_minute * length / 60)
    lengths = [float(rng.uniform(*(MACRO_S if macro else MICRO_S))) for macro in draw_kinds(spec, wanted, rng)]
    starts = _starts(face, lengths, rng)
    if spec.n_events is not None and len(starts) < wanted:
        raise InputError(
            f"only {len(starts)} of {wanted} events fit into {spec.video}, where they keep {REST_S:g} s from each other, from "
            "cuts and from frames without a face; ask for fewer"
        )
    actions = draw_actions(spec, len(starts), rng)
    events = tuple(
        _event(spec, face, (start, start + lengths[i]), action, rng) for (start, i), action in zip(starts, actions, strict=True)
    )
    eyes = [face.portrait(i).eye_distance for first, last in face.runs for i in range(first, last)]
    described = ClipSpec(
        fps=face.fps,
        duration_s=length,
        seed=spec.seed,
        size=face.size,
        eye_px=float(np.median(eyes)),
        n_events=len(events),
        actions=spec.actions,
        macro_fraction=spec.macro_fraction,
        crf=spec.crf,
        **WITHOUT_DISTURBANCE,
    )
    return Truth(described, len(face.times), events, (), replace(spec, video=Path(spec.video).name))


def _starts(face: Followed, lengths: list[float], rng: np.random.Generator) -> list[tuple[float, int]]:
    """(onset in seconds, which of lengths), in order of time; those that find no place are left out. The most of a number of
    random arrangements."""
    best: list[tuple[float, int]] = []
    for _ in range(_TRIES):
        taken: list[tuple[float, int]] = []
        for i in np.argsort([-n for n in lengths]):
            start = _place(face, lengths[i], [(s, s + lengths[k]) for s, k in taken], rng)
            if start is not None:
                taken.append((start, int(i)))
        best = max(best, taken, key=len)
        if len(best) == len(lengths):
            break
    return sorted(best)


def _place(face: Followed, length: float, taken: list[tuple[float, float]], rng: np.random.Generator) -> float | None:
    """A random onset for an event of that length in what the others leave free; None where it fits nowhere."""
    free: list[tuple[float, float]] = []
    for first, last in face.runs:
        low, end = face.times[first] + REST_S, face.times[last - 1] - END_S - length
        for start, stop in sorted(taken):
            if stop + REST_S <= low or start - REST_S - length >= end:
                continue
            free.append((low, start - REST_S - length))
            low = stop + REST_S
        free.append((low, end))
    room = np.array([max(0.0, high - low) for low, high in free])
    if not room.sum():
        return None
    low, high = free[int(rng.choice(len(free), p=room / room.sum()))]
    return float(rng.uniform(low, high))


def _event(spec: IntoSpec, face: Followed, span: tuple[float, float], action: Action, rng: np.random.Generator) -> EventTruth:
    """An event from span[0] to span[1] seconds whose apex lies on a frame, so that its full amplitude is seen."""
    onset, offset = span
    macro = offset - onset >= MACRO_S[0]
    middle = onset + (offset - onset) * float(rng.uniform(*((0.25, 0.6) if macro else (0.35, 0.6))))
    apex = float(face.times[np.abs(face.times - middle).argmin()])
    if not onset < apex < offset:
        raise InputError(
            f"{spec.video} has too few frames a second ({face.fps:.1f}) for an expression of {offset - onset:.2f} s; "
            "ask for --macro-fraction 1"
        )
    event = EventTruth(
        label=LABEL_OF[action],
        action=action,
        kind="macro" if macro else "micro",
        amplitude=round(float(rng.uniform(*(spec.macro_px if macro else spec.micro_px))), 3),
        onset_t=round(onset, 4),
        apex_t=round(apex, 6),
        offset_t=round(offset, 4),
    )
    return with_frames(event, face.times)


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
        move = next((move for move in self.moves if move.part[i] > 0), None)
        if move is None:
            return picture
        shift, (x, y) = self.displacement(i, move)
        h, w = shift.shape[:2]
        if not w or not h:
            return picture
        at_x, at_y = np.meshgrid(np.arange(x, x + w, dtype=np.float32), np.arange(y, y + h, dtype=np.float32))
        out = picture.copy()
        out[y : y + h, x : x + w] = cv2.remap(
            picture, at_x - shift[..., 0], at_y - shift[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        return out

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


def _within(outline: F64, grid: Grid) -> F64:
    """[H, W, 1] weight that is 0 at the outline [n, 2] of the face and beyond, and 1 from _SKIN within it on: hair and what is
    behind the face stay where they are."""
    mask = np.zeros(grid.nodes.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round((outline - grid.origin) / GRID_STEP).astype(np.int32)], 1)
    x = np.clip(cv2.distanceTransform(mask, cv2.DIST_L2, 5) * (GRID_STEP / (_SKIN * _FIELD_EYE_PX)), 0, 1).astype(np.float64)
    return np.asarray((x * x * (3 - 2 * x))[..., None])


def _carried(displacement: F32) -> F32:
    """From the displacement of what lies at each node before the motion to that of what is seen there after it;
    [H, W, 2] in steps of the grid. (So a brow under the middle of a window moves by all of it.)"""
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
            title = f"{event.kind} {event.action} {event.amplitude:.1f} px at {event.apex_t:.2f} s"
            rows.append(sheet_row(title, (onset, filmed, apex), filmed))
        write_sheet(path, rows or [np.zeros((self.PX, 4 * self.PX, 3), np.uint8)])
