"""Real clips and what was found in them -> figures by kind of clip and by person.

An event is right by its overlap when it and a true one overlap by at least half (intersection over union), and by its apex
when that lies inside a true one; each truth and each event counts once. Counts are pooled before any ratio is formed. An
event that is right in neither way is one of the others: a false one in every clip whose expressions are all known, as in
those of people who talk, sit still or blink. Classes are judged where the truth's is one of CLASSES.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engine.intervals import Interval, match
from lab.clip_bench.real.folder import CLASSES, KINDS, NEUTRAL, RealClip, TrueEvent
from lab.clip_bench.score import ABSTAIN, SHORTEST_S, ratio

Pairs = dict[int, int]
"""Index of a clip's event -> index of the truth that it is right for."""


@dataclass(frozen=True)
class RealEvent:
    """A final event, times in seconds; details is its JSON form."""

    onset: float
    apex: float
    offset: float
    label: str
    confidence: float
    details: dict[str, Any]

    @property
    def named(self) -> bool:
        """Whether it names a class."""
        return self.label != ABSTAIN

    @property
    def weight(self) -> float:
        """How sure the event is and its class: confidence times the probability of being an expression, where there is one."""
        probability = self.details.get("expression_probability")
        return self.confidence * (1.0 if probability is None else float(probability))

    @classmethod
    def of(cls, details: dict[str, Any]) -> RealEvent:
        """From its JSON form."""
        onset, apex, offset = (float(details[mark]["t"]) for mark in ("onset", "apex", "offset"))
        return cls(onset, apex, offset, details["label"], float(details["confidence"]), details)


@dataclass(frozen=True)
class RealResult:
    """A clip and its record (`lab.clip_bench.real.watch`)."""

    clip: RealClip
    record: dict[str, Any]

    @property
    def minutes(self) -> float:
        """Length of the clip."""
        return float(self.record["seconds"]) / 60

    @cached_property
    def events(self) -> list[RealEvent]:
        """The final events in the order of their onsets."""
        return sorted(map(RealEvent.of, self.record["events"]), key=lambda e: e.onset)

    @cached_property
    def by_overlap(self) -> Pairs:
        """Events right by their overlap."""
        found = [Interval(e.onset, max(e.offset, e.onset + SHORTEST_S)) for e in self.events]
        return dict(match(found, [Interval(t.onset, t.offset) for t in self.clip.truths]))

    @cached_property
    def by_apex(self) -> Pairs:
        """Events right by their apex; of several inside one truth the nearest to its apex."""
        inside = [
            (abs(event.apex - truth.apex), e, t)
            for e, event in enumerate(self.events)
            for t, truth in enumerate(self.clip.truths)
            if _inside(event, truth)
        ]
        pairs: Pairs = {}
        for _, e, t in sorted(inside):
            if e not in pairs and t not in pairs.values():
                pairs[e] = t
        return pairs

    @cached_property
    def others(self) -> list[RealEvent]:
        """Events that match no truth: neither overlap one by half nor have their apex inside one."""
        return [
            event
            for e, event in enumerate(self.events)
            if e not in self.by_overlap and not any(_inside(event, truth) for truth in self.clip.truths)
        ]

    @property
    def best(self) -> RealEvent | None:
        """The named event that is surest; None where none is named."""
        return max((e for e in self.events if e.named), key=lambda e: e.weight, default=None)


def real_summary(results: Sequence[RealResult]) -> dict[str, Any]:
    """The JSON form of the report."""
    kinds = [kind for kind in KINDS if any(r.clip.kind == kind for r in results)]
    people = sorted({r.clip.person for r in results} - {""})
    of_kind = {kind: [r for r in results if r.clip.kind == kind] for kind in kinds}
    frames, took = (sum(r.record[name] for r in results) for name in ("frames", "pipeline_s"))
    return {
        "model": sorted({r.record["model"] for r in results}),
        "pipeline_fps_of_a_worker": ratio(frames, took),
        "kinds": [_counts("all", results), *(_counts(kind, of_kind[kind]) for kind in kinds)],
        "people": [_counts(person, [r for r in results if r.clip.person == person]) for person in people],
        "truths": _truths(of_kind),
        "labelled": _labelled(results),
        "by_clip": [_counts(r.clip.name, [r]) for r in results],
    }


def _inside(event: RealEvent, truth: TrueEvent) -> bool:
    return truth.onset <= event.apex <= truth.offset


def _counts(group: str, results: Sequence[RealResult]) -> dict[str, Any]:
    """Counts of some clips, and events by the minute."""
    minutes = sum(r.minutes for r in results)
    events, others = [e for r in results for e in r.events], [e for r in results for e in r.others]
    counts = {
        "events": len(events),
        "named": sum(e.named for e in events),
        "others": len(others),
        "others_named": sum(e.named for e in others),
        "blinks": sum(r.record["blinks"] for r in results),
    }
    return {
        "group": group,
        "clips": len(results),
        "minutes": round(minutes, 3),
        **counts,
        **{f"{name}_per_min": ratio(count, minutes) for name, count in counts.items()},
        "frames": sum(r.record["frames"] for r in results),
        "frames_with_face": sum(r.record["frames_with_face"] for r in results),
        "truths": sum(len(r.clip.truths) for r in results),
        "hits_by_overlap": sum(len(r.by_overlap) for r in results),
        "hits_by_apex": sum(len(r.by_apex) for r in results),
    }


def _truths(of_kind: dict[str, list[RealResult]]) -> list[dict[str, Any]]:
    """How the known expressions were found: all, by kind of clip, and by source (no precision: a false event has none)."""
    known = {kind: [r for r in results if r.clip.truths] for kind, results in of_kind.items()}
    everything = [r for results in known.values() for r in results]
    groups = [_hits("all", everything), *(_hits(kind, results) for kind, results in known.items())]
    groups += [_hits(source, everything, source) for source in ("injected", "timed")]
    return [group for group in groups if group["truths"]]


def _hits(group: str, results: Sequence[RealResult], source: str | None = None) -> dict[str, Any]:
    truths = sum(source in (None, t.source) for r in results for t in r.clip.truths)
    found = None if source else sum(len(r.events) for r in results)
    out: dict[str, Any] = {"group": group, "truths": truths, "found": found}
    for way in ("overlap", "apex"):
        pairs = [
            (r.events[e], r.clip.truths[t])
            for r in results
            for e, t in (r.by_overlap if way == "overlap" else r.by_apex).items()
            if source in (None, r.clip.truths[t].source)
        ]
        judged = [(e, t) for e, t in pairs if e.named and t.label in CLASSES]
        right = sum(e.label == t.label for e, t in judged)
        out[way] = {
            "hits": len(pairs),
            "recall": ratio(len(pairs), truths),
            "precision": None if found is None else ratio(len(pairs), found),
            "f1": None if found is None else ratio(2 * len(pairs), truths + found),
            "named": sum(e.named for e, _ in pairs),
            "judged": len(judged),
            "right": right,
            "class_accuracy": ratio(right, len(judged)),
        }
    return out


def _labelled(results: Sequence[RealResult]) -> dict[str, Any] | None:
    """What the surest named event of each clip with a class of its own names; None without such clips.

    uar is the unweighted mean of the recalls of the classes that occur, neutral aside; a clip without a named event is a miss.
    """
    answered = [(r.clip.label, "nothing" if r.best is None else r.best.label) for r in results if r.clip.label]
    if not answered:
        return None
    rows = {}
    for label in (*CLASSES, NEUTRAL):
        answers = [answer for truth, answer in answered if truth == label]
        if answers:
            rows[label] = {answer: answers.count(answer) for answer in (*CLASSES, "nothing")}
    recalls = [row[label] / sum(row.values()) for label, row in rows.items() if label != NEUTRAL]
    neutral = rows.get(NEUTRAL)
    return {
        "clips": len(answered),
        "answers": rows,
        "uar": ratio(sum(recalls), len(recalls)),
        "neutral": 0 if neutral is None else sum(neutral.values()),
        "neutral_named": 0 if neutral is None else sum(neutral.values()) - neutral["nothing"],
    }
