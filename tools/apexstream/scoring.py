"""Events compared with the codes of a person: what was found, how far the times differ, and how far the classes agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.agreement import cohen_kappa
from engine.intervals import Interval, match
from engine.types import MICRO_LIMIT_S, Kind
from stream.annotations.classes import class_of
from stream.annotations.timed_label import TimedLabel
from stream.events.formats import Entry
from training.spotting import Score, score

NOTHING, OTHER = "nothing", "other"
"""What a frame shows where there is no expression, and an expression whose label has no class."""
MAX_FRAMES = 20_000_000
"""More than a week; a video of unknown length whose codes lie beyond is not compared frame by frame."""
MARKS = ("onset", "apex", "offset")


@dataclass(frozen=True)
class Comparison:
    """The result. errors are found minus coded, seconds, of each mark over the matched pairs in which both have it. kappa is
    that of the classes of matched pairs, frame_kappa that of the classes frame by frame, nothing among them; None where it is
    not defined. unmapped counts the coder's labels that have no class."""

    score: Score
    errors: Mapping[str, Sequence[float]]
    kappa: float | None
    frame_kappa: float | None
    unmapped: Mapping[str, int]
    fps: float

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        found = self.score
        return {
            "matched": found.tp,
            "not_coded": found.fp,
            "missed": found.fn,
            **{name: round(getattr(found, name), 4) for name in ("precision", "recall", "f1")},
            "errors": {name: _statistics(values, self.fps) for name, values in self.errors.items()},
            "confusion": [
                {"coded": coded, "found": guess, "count": count} for (coded, guess), count in sorted(found.confusion.items())
            ],
            "recognition_f1": round(found.recognition_f1, 4),
            "kappa": self.kappa and round(self.kappa, 4),
            "frame_kappa": self.frame_kappa and round(self.frame_kappa, 4),
            "unmapped": dict(self.unmapped),
        }


def labels_of(entries: Iterable[Entry]) -> list[TimedLabel]:
    """Events of a recording in a player's time."""
    found = []
    for entry in entries:
        event, zero = entry.event, entry.origin or 0.0
        if event.offset is not None:
            times = (event.onset.t - zero, event.offset.t - zero)
            found.append(TimedLabel(*times, event.label, event.apex.t - zero, event.face))
    return found


def of_kind(labels: Iterable[TimedLabel], kind: Kind) -> list[TimedLabel]:
    """Those that last as long as a micro-expression does, or longer."""
    return [one for one in labels if (one.end - one.start <= MICRO_LIMIT_S + 1e-3) == (kind == "micro")]


def without(labels: Sequence[TimedLabel], left_out: Sequence[TimedLabel], fps: float) -> list[TimedLabel]:
    """The labels that belong to none of those left out, by the rule of `compare`."""
    gone = set()
    for mine, theirs in _by_face(left_out, labels):
        first, second = ([_interval(one, fps, one.label) for one in side] for side in (mine, theirs))
        gone |= {id(theirs[t]) for _, t in match(first, second)}
    return [one for one in labels if id(one) not in gone]


def compare(
    found: Sequence[TimedLabel],
    coded: Sequence[TimedLabel],
    *,
    fps: float,
    length_s: float,
    own: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare what was found with what was coded, by the rule of the challenges: intervals of whole frames from onset to
    offset, both included, belong together where they overlap by half, each with one other at most.

    Faces are compared one by one where all codes name theirs, else together. own maps the coder's labels as in `class_of`.
    """
    classes = {one.label: class_of(one.label, own) for one in coded}
    groups = _by_face(found, coded)
    intervals = [
        ([_interval(one, fps, one.label) for one in mine], [_interval(one, fps, classes[one.label]) for one in theirs])
        for mine, theirs in groups
    ]
    whole = score(intervals)
    errors: dict[str, list[float]] = {name: [] for name in MARKS}
    for (mine, theirs), pair in zip(groups, intervals, strict=True):
        for p, t in match(*pair):
            one, other = mine[p], theirs[t]
            errors["onset"].append(one.start - other.start)
            errors["offset"].append(one.end - other.end)
            if one.apex is not None and other.apex is not None:
                errors["apex"].append(one.apex - other.apex)
    unmapped = Counter(one.label for one in coded if classes[one.label] is None)
    return Comparison(whole, errors, cohen_kappa(whole.confusion), _frame_kappa(intervals, fps, length_s), unmapped, fps)


def _by_face(
    found: Sequence[TimedLabel], coded: Sequence[TimedLabel]
) -> list[tuple[Sequence[TimedLabel], Sequence[TimedLabel]]]:
    """What was found and what was coded of each face; of all together where a code does not name its face."""
    if not coded or any(one.face is None for one in coded):
        return [(found, coded)]
    faces = sorted({one.face for one in (*found, *coded) if one.face is not None})
    return [([one for one in found if one.face == face], [one for one in coded if one.face == face]) for face in faces]


def _interval(one: TimedLabel, fps: float, label: str | None) -> Interval:
    return Interval(one.start, one.end + 1 / fps, label)


def _frame_kappa(groups: Sequence[tuple[Sequence[Interval], Sequence[Interval]]], fps: float, length_s: float) -> float | None:
    ends = [one.end for pair in groups for side in pair for one in side]
    frames = int(np.ceil((length_s or max(ends, default=0.0)) * fps))
    if frames > MAX_FRAMES:
        return None
    names: dict[str, int] = {NOTHING: 0}
    table: Counter[tuple[str, str]] = Counter()
    for mine, theirs in groups:
        both = np.zeros((2, frames), np.int32)
        for side, intervals in enumerate((mine, theirs)):
            for one in intervals:
                name = names.setdefault(one.label or OTHER, len(names))
                both[side, max(0, round(one.start * fps)) : max(0, round(one.end * fps))] = name
        pairs, counts = np.unique(both, axis=1, return_counts=True)
        known = list(names)
        for (a, b), count in zip(pairs.T, counts, strict=True):
            table[known[a], known[b]] += int(count)
    return cohen_kappa(table)


def _statistics(values: Sequence[float], fps: float) -> dict[str, float] | None:
    """Of errors in seconds: how many, the median of their sizes, and their mean, in milliseconds and in frames."""
    if not values:
        return None
    median, mean = float(np.median(np.abs(values))), float(np.mean(values))
    return {
        "count": len(values),
        "median_ms": round(median * 1000, 1),
        "median_frames": round(median * fps, 2),
        "mean_ms": round(mean * 1000, 1),
        "mean_frames": round(mean * fps, 2),
    }
