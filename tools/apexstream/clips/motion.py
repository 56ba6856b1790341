"""Head motion and light as smooth random functions of time, and the depth of a face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apexstream.clips.actions import Grid
from apexstream.clips.plan import generator
from apexstream.clips.portrait import Portrait
from apexstream.clips.spec import ClipSpec
from engine.types import F32, F64

NOD_PX = 6.0
"""Shift of the frame at the height of a strong nod."""
NOD_DEG = 3.0


@dataclass(frozen=True, eq=False)
class Motion:
    """Per frame, [N] each: shift in frame px, roll, yaw and pitch in radians, zoom and light as factors; tilt [N, 2] is the
    relative change of light at the right and lower edges (the other edges change the other way)."""

    x: F64
    y: F64
    roll: F64
    zoom: F64
    yaw: F64
    pitch: F64
    light: F64
    tilt: F64


def wander(times: F64, rng: np.random.Generator) -> F64:
    """[N] a smooth random function within -1..1: sines from 0.05 to 0.5 Hz with random phases."""
    hertz = np.exp(rng.uniform(np.log(0.05), np.log(0.5), 5))
    weight = rng.uniform(0.3, 1.0, 5)
    phase = rng.uniform(0, 2 * np.pi, 5)
    return np.asarray((weight * np.sin(2 * np.pi * hertz * times[:, None] + phase)).sum(axis=1) / weight.sum())


def motion(spec: ClipSpec, times: F64) -> Motion:
    """The head's motion and the light at each frame time."""
    rng = generator(spec, "motion")
    x, y, roll, zoom, yaw, pitch = (wander(times, rng) for _ in range(6))
    nod = nods(spec, times)
    light = 1 + spec.drift * wander(times, rng)
    light = light * (1 + spec.flicker * np.sin(2 * np.pi * (spec.flicker_hz * times + rng.random())))
    return Motion(
        x=spec.sway_px * x,
        y=0.7 * spec.sway_px * y + NOD_PX * nod,
        roll=np.deg2rad(spec.roll_deg) * roll,
        zoom=1 + spec.zoom * zoom,
        yaw=np.deg2rad(spec.yaw_deg) * yaw,
        pitch=np.deg2rad(spec.pitch_deg) * pitch + np.deg2rad(NOD_DEG) * nod,
        light=light,
        tilt=spec.light_tilt * np.column_stack([wander(times, rng), wander(times, rng)]),
    )


def nods(spec: ClipSpec, times: F64) -> F64:
    """[N] quick motions down (or up) and back, each 0.4 to 0.9 s and at most 1 high."""
    rng = generator(spec, "nods")
    total = np.zeros(len(times))
    for _ in range(int(rng.poisson(spec.nods_per_minute * spec.duration_s / 60))):
        start, length = rng.uniform(0, spec.duration_s), rng.uniform(0.4, 0.9)
        x = np.clip((times - start) / length, 0, 1)
        total += rng.choice([-1, 1]) * rng.uniform(0.4, 1) * (1 - np.cos(2 * np.pi * x)) / 2
    return np.clip(total, -1, 1)


def depth(face: Portrait, grid: Grid) -> F32:
    """[H, W] depth of a head in texture px towards the camera: an ellipsoid that sinks into the background at the outline of
    the head, a nose, a brow ridge, and eye sockets."""
    u, v = face.axes(grid.nodes)
    r = np.clip(np.hypot(u / 1.45, v / 1.75), 0, 1)
    z = 0.85 * (1 - r * r) ** 2

    def bump(name: str, height: float, across: float, down: float, lift: float = 0.0) -> F64:
        a, b = face.axes(face.points[name].mean(axis=0))
        return np.asarray(height * np.exp(-0.5 * (((u - a) / across) ** 2 + ((v - b + lift) / down) ** 2)))

    z = z + bump("nose_tip", 0.26, 0.13, 0.14) + bump("nose_tip", 0.12, 0.10, 0.28, 0.2) + bump("chin", 0.06, 0.2, 0.12)
    for side in "rl":
        z = z + bump(f"brow_{side}", 0.04, 0.22, 0.08) - bump(f"lid_{side}_up", 0.06, 0.18, 0.10)
    return np.asarray(z * face.eye_distance, np.float32)
