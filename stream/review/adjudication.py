"""A third person's decisions about what the coders of a video do not agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from engine.errors import InputError
from engine.types import Event
from stream.recorded.results import Results
from stream.review.agreement import MACHINE, Unit, agreed, units_of
from stream.review.codes import Code, Decision
from stream.review.database import AGREED, ReviewDatabase
from stream.review.entries import coded_event


@dataclass(frozen=True)
class Adjudication:
    """What is to be decided: events are those that the coders do not agree on, those that coders added among them (proposed);
    settled are the ids of the rest, about which the adjudicator's codes say what the coders said."""

    units: Mapping[str, Unit]
    people: Sequence[str]
    events: dict[str, Event]
    proposed: frozenset[str]
    settled: frozenset[str]

    def described(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON form of an event for the page, with what each coder decided about it."""
        unit = self.units[event["id"]]
        given = {person: code and code.as_dict() for person, code in unit.codes.items() if person != MACHINE}
        others = [{"coder": person, "code": code} for person, code in given.items()]
        if unit.id not in self.proposed:
            return {**event, "others": others}
        kept = ("id", "stream", "face", "onset", "apex", "offset")
        return {**{name: event[name] for name in kept}, "proposed": True, "others": others}


def adjudicate(results: Results, database: ReviewDatabase, coder: str) -> Adjudication:
    """Have coder decide about the disagreements of the others. What they agree on becomes the coder's too, with the marks and
    action units of the first of them, unless the coder has decided otherwise; it follows where they change their minds.

    Raises InputError where fewer than two others have coded the video, or the coder is one of them.
    """
    database.require_same_events(results.entries)
    known, people = database.coders(), database.people()
    if coder in people:
        raise InputError(f"{coder} is one of the coders; somebody else decides about disagreements (--coder NAME)")
    if len(people) < 2:
        there = f"it has been coded by {', '.join(people) or 'nobody'}"
        raise InputError(f"{results.folder}: {there}; adjudication is about what two coders or more do not agree on")
    database.note_adjudicator(coder)
    units = units_of(results, database.codes(), {name: known[name] for name in people})
    settled = [unit for unit in units if agreed(unit, people)]
    _follow(database, coder, {unit.id: _agreed_code(unit, people, coder) for unit in settled})
    events, proposed = {}, set()
    for unit in units:
        if not agreed(unit, people):
            events[unit.id] = unit.event or _proposal(unit, results.stream)
            proposed |= {unit.id} if unit.event is None else set()
    ids = frozenset(unit.id for unit in settled)
    return Adjudication({unit.id: unit for unit in units}, people, events, frozenset(proposed), ids)


def _follow(database: ReviewDatabase, coder: str, agreed_codes: Mapping[str, Code]) -> None:
    """Give the coder these codes and no others, where the coder has not decided."""
    before, own = database.agreed(coder), {code.id: code for code in database.codes(coder)}
    for id_, code in agreed_codes.items():
        known = own.get(id_)
        undecided = known is None or known.decision == "open" or id_ in before
        if undecided and known != (noted := replace(code, note=known.note if known else "")):
            database.put(f"{AGREED}{uuid4().hex}", noted)
    for id_ in before - agreed_codes.keys():
        database.remove(f"{AGREED}{uuid4().hex}", coder, id_)


def _agreed_code(unit: Unit, people: Sequence[str], coder: str) -> Code:
    first = next((code for person in people if (code := unit.codes.get(person)) is not None), None)
    event = None if unit.event is None else unit.event.id
    if first is not None:
        return replace(first, id=unit.id, coder=coder, event=event, decision=_decision(first, unit.event), note="")
    assert unit.event is not None  # what was added was seen by somebody
    marks = unit.event.onset, unit.event.apex, unit.event.offset or unit.event.apex
    return Code(unit.id, coder, event, unit.face, "rejected", *marks, unit.event.label)


def _decision(code: Code, event: Event | None) -> Decision:
    return "added" if event is None else "accepted" if code.label == event.label else "relabelled"


def _proposal(unit: Unit, stream: str) -> Event:
    code = unit.expressions[0]
    assert code.onset is not None and code.apex is not None and code.offset is not None
    return replace(coded_event(code, stream, code.onset, code.apex, code.offset), id=unit.id)
