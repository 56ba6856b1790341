"""Expressions added to tapes of real people who show none: motions add, so an expression's displacement over a talker's is an
expression in speech.

The motions are cut out of tapes with known expressions, or made from the facial actions of FACS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.spotting.features import HZ, MESH_FEATURES, MIRRORED_REGIONS, REGIONS
from engine.types import F32, F64
from training.judge import Known, is_micro
from training.tapes import Tape

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
BROW_ACTIONS = ("brow_raise", "brow_lower")
MICRO_PX, MACRO_PX = (0.45, 6.0), (0.9, 11.0)
MICRO_LENGTH_S, MACRO_LENGTH_S = (0.17, 0.5), (0.5, 4.0)
MICRO_SHARE = 0.55
REAL_SHARE = 0.4  # of the added motions, where there are any of real people
JAW_PER_PX = 0.4  # by which the mesh feature "jaw" rises for a pixel of the lower lip
SHORT_S, NEUTRAL_SHARE = (1.0, 4.0), 0.35  # length of short clips, and the share of them without an expression


def add_expressions(tape: Tape, rate: float, rng: np.random.Generator, real: Sequence[F32] = ()) -> Tape:
    """The tape with expressions added, each of its places taken with probability rate; real [n, 20] are displacements of
    expressions of real people."""
    place, added, known = tape.displacement, np.zeros_like(tape.displacement), list(tape.known)
    at = int(rng.uniform(0.3, 2.5) * HZ)
    while at < len(place) - 8:
        if rng.random() < rate:
            use_real = len(real) and rng.random() < REAL_SHARE
            motion = _varied(real, rng) if use_real else _random_expression(tape.kind == "speech", rng)
            motion = motion[: len(place) - at]
            added[at : at + len(motion)] += motion
            length = (len(motion) - 1) / HZ
            known.append(Known(at, at + len(motion) - 1, is_micro(0, length)))
            at += len(motion)
        at += int(rng.uniform(0.5, 4.0) * HZ)
    return _add_motion(tape, added, known)


def hold_expression(tape: Tape, rng: np.random.Generator) -> Tape:
    """The start of a tape as a short clip, mostly with one expression that is held to the end."""
    count = min(int(rng.uniform(*SHORT_S) * HZ), len(tape.displacement))
    mesh = None if tape.mesh is None else tape.mesh[:count]
    part = replace(tape, displacement=tape.displacement[:count], mesh=mesh, known=())
    onset, rise = int(rng.uniform(0.1, 0.6) * count), int(rng.uniform(0.2, 0.9) * HZ)
    if rng.random() < NEUTRAL_SHARE or onset + rise > count - 6:
        return part
    pattern = _mixed_pattern(_random_action(rng), 0.3, rng)
    ramp = (1 - np.cos(np.pi * np.clip((np.arange(count) - onset) / rise, 0, 1))) / 2
    height = np.exp(rng.uniform(*np.log(MACRO_PX)))
    motion = (ramp[:, None] * (height * pattern).ravel()).astype(np.float32)
    return _add_motion(part, motion, [Known(onset, count - 1, is_micro(0, (count - 1 - onset) / HZ))])


def cut_expressions(tapes: Sequence[Tape]) -> list[F32]:
    """Displacements [n, 20] of the known expressions of tapes that are no longer than five seconds; drift is removed."""
    out = []
    for tape in tapes:
        for one in tape.known:
            first, stop = round(one.onset) - 2, round(one.offset) + 4
            if first >= 0 and stop <= len(tape.displacement) and stop - first <= 5 * HZ:
                motion = tape.displacement[first:stop] - tape.displacement[first]
                out.append((motion - np.linspace(0, 1, len(motion))[:, None] * motion[-1]).astype(np.float32))
    return out


def _add_motion(tape: Tape, motion: F32, known: Sequence[Known]) -> Tape:
    """The tape with a motion [n, 20] added, and the jaw that drops with it in its mesh features."""
    mesh = tape.mesh
    if mesh is not None:
        mesh = mesh.copy()
        mesh[:, MESH_FEATURES.index("jaw")] += JAW_PER_PX * np.clip(motion[:, 2 * REGIONS.index("lower_lip") + 1], 0, None)
    return replace(tape, displacement=tape.displacement + motion, mesh=mesh, known=tuple(known))


def _varied(real: Sequence[F32], rng: np.random.Generator) -> F32:
    """One of the real motions, stronger or weaker, half of them mirrored."""
    motion: F32 = real[int(rng.integers(len(real)))] * np.float32(rng.uniform(0.7, 1.4))
    if rng.random() < 0.5:
        mirrored = motion.reshape(len(motion), -1, 2)[:, list(MIRRORED_REGIONS)] * np.array([-1, 1], np.float32)
        motion = mirrored.reshape(len(motion), -1)
    return motion


def _random_expression(speech: bool, rng: np.random.Generator) -> F32:
    """[n, 20] of a random action, strength and time course; mostly of the brows where the person speaks."""
    while True:
        name = _random_action(rng)
        if not speech or name in BROW_ACTIONS or rng.random() < 0.35:
            break
    pattern = _mixed_pattern(name, 0.15, rng)
    micro = rng.random() < MICRO_SHARE
    height = np.exp(rng.uniform(*np.log(MICRO_PX if micro else MACRO_PX)))
    motion: F32 = (time_course(micro, rng)[:, None] * (height * pattern).ravel()).astype(np.float32)
    return motion


def _random_action(rng: np.random.Generator) -> str:
    return list(ACTIONS)[rng.integers(len(ACTIONS))]


def _mixed_pattern(action: str, mixed_share: float, rng: np.random.Generator) -> F64:
    """`_pattern` of an action, in some cases with a weaker second one."""
    pattern = _pattern(action, rng)
    if rng.random() < mixed_share:
        pattern = pattern + rng.uniform(0.3, 0.9) * _pattern(_random_action(rng), rng)
    return pattern


def _pattern(action: str, rng: np.random.Generator) -> F64:
    """[10, 2] of an action, with the strength and direction of each region and both sides of the face varied."""
    out, asymmetry = np.zeros((len(REGIONS), 2)), rng.uniform(-0.2, 0.2)
    for region, (u, v) in ACTIONS[action].items():
        side = 1 + asymmetry * (region.endswith("_left") - region.endswith("_right"))
        angle, strength = np.deg2rad(rng.normal(0, 8)), side * rng.uniform(0.75, 1.25)
        if region.startswith("brow_outer"):
            strength *= rng.uniform(0.2, 1.8)
        c, s = np.cos(angle), np.sin(angle)
        out[REGIONS.index(region)] = strength * np.array([u * c - v * s, u * s + v * c])
    return out


def time_course(micro: bool, rng: np.random.Generator) -> F64:
    """[n] height of an expression over time, 0 to 1 and back: raised cosines up and down, between them a hold that fades."""
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
