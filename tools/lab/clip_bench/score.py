"""Records -> figures. An event counts as spotted when its interval, in seconds, overlaps the true one by at least half
(intersection over union, each truth and each event once); counts are pooled before any ratio is formed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apexstream.clips.spec import EventTruth
from engine.intervals import Interval, match, overlap
from lab.clip_bench.watch import Found, Watched

ABSTAIN = "uncertain"
AMPLITUDE_BINS = ((0.0, 1.5), (1.5, 2.0), (2.0, 3.0), (3.0, np.inf))
"""Peak motion in px of the 128 px crop, from (included) and to."""
SHORTEST_S = 1e-6


@dataclass(frozen=True)
class Case:
    """A true event and the event that was matched with it (None: missed)."""

    clip: Watched
    truth: EventTruth
    found: Found | None


Stray = tuple[Watched, Found]
"""A clip and an event of it that matches no truth."""


def intervals(clip: Watched) -> tuple[list[Interval], list[Interval]]:
    """(found, true) intervals of a clip, seconds."""
    found = [Interval(f.onset, max(f.offset, f.onset + SHORTEST_S), f.label) for f in clip.found]
    return found, [Interval(e.onset_t, e.offset_t, e.label) for e in clip.truths]


def compare(clips: Iterable[Watched]) -> tuple[list[Case], list[Stray]]:
    """Every truth with its match, and every event without one."""
    cases, strays = [], []
    for clip in clips:
        owner = {t: p for p, t in match(*intervals(clip))}
        cases += [Case(clip, e, clip.found[owner[k]] if k in owner else None) for k, e in enumerate(clip.truths)]
        taken = set(owner.values())
        strays += [(clip, f) for k, f in enumerate(clip.found) if k not in taken]
    return cases, strays


def figures(group: str, cases: Sequence[Case], strays: Sequence[Stray] | None) -> dict[str, Any]:
    """One line of the report; strays None for a group of truths.

    A ratio with nothing to count is None, and so are found, precision and f1 where a group is one of truths (false events have
    no action). class_accuracy is over the spotted events that name a class, all_class_accuracy over all spotted ones (uncertain
    is wrong). announced_ms is the median source time from the true apex to the provisional event, final_ms from the true offset
    to the final one.
    """
    pairs = [(c.truth, c.found) for c in cases if c.found is not None]
    named = [(e, f) for e, f in pairs if f.label != ABSTAIN]
    right = sum(e.label == f.label for e, f in named)
    announced = [1e3 * (f.announced_t - e.apex_t) for e, f in pairs if f.announced_t is not None]
    final = [1e3 * (f.final_t - e.offset_t) for e, f in pairs if not f.truncated]
    found = None if strays is None else len(pairs) + len(strays)
    return {
        "group": group,
        "truths": len(cases),
        "found": found,
        "tp": len(pairs),
        "precision": None if found is None else ratio(len(pairs), found),
        "recall": ratio(len(pairs), len(cases)),
        "f1": None if found is None else ratio(2 * len(pairs), len(cases) + found),
        "named": len(named),
        "right": right,
        "uncertain": len(pairs) - len(named),
        "class_accuracy": ratio(right, len(named)),
        "all_class_accuracy": ratio(right, len(pairs)),
        "kind_accuracy": ratio(sum(e.kind == f.kind for e, f in pairs), len(pairs)),
        "onset": _timing([f.onset - e.onset_t for e, f in pairs]),
        "apex": _timing([f.apex - e.apex_t for e, f in pairs]),
        "offset": _timing([f.offset - e.offset_t for e, f in pairs]),
        "announced": len(announced),
        "announced_ms": round(float(np.median(announced)), 1) if announced else None,
        "final_ms": round(float(np.median(final)), 1) if final else None,
    }


def all_figures(clips: Sequence[Watched]) -> list[dict[str, Any]]:
    """Pooled; by frame rate, face and renderer; by kind, action and amplitude of the truth."""
    cases, strays = compare(clips)
    by_clip: dict[str, Callable[[Watched], Any]] = {
        "{:g} fps": lambda c: c.fps,
        "face {}": lambda c: c.photo,
        "{}": lambda c: c.renderer,
    }
    by_truth: dict[str, Callable[[EventTruth], Any]] = {
        "{}": lambda e: e.kind,
        "{} ": lambda e: e.action,
        "{} px": lambda e: amplitude_bin(e.amplitude),
    }
    lines = [figures("all", cases, strays)]
    for form, of_clip in by_clip.items():
        for value in sorted({of_clip(c) for c in clips}):
            inside = [c for c in cases if of_clip(c.clip) == value]
            lines.append(figures(form.format(value), inside, [s for s in strays if of_clip(s[0]) == value]))
    for form, of_truth in by_truth.items():
        for value in sorted({of_truth(c.truth) for c in cases}):
            inside = [c for c in cases if of_truth(c.truth) == value]
            lines.append(figures(form.format(value).strip(), inside, None))
    return lines


def amplitude_bin(amplitude: float) -> str:
    """The bin of a peak motion, in words that sort."""
    low, high = next((a, b) for a, b in AMPLITUDE_BINS if a <= amplitude < b)
    return f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"


def confusion(cases: Iterable[Case]) -> dict[str, dict[str, int]]:
    """Class of the truth -> class of the event -> how often, over the spotted events."""
    counts = Counter((c.truth.label, c.found.label) for c in cases if c.found is not None)
    named = sorted({guess for _, guess in counts}, key=lambda s: (s == ABSTAIN, s))
    return {true: {guess: counts[true, guess] for guess in named} for true in sorted({true for true, _ in counts})}


def spotting_summary(clips: Sequence[Watched]) -> dict[str, Any]:
    """The JSON form of the spotting report."""
    cases, _ = compare(clips)
    return {
        **_common(clips),
        "withdrawn": sum(c.withdrawn for c in clips),
        "groups": all_figures(clips),
        "confusion": confusion(cases),
    }


def still_summary(clips: Sequence[Watched]) -> dict[str, Any]:
    """The JSON form of the report on faces without expression: false events in ten minutes, blinks."""
    groups = [_still("all", clips)]
    groups += [_still(f"{v:g} fps", [c for c in clips if c.fps == v]) for v in sorted({c.fps for c in clips})]
    groups += [_still(f"face {v}", [c for c in clips if c.photo == v]) for v in sorted({c.photo for c in clips})]
    return {**_common(clips), "groups": groups}


def nearest(start: float, end: float, candidates: Sequence[Interval]) -> tuple[int, float] | None:
    """Which of some intervals overlaps start..end (seconds) best, and by how much; None where none does."""
    ious = overlap([Interval(start, max(end, start + SHORTEST_S))], candidates)[0] if candidates else np.zeros(1)
    best = int(ious.argmax())
    return (best, float(ious[best])) if ious[best] > 0 else None


def _still(group: str, clips: Sequence[Watched]) -> dict[str, Any]:
    minutes = sum(c.seconds for c in clips) / 60
    false = [f for c in clips for f in c.found]
    return {
        "group": group,
        "minutes": round(minutes, 2),
        "false_events": len(false),
        "false_per_10_min": round(10 * len(false) / minutes, 3),
        "false_micro": sum(f.kind == "micro" for f in false),
        "withdrawn": sum(c.withdrawn for c in clips),
        "blinks_true": sum(len(c.blinks) for c in clips),
        "blinks_recognized": sum(c.blinks_recognized for c in clips),
    }


def _common(clips: Sequence[Watched]) -> dict[str, Any]:
    frames, took = sum(c.frames for c in clips), sum(c.pipeline_s for c in clips)
    return {
        "model": sorted({c.model for c in clips}),
        "clips": len(clips),
        "minutes": round(sum(c.seconds for c in clips) / 60, 2),
        "frames": frames,
        "frames_with_face": sum(c.frames_with_face for c in clips),
        "blinks_true": sum(len(c.blinks) for c in clips),
        "blinks_recognized": sum(c.blinks_recognized for c in clips),
        "pipeline_fps_of_a_worker": round(frames / took, 1) if took else None,
    }


def ratio(part: float, whole: float) -> float | None:
    """part over whole; None where there is nothing to count."""
    return round(part / whole, 4) if whole else None


def _timing(errors_s: Sequence[float]) -> dict[str, float] | None:
    """Of one mark over the spotted events, ms: mean absolute error, mean signed error (late is positive)."""
    if not errors_s:
        return None
    errors = 1e3 * np.asarray(errors_s)
    return {"absolute_ms": round(float(np.abs(errors).mean()), 1), "signed_ms": round(float(errors.mean()), 1)}
