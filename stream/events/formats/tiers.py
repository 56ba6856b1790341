"""Events as the tiers of annotation tools (ELAN, Praat): of each face its labels and what is known of each, its activities.

A tier holds no two annotations that overlap, so events that do continue on a second set of tiers, "face 0 label 2".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from engine.text import plain
from stream.events.formats.entry import Entry
from stream.events.formats.timeline import SHORTEST_S, Placed, Timeline, without_overlap

LABEL, APEX = "label", "apex"
"""The last word of the names of tiers that are read as truth."""


class Annotation(NamedTuple):
    """A text from start to end, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Tier:
    """Annotations in ascending order. Those of an attribute belong to those of the tier parent, one to one; those of apexes
    lie within them."""

    name: str
    subject: str
    kind: Literal["label", "attribute", "apex", "activity"]
    annotations: list[Annotation]
    parent: str | None = None


def tiers(timeline: Timeline) -> list[Tier]:
    """The tiers of a timeline, of one face after the other; one at least."""
    found: list[Tier] = []
    for subject in timeline.subjects:
        own = [one for one in timeline.events if one.subject == subject]
        for number, row in enumerate(without_overlap(own, lambda one: one.onset, lambda one: one.offset), 1):
            found += _tiers_of_events(subject, row, f" {number}" if number > 1 else "", timeline)
        for kind in sorted({one.kind for one in timeline.activities if one.subject == subject}):
            doing = [one for one in timeline.activities if (one.subject, one.kind) == (subject, kind)]
            for number, acts in enumerate(without_overlap(doing, lambda one: one.start, lambda one: one.end), 1):
                name = f"{subject} {kind}" + (f" {number}" if number > 1 else "")
                found.append(Tier(name, subject, "activity", [Annotation(one.start, one.end, kind) for one in acts]))
    return found


def _tiers_of_events(subject: str, row: list[Placed], suffix: str, timeline: Timeline) -> list[Tier]:
    label = f"{subject} {LABEL}{suffix}"
    found = [Tier(label, subject, "label", [Annotation(one.onset, one.offset, plain(one.entry.event.label)) for one in row])]
    attributes = [attributes_of(one.entry) for one in row]
    reviewed = timeline.recording is not None and timeline.recording.coder is not None
    uncertain = ("why",) if any("why" in own for own in attributes) else ()
    for name in ("kind", "confidence", "speaking", *uncertain, *(("decision", "action_units", "note") if reviewed else ())):
        texts = [Annotation(one.onset, one.offset, own.get(name, "")) for one, own in zip(row, attributes, strict=True)]
        found.append(Tier(f"{subject} {name}{suffix}", subject, "attribute", texts, label))
    found.append(Tier(f"{subject} {APEX}{suffix}", subject, "apex", [_apex(one) for one in row], label))
    return found


def attributes_of(entry: Entry) -> dict[str, str]:
    """What is known of an event, as text; what is not known is missing."""
    event, fields = entry.event, entry.fields
    review = fields.get("review") or {}
    known = {
        "kind": event.kind,
        "confidence": None if fields["confidence"] is None else f"{event.confidence:.2f}",
        "speaking": "yes" if event.speaking else "no",
        "why": event.why,
        "decision": review.get("decision"),
        "action_units": "+".join(review.get("action_units") or ()),
        "note": review.get("note"),
    }
    return {name: plain(value) for name, value in known.items() if value}


def _apex(placed: Placed) -> Annotation:
    """The apex as an annotation of a frame or so that starts there, or ends with the event."""
    start = min(placed.apex, placed.offset - SHORTEST_S / 4)
    return Annotation(start, min(placed.offset, start + SHORTEST_S), APEX)
