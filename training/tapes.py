"""Tapes: how the regions of a face moved through a video, its mesh features, and the expressions known in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from engine.errors import InputError
from engine.spotting.features import FLOW_WIDTH, HZ, MAX_STEP_PX, MEANS_S, NOISE_S, WIDTH
from engine.types import F32, F64
from training.datasets.long_video import LongVideo
from training.judge import Known, is_micro

FLOW_REGIONS = ((0, 1), (2,), (3,), (4, 5), (6,), (7,), (8,), (9,), (10,), (11,))
"""Which of the twelve regions of published flow make each of `engine.spotting.features.REGIONS`."""


@dataclass(frozen=True, eq=False)
class Tape:
    """One face, thirty rows a second: displacement [n, 20] in pixels, mesh features [n, 7] or None, the known expressions.

    kind is what the person does: speech or quiet (no expressions), injected (the same with known expressions rendered into the
    video), rendered (a photograph that a renderer moves), or flow (a long video of a laboratory).
    """

    name: str
    person: str
    kind: str
    displacement: F32
    mesh: F32 | None = None
    known: tuple[Known, ...] = ()


def rows_of(displacement: F32, mesh: F32 | None) -> F32:
    """Feature rows [n, WIDTH] of a whole tape, as `engine.spotting.features.FeatureSeries` makes them one by one."""
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
        features = mesh.astype(np.float64)
        step = np.clip(np.diff(features, axis=0, prepend=features[:1]), -2.0, 2.0)
        rows[:, FLOW_WIDTH:-1] = np.tanh(np.concatenate([2 * step, features - running_mean(features, 1.0)], 1))
        rows[:, -1] = 1.0
    return rows


def running_mean(values: F64, seconds: float | F64) -> F64:
    """Exponential mean [n, k] of values [n, k] with one time constant or one each [k]; it starts at the first value."""
    rate, mean = -np.expm1(-1 / (HZ * seconds)), values[0]
    out = np.empty_like(values)
    for k, value in enumerate(values):
        mean = mean + rate * (value - mean)
        out[k] = mean
    return out


def tape_of_flow(video: LongVideo) -> Tape:
    """The tape of a long video of region flow. Raises InputError where it holds pictures."""
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
    """Values [n, k] at fps, resampled to thirty rows a second."""
    at = np.arange(0, (len(values) - 1) / fps + 1e-9, 1 / HZ) * fps
    return np.stack([np.interp(at, np.arange(len(values)), column) for column in values.T], 1).astype(np.float32)


def write_tapes(path: Path, tapes: Sequence[Tape]) -> None:
    """Writes tapes as one compressed file."""
    arrays: dict[str, F64 | F32] = {}
    for k, tape in enumerate(tapes):
        stem = f"{k}|{tape.name}|{tape.person}|{tape.kind}|"
        arrays[stem + "displacement"] = tape.displacement
        if tape.mesh is not None:
            arrays[stem + "mesh"] = tape.mesh
        known = [(one.onset, one.offset, float(one.micro)) for one in tape.known]
        arrays[stem + "known"] = np.array(known, np.float32).reshape(-1, 3)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_tapes(path: Path) -> Iterator[Tape]:
    """Reads the tapes of a file. Raises InputError where it is none."""
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
