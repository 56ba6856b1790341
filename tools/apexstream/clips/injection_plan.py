"""When which expression is put into a video of a person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from apexstream.clips.follow import Followed
from apexstream.clips.plan import MACRO_S, MICRO_S, draw_actions, draw_kinds, with_frames
from apexstream.clips.spec import LABEL_OF, Action, ClipSpec, EventTruth, IntoSpec, Truth
from engine.errors import InputError

_STILL: dict[str, Any] = dict.fromkeys(
    ("blinks_per_minute", "sway_px", "roll_deg", "zoom", "yaw_deg", "pitch_deg", "noise_sigma"), 0.0
)
"""What the renderer would add and a video has of its own."""

REST_S = 1.0
"""Least time between two events, and from the start of a stretch to its first event."""
END_S = 0.3
"""Least time from an event to the end of its stretch."""
_TRIES = 200


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
        **_STILL,
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
