"""Tapes: how the regions of a face moved through a video, what a mesh saw meanwhile, and which expressions are known in it.

Known expressions come from three places: annotated long videos (region flow), rendered clips, and expressions that are added to
tapes of real people who show none: motions add, so an expression's displacement over a talker's is an expression in speech.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from engine.errors import InputError
from engine.spotting.features import (
    FLOW_WIDTH,
    HZ,
    MAX_STEP_PX,
    MEANS_S,
    MESH_FEATURES,
    MIRRORED_REGIONS,
    NOISE_S,
    REGIONS,
    WIDTH,
)
from engine.spotting.judge import DELAY
from engine.types import F32, F64
from training.datasets.long_video import LongVideo
from training.judge import SCALE, UNWARMED, WINDOW, Known, Window, is_micro, window

FREE_OF_EXPRESSIONS = ("speech", "quiet")
"""Kinds of tapes to which expressions are added."""

FLOW_REGIONS = ((0, 1), (2,), (3,), (4, 5), (6,), (7,), (8,), (9,), (10,), (11,))
"""Which of the twelve regions of published flow make each of `engine.spotting.features.REGIONS`."""


@dataclass(frozen=True, eq=False)
class Tape:
    """One face, thirty rows a second: displacement [n, 20] in pixels, what a mesh saw [n, 7] or None, the expressions known.

    kind says what the person does: speech or quiet (no expressions), injected (the same with known expressions put into the
    video), rendered (a photograph that a renderer moves), or flow (a long video of a laboratory).
    """

    name: str
    person: str
    kind: str
    displacement: F32
    mesh: F32 | None = None
    known: tuple[Known, ...] = ()


def rows_of(displacement: F32, mesh: F32 | None) -> F32:
    """The rows [n, WIDTH] that `engine.spotting.features.FeatureSeries` makes of a tape, all at once."""
    place = displacement.astype(np.float64)
    velocity = np.clip(np.diff(place, axis=0, prepend=place[:1]), -MAX_STEP_PX, MAX_STEP_PX)
    place = place[:1] + np.cumsum(velocity, 0)
    jump = np.diff(velocity, axis=0, prepend=velocity[:1] * 0)
    size = np.minimum(np.hypot(jump[:, ::2], jump[:, 1::2]), 1.0)
    followed = np.concatenate([*(place for _ in MEANS_S), size], 1)
    paces = np.repeat((*MEANS_S, NOISE_S), [*(place.shape[1] for _ in MEANS_S), size.shape[1]])
    means = running_mean(followed, paces)
    noise = means[:, -size.shape[1] :]
    wide = np.concatenate([2 * velocity, followed[:, : -size.shape[1]] - means[:, : -size.shape[1]]], 1)
    rows = np.zeros((len(place), WIDTH), np.float32)
    rows[:, : wide.shape[1]] = np.copysign(np.log1p(2 * np.abs(wide)), wide) / 1.5
    rows[:, wide.shape[1] : FLOW_WIDTH] = np.log(noise + 0.01) / 2 + 1
    if mesh is not None:
        look = mesh.astype(np.float64)
        step = np.clip(np.diff(look, axis=0, prepend=look[:1]), -2.0, 2.0)
        rows[:, FLOW_WIDTH:-1] = np.tanh(np.concatenate([2 * step, look - running_mean(look, 1.0)], 1))
        rows[:, -1] = 1.0
    return rows


def running_mean(values: F64, seconds: float | F64) -> F64:
    """The exponential mean [n, k] of values [n, k] over so many seconds, all or each [k], from the first value on."""
    pace, mean = -np.expm1(-1 / (HZ * seconds)), values[0]
    out = np.empty_like(values)
    for k, value in enumerate(values):
        mean = mean + pace * (value - mean)
        out[k] = mean
    return out


def of_flow(video: LongVideo) -> Tape:
    """A long video of region flow. Raises InputError where it holds pictures."""
    if not isinstance(video.source, np.ndarray):
        raise InputError(f"the video {video.name} holds pictures; region flow is needed")
    flow = np.clip(video.source, -MAX_STEP_PX, MAX_STEP_PX)
    place = np.cumsum(np.stack([flow[:, list(parts)].mean(1) for parts in FLOW_REGIONS], 1), 0, dtype=np.float64)
    factor = HZ / video.fps
    known = tuple(
        Known(one.onset * factor, (one.offset + 1) * factor - 1, is_micro(one.onset / video.fps, one.offset / video.fps))
        for one in video.truth
    )
    return Tape(video.name, video.subject, "flow", resampled(place.reshape(len(place), -1), video.fps), None, known)


def resampled(values: F64, fps: float) -> F32:
    """Values [n, k] at fps, as thirty rows a second."""
    at = np.arange(0, (len(values) - 1) / fps + 1e-9, 1 / HZ) * fps
    return np.stack([np.interp(at, np.arange(len(values)), column) for column in values.T], 1).astype(np.float32)


ACTIONS: dict[str, dict[str, tuple[float, float]]] = {
    "brow_raise": {
        "brow_inner_left": (0, -1),
        "brow_inner_right": (0, -1),
        "brow_outer_left": (0, -0.5),
        "brow_outer_right": (0, -0.5),
    },
    "brow_lower": {
        "brow_inner_left": (0.4, 0.8),
        "brow_inner_right": (-0.4, 0.8),
        "brow_outer_left": (0, 0.15),
        "brow_outer_right": (0, 0.15),
    },
    "smile": {"lip_corner_left": (-0.7, -0.65), "lip_corner_right": (0.7, -0.65), "upper_lip": (0, -0.1), "nose": (0, -0.1)},
    "nose_wrinkle": {
        "nose": (0, -1),
        "upper_lip": (0, -0.65),
        "brow_inner_left": (0.07, 0.2),
        "brow_inner_right": (-0.07, 0.2),
    },
    "lip_depress": {
        "lip_corner_left": (-0.12, 0.9),
        "lip_corner_right": (0.12, 0.9),
        "upper_lip": (0, 0.1),
        "lower_lip": (0, -0.1),
    },
    "surprise": {
        "brow_inner_left": (0, -0.8),
        "brow_inner_right": (0, -0.8),
        "brow_outer_left": (0, -0.5),
        "brow_outer_right": (0, -0.5),
        "lower_lip": (0, 1),
        "lip_corner_left": (0.1, 0.3),
        "lip_corner_right": (-0.1, 0.3),
    },
}
"""Where facial actions move the regions (right, down), after FACS: AU1+2, AU4, AU6+12, AU9+10, AU15, AU1+2+26; the largest
about 1."""

OF_THE_BROWS = ("brow_raise", "brow_lower")
MICRO_PX, MACRO_PX = (0.45, 6.0), (0.9, 11.0)
JAW_A_PX = 0.4  # how far the mesh sees the jaw drop (`engine.spotting.features.MESH_FEATURES`) for a pixel of the lower lip
PACE = (0.8, 1.3)
SHORT, SHORT_S, NOTHING_POSED = 0.2, (1.0, 4.0), 0.35  # share of short clips, their length, and share without an expression
MICRO_SHARE = 0.55
MICRO_LENGTH_S, MACRO_LENGTH_S = (0.17, 0.5), (0.5, 4.0)


def added(tape: Tape, rate: float, rng: np.random.Generator, real: Sequence[F32] = ()) -> Tape:
    """The tape with expressions added, each of its places taken with probability rate; real [n, 20] are displacements of
    expressions of real people, taken as often as made ones."""
    place, moved, known = tape.displacement, np.zeros_like(tape.displacement), list(tape.known)
    at = int(rng.uniform(0.3, 2.5) * HZ)
    while at < len(place) - 8:
        if rng.random() < rate:
            motion = _of_people(real, rng) if len(real) and rng.random() < 0.4 else _made(tape.kind == "speech", rng)
            motion = motion[: len(place) - at]
            moved[at : at + len(motion)] += motion
            length = (len(motion) - 1) / HZ
            known.append(Known(at, at + len(motion) - 1, is_micro(0, length)))
            at += len(motion)
        at += int(rng.uniform(0.5, 4.0) * HZ)
    return _moved(tape, moved, known)


def _moved(tape: Tape, moved: F32, known: Sequence[Known]) -> Tape:
    """The tape with a motion [n, 20] added; the mesh sees of it that the jaw drops."""
    mesh = tape.mesh
    if mesh is not None:
        mesh = mesh.copy()
        mesh[:, MESH_FEATURES.index("jaw")] += JAW_A_PX * np.clip(moved[:, 2 * REGIONS.index("lower_lip") + 1], 0, None)
    return replace(tape, displacement=tape.displacement + moved, mesh=mesh, known=tuple(known))


def _of_people(real: Sequence[F32], rng: np.random.Generator) -> F32:
    motion: F32 = real[int(rng.integers(len(real)))] * np.float32(rng.uniform(0.7, 1.4))
    return _mirrored(motion) if rng.random() < 0.5 else motion


def _mirrored(motion: F32) -> F32:
    turned = motion.reshape(len(motion), -1, 2)[:, list(MIRRORED_REGIONS)] * np.array([-1, 1], np.float32)
    return turned.reshape(len(motion), -1)


def _made(speech: bool, rng: np.random.Generator) -> F32:
    """[n, 20] of an action with its own proportions, strength and course; where a person speaks mostly of the brows."""
    names = list(ACTIONS)
    while True:
        name = names[rng.integers(len(names))]
        if not speech or name in OF_THE_BROWS or rng.random() < 0.35:
            break
    where = _pattern(name, rng)
    if rng.random() < 0.15:
        where = where + rng.uniform(0.3, 0.9) * _pattern(names[rng.integers(len(names))], rng)
    micro = rng.random() < MICRO_SHARE
    height = np.exp(rng.uniform(*np.log(MICRO_PX if micro else MACRO_PX)))
    motion: F32 = (course(micro, rng)[:, None] * (height * where).ravel()).astype(np.float32)
    return motion


def _pattern(name: str, rng: np.random.Generator) -> F64:
    """[10, 2] of an action: each region, and both sides of the face, a little stronger or weaker than usual."""
    out, lean = np.zeros((len(REGIONS), 2)), rng.uniform(-0.2, 0.2)
    for region, step in ACTIONS[name].items():
        side = 1 + lean * (region.endswith("_left") - region.endswith("_right"))
        turn, strength = np.deg2rad(rng.normal(0, 8)), side * rng.uniform(0.75, 1.25)
        if region.startswith("brow_outer"):
            strength *= rng.uniform(0.2, 1.8)
        u, v = step
        out[REGIONS.index(region)] = strength * np.array(
            [u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)]
        )
    return out


def course(micro: bool, rng: np.random.Generator) -> F64:
    """[n] height of an expression over time, 0 to 1 and back: raised cosines up and down, held in between, fading a little."""
    length = float(np.exp(rng.uniform(*np.log(MICRO_LENGTH_S if micro else MACRO_LENGTH_S))))
    rise = length * rng.uniform(0.25, 0.6) if micro else min(rng.uniform(0.15, 0.7), 0.6 * length)
    fall = (length - rise) * rng.uniform(0.5, 1.0) if micro else min(rng.uniform(0.2, 0.9), length - rise)
    hold = length - rise - fall
    t = np.arange(int(np.ceil(length * HZ)) + 1) / HZ
    ramp = np.where(t < rise, t / rise, np.where(t < rise + hold, 1.0, 1 - (t - rise - hold) / fall))
    height = (1 - np.cos(np.pi * np.clip(ramp, 0, 1))) / 2
    if hold > 0.4:
        height = height * (1 - rng.uniform(0, 0.3) * np.clip((t - rise) / hold, 0, 1))
    return np.asarray(height)


def expressions(tapes: Sequence[Tape]) -> list[F32]:
    """Displacements [n, 20] of the known expressions of tapes, from rest to rest: what is left at their end is taken out."""
    out = []
    for tape in tapes:
        for one in tape.known:
            first, stop = round(one.onset) - 2, round(one.offset) + 4
            if first >= 0 and stop <= len(tape.displacement) and stop - first <= 5 * HZ:
                motion = tape.displacement[first:stop] - tape.displacement[first]
                out.append((motion - np.linspace(0, 1, len(motion))[:, None] * motion[-1]).astype(np.float32))
    return out


class LongVideos:
    """Draws windows of tapes whose expressions are known: seven in ten from tapes with expressions, and of those seven in ten
    next to one."""

    def __init__(self, tapes: Sequence[Tape]) -> None:
        self._tapes = [(tape, rows_of(tape.displacement, tape.mesh)) for tape in tapes]
        self._with = [k for k, tape in enumerate(tapes) if tape.known] or list(range(len(tapes)))

    def __call__(self, rng: np.random.Generator) -> Window:
        """One window."""
        k = self._with[rng.integers(len(self._with))] if rng.random() < 0.7 else int(rng.integers(len(self._tapes)))
        tape, rows = self._tapes[k]
        most = max(len(rows) - WINDOW, 0)
        at = int(rng.integers(0, most + 1))
        if tape.known and rng.random() < 0.7:
            onset = tape.known[rng.integers(len(tape.known))].onset
            at = int(np.clip(onset - rng.integers(20, WINDOW - 60), 0, most))
        part = rows[at : at + WINDOW].copy()
        part[:, : FLOW_WIDTH - len(REGIONS)] *= rng.uniform(*SCALE)
        return window(part, _within(tape.known, at, len(part)))


class LiveTapes:
    """Draws windows of tapes that a mesh watched, with expressions added to those of people who show none.

    mesh is left out of some, so that it helps and is not needed.
    """

    def __init__(self, tapes: Sequence[Tape], real: Sequence[F32], quiet: float = 1.0) -> None:
        self._tapes, self._real, self._quiet = list(tapes), list(real), quiet
        often = np.array([np.clip(len(tape.displacement) / 200, 1, 4) for tape in tapes])
        self._share = often / often.sum()

    def __call__(self, rng: np.random.Generator) -> Window:
        """One window."""
        tape = self._tapes[rng.choice(len(self._tapes), p=self._share)]
        free = tape.kind in FREE_OF_EXPRESSIONS
        if free:
            tape = stretched(tape, rng)
        at = int(rng.integers(0, max(len(tape.displacement) - WINDOW, 0) + 1))
        stop = at + WINDOW
        part = replace(
            tape,
            displacement=tape.displacement[at:stop],
            mesh=None if tape.mesh is None or rng.random() < 0.15 else tape.mesh[at:stop],
            known=_within(tape.known, at, min(stop, len(tape.displacement)) - at),
        )
        short = free and rng.random() < SHORT
        if short:
            part = held(part, rng)
        elif free:
            part = added(part, rng.choice([0, 0.3, 0.8], p=[0.3, 0.3, 0.4]), rng, self._real)
        if free and rng.random() < 0.3:
            noise = rng.normal(0, rng.uniform(0, 0.08), part.displacement.shape)
            part = replace(part, displacement=part.displacement + noise.astype(np.float32))
        rows = rows_of(part.displacement * np.float32(rng.uniform(0.8, 1.25)), part.mesh)
        if short:
            rows = np.concatenate([rows, np.repeat(rows[-1:], DELAY, axis=0)])  # as live analysis ends
        return window(
            rows, part.known, quiet=self._quiet if tape.kind == "speech" else 1.0, unwarmed=1.0 if short else UNWARMED
        )


def held(tape: Tape, rng: np.random.Generator) -> Tape:
    """The start of a tape as a short clip, in which mostly one expression is posed and held to the end."""
    count = min(int(rng.uniform(*SHORT_S) * HZ), len(tape.displacement))
    part = replace(
        tape, displacement=tape.displacement[:count], mesh=None if tape.mesh is None else tape.mesh[:count], known=()
    )
    onset = int(rng.uniform(0.1, 0.6) * count)
    rise = int(rng.uniform(0.2, 0.9) * HZ)
    if rng.random() < NOTHING_POSED or onset + rise > count - 6:
        return part
    names = list(ACTIONS)
    where = _pattern(names[rng.integers(len(names))], rng)
    if rng.random() < 0.3:
        where = where + rng.uniform(0.3, 0.9) * _pattern(names[rng.integers(len(names))], rng)
    ramp = (1 - np.cos(np.pi * np.clip((np.arange(count) - onset) / rise, 0, 1))) / 2
    height = np.exp(rng.uniform(*np.log(MACRO_PX)))
    moved = (ramp[:, None] * (height * where).ravel()).astype(np.float32)
    return _moved(part, moved, [Known(onset, count - 1, is_micro(0, (count - 1 - onset) / HZ))])


def stretched(tape: Tape, rng: np.random.Generator) -> Tape:
    """A stretch of a tape without known expressions, at another pace: people speak and blink faster or slower."""
    pace = rng.uniform(*PACE)
    count = min(int(np.ceil((WINDOW + 1) * pace)), len(tape.displacement))
    first = int(rng.integers(0, len(tape.displacement) - count + 1))
    at = np.arange(0, count - 1 + 1e-9, pace)

    def paced(values: F32) -> F32:
        part = values[first : first + count]
        return np.stack([np.interp(at, np.arange(count), column) for column in part.T], 1).astype(np.float32)

    return replace(tape, displacement=paced(tape.displacement), mesh=None if tape.mesh is None else paced(tape.mesh))


class Mixed:
    """Draws from several, each with its share."""

    def __init__(self, parts: Sequence[tuple[LongVideos | LiveTapes, float]]) -> None:
        self._parts = [part for part, _ in parts]
        shares = np.array([share for _, share in parts])
        self._shares = shares / shares.sum()

    def __call__(self, rng: np.random.Generator) -> Window:
        """One window."""
        return self._parts[rng.choice(len(self._parts), p=self._shares)](rng)


def _within(known: Sequence[Known], at: int, count: int) -> tuple[Known, ...]:
    """Known expressions as seen from row at on, those that reach into the next count rows."""
    seen = (replace(one, onset=one.onset - at, offset=one.offset - at) for one in known)
    return tuple(one for one in seen if one.offset > 0 and one.onset < count)


def write_tapes(path: Path, tapes: Sequence[Tape]) -> None:
    """Tapes as one compressed file."""
    arrays: dict[str, F64 | F32] = {}
    for k, tape in enumerate(tapes):
        arrays[f"{k}|{tape.name}|{tape.person}|{tape.kind}|displacement"] = tape.displacement
        if tape.mesh is not None:
            arrays[f"{k}|{tape.name}|{tape.person}|{tape.kind}|mesh"] = tape.mesh
        known = [(one.onset, one.offset, float(one.micro)) for one in tape.known]
        arrays[f"{k}|{tape.name}|{tape.person}|{tape.kind}|known"] = np.array(known, np.float32).reshape(-1, 3)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_tapes(path: Path) -> Iterator[Tape]:
    """The tapes of a file. Raises InputError where it is none."""
    try:
        content = np.load(path)
        names = [name for name in content.files if name.endswith("|displacement")]
        for name in names:
            stem = name.removesuffix("displacement")
            _, title, person, kind, _ = name.split("|")
            mesh = content[stem + "mesh"].astype(np.float32) if stem + "mesh" in content.files else None
            known = tuple(Known(float(a), float(b), bool(c)) for a, b, c in content[stem + "known"])
            yield Tape(title, person, kind, content[name].astype(np.float32), mesh, known)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as wrong:
        raise InputError(f"{path} holds no tapes: {wrong}") from wrong
