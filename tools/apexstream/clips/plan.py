"""From a seed to what happens when: events, blinks, frame times and the course of each event.

Times depend on the seed, the face and the settings that concern them, never on the frame rate: the same plan can be rendered
at 30 and 120 frames/s, or with a varying frame rate, and be compared.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from apexstream.clips.spec import LABEL_OF, Action, BlinkTruth, ClipSpec, EventTruth, IntoSpec, Truth
from engine.errors import InputError
from engine.types import F64, MICRO_LIMIT_S

FIRST_ONSET_S = 1.5
REST_S = 1.0
END_REST_S = 1.0
MICRO_S = (0.2, MICRO_LIMIT_S)
MACRO_S = (0.7, 3.0)
BLINK_S = (0.12, 0.3)


def generator(spec: ClipSpec, topic: str) -> np.random.Generator:
    """A random stream of its own for each topic of a clip, so that a change in one leaves the others as they are."""
    return np.random.default_rng([spec.seed & 0xFFFFFFFF, zlib.crc32(spec.photo.encode()), zlib.crc32(topic.encode())])


def frame_times(spec: ClipSpec) -> F64:
    """[N] float64 seconds from 0, strictly rising, all below the duration."""
    count = max(1, round(spec.duration_s * spec.fps))
    if spec.vfr == 0:
        return np.arange(count) / spec.fps
    spread = np.exp(spec.vfr * generator(spec, "vfr").standard_normal(2 * count + 8))
    times = np.concatenate([[0.0], np.cumsum(np.clip(spread, 0.4, 3.0) / spec.fps)])
    return np.asarray(times[times < spec.duration_s])


def plan(spec: ClipSpec) -> Truth:
    """What the clip will show; raises InputError when so many events do not fit into its duration."""
    times = frame_times(spec)
    events = tuple(with_frames(e, times) for e in _events(spec))
    return Truth(spec, len(times), events, _blinks(spec, events))


def with_frames(event: EventTruth, times: F64) -> EventTruth:
    """The event with the frames, of those at `times` [N], that are nearest to its times."""
    onset, apex, offset = (int(np.abs(times - t).argmin()) for t in (event.onset_t, event.apex_t, event.offset_t))
    return replace(event, onset_frame=onset, apex_frame=apex, offset_frame=offset)


def _events(spec: ClipSpec) -> list[EventTruth]:
    rng = generator(spec, "events")
    room = spec.duration_s - FIRST_ONSET_S - END_REST_S
    wanted = spec.n_events if spec.n_events is not None else round(spec.events_per_minute * spec.duration_s / 60)
    kinds = draw_kinds(spec, wanted, rng)
    lengths = [float(rng.uniform(*(MACRO_S if macro else MICRO_S))) for macro in kinds]
    while lengths and sum(lengths) + REST_S * (len(lengths) - 1) > room:
        if spec.n_events is not None:
            raise InputError(f"{wanted} events do not fit into {spec.duration_s:g} s; ask for fewer or for a longer clip")
        lengths.pop()
    n = len(lengths)
    spare = room - sum(lengths) - REST_S * max(0, n - 1)
    rests = rng.dirichlet(np.ones(n + 1)) * max(0.0, spare)
    start = FIRST_ONSET_S
    events = []
    for i, (macro, length, action) in enumerate(zip(kinds, lengths, draw_actions(spec, n, rng), strict=False)):
        start += rests[i]
        low, high = spec.macro_px if macro else spec.micro_px
        events.append(
            EventTruth(
                label=LABEL_OF[action],
                action=action,
                kind="macro" if macro else "micro",
                amplitude=round(float(rng.uniform(low, high)), 3),
                onset_t=round(start, 4),
                apex_t=round(start + length * float(rng.uniform(*((0.25, 0.6) if macro else (0.35, 0.6)))), 4),
                offset_t=round(start + length - 1e-4, 4),
            )
        )
        start += length + REST_S
    return events


def draw_kinds(spec: ClipSpec | IntoSpec, n: int, rng: np.random.Generator) -> list[bool]:
    """Which of n events are macro-expressions: macro_fraction of them, in random order."""
    macros = np.arange(n) < round(spec.macro_fraction * n)
    return [bool(m) for m in rng.permutation(macros)]


def draw_actions(spec: ClipSpec | IntoSpec, n: int, rng: np.random.Generator) -> list[Action]:
    """Classes in equal shares, and within a class its actions in equal shares."""
    labels = sorted({LABEL_OF[a] for a in spec.actions})
    bags: dict[str, list[Action]] = {label: [] for label in labels}
    out: list[Action] = []
    while len(out) < n:
        for label in rng.permutation(labels):
            bag = bags[str(label)]
            if not bag:
                members = [a for a in spec.actions if LABEL_OF[a] == label]
                bag.extend(members[int(i)] for i in rng.permutation(len(members)))
            out.append(bag.pop())
    return out[:n]


def _blinks(spec: ClipSpec, events: tuple[EventTruth, ...]) -> tuple[BlinkTruth, ...]:
    """Blinks at random times, at least 0.4 s apart but for double ones; the first in a rest between events."""
    rng = generator(spec, "blinks")
    wanted = int(rng.poisson(spec.blinks_per_minute * spec.duration_s / 60))
    if spec.blinks_per_minute > 0 and spec.duration_s >= 4:
        wanted = max(1, wanted)
    starts: list[float] = []
    for _ in range(40 * wanted):
        if len(starts) >= wanted:
            break
        start = float(rng.uniform(0.3, max(0.4, spec.duration_s - 0.6)))
        near_event = any(e.onset_t - 0.6 < start < e.offset_t + 0.3 for e in events)
        if (starts or not near_event) and all(abs(start - s) > 0.7 for s in starts):
            starts.append(start)
            follower = start + float(rng.uniform(0.32, 0.4))
            if rng.random() < 0.15 and all(abs(follower - s) > 0.4 for s in starts[:-1]) and follower < spec.duration_s - 0.4:
                starts.append(follower)
    blinks = []
    for start in sorted(starts):
        length = float(rng.uniform(*BLINK_S))
        closed = start + length * float(rng.uniform(0.3, 0.45))
        blinks.append(BlinkTruth(round(start, 4), round(closed, 4), round(start + length, 4)))
    return tuple(blinks)


def course(event: EventTruth, times: F64, family: str, rng: np.random.Generator) -> F64:
    """[N] displacement of an event over time relative to its peak: 0 outside it, 1 at the apex only.

    warp-a rises and falls as raised cosines, warp-b as a smoothstep or a gamma curve. Long events may hold: they reach nine
    tenths early, grow slowly to the apex and decay slowly before they fall.
    """
    rise = np.clip((times - event.onset_t) / (event.apex_t - event.onset_t), 0, 1)
    fall = np.clip((event.offset_t - times) / (event.offset_t - event.apex_t), 0, 1)
    hold = event.kind == "macro" and rng.random() < 0.6
    sharp = float(rng.uniform(0.35, 0.7)) if hold else 1.0
    rounded = rng.random() < 0.5

    def shape(x: F64) -> F64:
        steep = np.clip(x / sharp, 0, 1)
        if family == "warp-a":
            ramp = (1 - np.cos(np.pi * steep)) / 2
        elif rounded:
            ramp = steep**3 * (10 - 15 * steep + 6 * steep**2)
        else:
            ramp = (steep * np.exp(1 - steep)) ** 2
        return np.asarray(ramp if sharp == 1 else 0.9 * ramp + 0.1 * x)

    return np.asarray(np.where(times <= event.apex_t, shape(rise), shape(fall)))


def closing(blinks: tuple[BlinkTruth, ...], times: F64) -> F64:
    """[N] how far the upper lids are down, 0 open to 1 closed; lids close faster than they open."""
    down = np.zeros(len(times))
    for b in blinks:
        x = np.clip((times - b.start_t) / (b.closed_t - b.start_t), 0, 1)
        y = np.clip((b.end_t - times) / (b.end_t - b.closed_t), 0, 1)
        one = np.where(times <= b.closed_t, x * x * (3 - 2 * x), y * y * (3 - 2 * y))
        down = np.maximum(down, one)
    return down
