"""What a run of attacks left behind, and which limits it violates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from tests.soak.attack_target import Outcome
from tests.soak.command import unmet

PHOTOS = ("hopper", "astronaut")
WINDOW_S = 4.0
"""The shortest stretch without an attack whose rate is judged."""
COMPARED_S = 120.0
"""The time over which memory is compared: after the first round, and at the end."""
LEAST_RATE, MAX_GROWTH, MORE_HANDLES, HEALTH_S = 0.9, 0.10, 5, 5.0


@dataclass(frozen=True)
class Sample:
    """The service from outside: seconds since the first attack; MiB, descriptors; frames analysed by camera, None where it did
    not say; seconds /healthz took, None where it did not answer; the machine's load; seconds that the service has used of cores
    so far, and those that its threads have waited for one."""

    at: float
    memory_mib: float
    handles: int
    frames: dict[str, int] | None
    health_s: float | None
    load: float
    cpu_s: float
    waited_s: float


@dataclass(frozen=True)
class Attack:
    """An attack: its name, when it began and ended (seconds since the first one), and what it saw."""

    name: str
    began: float
    ended: float
    outcome: Outcome


@dataclass
class Run:
    """What a run recorded. stored has the id of each event by seq, as often as it is in any file; clients
    what each was sent."""

    samples: list[Sample] = field(default_factory=list)
    attacks: list[Attack] = field(default_factory=list)
    round_s: float | None = None
    stored: list[tuple[int, str]] = field(default_factory=list)
    clients: list[list[tuple[int, str]]] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    log: str = ""
    ended_s: float = 0.0


def windows(found: Run) -> list[tuple[float, float]]:
    """The stretches without an attack that are long enough, seconds since the first one."""
    stretches, free = [], 0.0
    for attack in sorted(found.attacks, key=lambda one: one.began):
        stretches.append((free, attack.began))
        free = max(free, attack.ended)
    stretches.append((free, found.samples[-1].at if found.samples else free))
    return [(start, end) for start, end in stretches if end - start >= WINDOW_S]


def rate(found: Run, stream: str, start: float, end: float) -> tuple[int, float]:
    """Frames of a stream analysed from the first sample in a stretch to the last, and the seconds between them."""
    known = [(one.at, one.frames[stream]) for one in found.samples if one.frames is not None and stream in one.frames]
    inside = [one for one in known if start <= one[0] <= end]
    return (inside[-1][1] - inside[0][1], inside[-1][0] - inside[0][0]) if len(inside) > 1 else (0, 0.0)


def figures(found: Run) -> dict[str, Any]:
    """What is judged and recorded."""
    between = windows(found)
    free = [one for one in found.samples if any(start <= one.at <= end for start, end in between)]
    last = found.samples[-1].at if found.samples else 0.0
    warm = last if found.round_s is None else found.round_s
    early = [one for one in free if warm <= one.at <= warm + COMPARED_S]
    late = [one for one in free if one.at >= last - COMPARED_S]
    load = [one.load for one in found.samples]
    health = sorted(one.health_s for one in found.samples if one.health_s is not None)
    return {
        "attacks": {name: sum(one.name == name for one in found.attacks) for name in sorted({a.name for a in found.attacks})},
        "first_round_s": None if found.round_s is None else round(found.round_s, 1),
        "events": _events(found),
        "cameras": {name: _camera(found, name, between) for name in PHOTOS},
        **{name: _growth(name, early, late, found.samples) for name in ("memory_mib", "handles")},
        "healthz": {
            "asked": len(found.samples),
            "unanswered": sum(one.health_s is None for one in found.samples),
            "median_s": round(median(health), 3) if health else None,
            "p99_s": health[int(0.99 * (len(health) - 1))] if health else None,
            "worst_s": health[-1] if health else None,
        },
        "machine_before": _machine(found, -float("inf"), 0.0),
        "load": {"median": median(load) if load else None, "worst": max(load, default=None)},
        "log": {"bytes": len(found.log), "tracebacks": found.log.count("Traceback"), "escapes": found.log.count("\x1b")},
        "end_s": round(found.ended_s, 1),
    }


def _events(found: Run) -> dict[str, Any]:
    stored = Counter(found.stored)
    numbers = sorted(seq for seq, _ in found.stored)
    names = Counter(name for _, name in found.stored)
    return {
        "stored": len(found.stored),
        "stored_twice": sum(times > 1 for times in names.values()) + len(numbers) - len(set(numbers)),
        "numbers_missing": numbers[-1] - numbers[0] + 1 - len(set(numbers)) if numbers else 0,
        "clients": [
            {
                "seen": len(seen),
                "lost": len(stored.keys() - set(seen)),
                "twice": len(seen) - len(set(seen)),
                "not_stored": len(set(seen) - stored.keys()),
                "out_of_order": sum(b <= a for (a, _), (b, _) in pairwise(seen)),
                "connections": connections,
            }
            for seen, connections in zip(found.clients, found.connections, strict=True)
        ],
    }


def _camera(found: Run, name: str, between: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Rates are of frames analysed a second."""
    count, seconds = rate(found, name, -float("inf"), 0.0)
    before = count / seconds if seconds else 0.0
    total = [rate(found, name, start, end) for start, end in between]
    rates = [count / span if span else 0.0 for count, span in total]
    share = [fps / before if before else 0.0 for fps in rates]
    seconds = sum(span for _, span in total)
    return {
        "fps_before": round(before, 2),
        "fps_between": round(sum(count for count, _ in total) / seconds, 2) if seconds else None,
        "windows": len(between),
        "worst": round(min(share), 3) if share else None,
        "below": [
            {"from": round(start, 1), "to": round(end, 1), "fps": round(fps, 2), **_machine(found, start, end)}
            for (start, end), fps, part in zip(between, rates, share, strict=True)
            if part < LEAST_RATE
        ],
    }


def _machine(found: Run, start: float, end: float) -> dict[str, Any]:
    """How busy the machine was: its load, and for each second what the service used of cores and what it waited for them."""
    inside = [one for one in found.samples if start <= one.at <= end]
    if len(inside) < 2:
        return {"load": None, "cores": None, "waited": None}
    first, last = inside[0], inside[-1]
    seconds = last.at - first.at
    return {
        "load": max(one.load for one in inside),
        "cores": round((last.cpu_s - first.cpu_s) / seconds, 2),
        "waited": round((last.waited_s - first.waited_s) / seconds, 2),
    }


def _growth(name: str, early: Sequence[Sample], late: Sequence[Sample], samples: Sequence[Sample]) -> dict[str, Any]:
    most = max((getattr(one, name) for one in samples), default=None)
    if not early or not late:
        return {"start": None, "end": None, "growth": None, "most": most}
    start, end = (median(getattr(one, name) for one in part) for part in (early, late))
    return {"start": start, "end": end, "growth": round(end / start - 1, 4), "most": most}


def violations(found: Run) -> list[str]:
    """What is not within the limits, in sentences."""
    of = figures(found)
    problems = [f"{one.name} at {one.began:.0f} s: {problem}" for one in found.attacks for problem in one.outcome.problems]
    events, memory, handles = of["events"], of["memory_mib"], of["handles"]
    checks = {
        "no event was stored": events["stored"] > 0,
        f"{events['stored_twice']} events are stored twice": not events["stored_twice"],
        f"{events['numbers_missing']} numbers are in no store": not events["numbers_missing"],
        f"memory grew by {memory['growth'] or 0:.1%}": (memory["growth"] or 0) <= MAX_GROWTH,
        f"descriptors grew from {handles['start']} to {handles['end']}": (handles["end"] or 0)
        <= (handles["start"] or 0) + MORE_HANDLES,
        f"/healthz did not answer {of['healthz']['unanswered']} times": not of["healthz"]["unanswered"],
        f"/healthz took {of['healthz']['worst_s']} s": (of["healthz"]["worst_s"] or 0) <= HEALTH_S,
        f"{of['log']['tracebacks']} tracebacks are in the log": not of["log"]["tracebacks"],
        f"{of['log']['escapes']} escapes of terminals are in the log": not of["log"]["escapes"],
    }
    for number, client in enumerate(events["clients"], 1):
        for what in ("lost", "twice", "not_stored", "out_of_order"):
            checks[f"client {number}: {client[what]} events {what.replace('_', ' ')}"] = not client[what]
    for name, camera in of["cameras"].items():
        checks[f"{name}: nothing was analysed before the first attack"] = camera["fps_before"] > 0
        for row in camera["below"]:
            busy = f"load {row['load']}, {row['cores']} cores used, {row['waited']} s a second waited for them"
            rates = f"{row['fps']} of {camera['fps_before']} frames a second ({busy})"
            checks[f"{name}: from {row['from']:.0f} to {row['to']:.0f} s {rates}"] = False
    return problems + unmet(checks)
