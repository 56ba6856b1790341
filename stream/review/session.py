"""One coder's review of one video: what the page receives, and what it may do. No sockets, no pictures.

    page -> server   {"type": "put", "id", "code": {"id", "event", "face", "decision", "onset", "apex", "offset", "label",
                      "action_units", "note"}}: marks are numbers of frames
                     {"type": "remove", "id", "code": id}     of an added code
                     {"type": "undo", "id"}
    server -> page   {"type": "hello", ...}                   `ReviewSession.hello`
                     {"type": "stored", "id", "code": id, "state": code or null}
                     {"type": "refused", "id", "sentence"}

id is an action's, of the page's making: one that is sent again is answered again and stored once.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from engine.errors import InputError
from engine.types import F64, Mark
from stream.recorded.results import Results
from stream.review.adjudication import Adjudication
from stream.review.codes import ACTION_UNITS, LABELS, MAX_NOTE, Code, Decision, action_units
from stream.review.database import Applied, Blind, ReviewDatabase

Identifier = Annotated[str, Field(min_length=1, max_length=200)]
FrameNumber = Annotated[int, Field(ge=0, lt=2**40)]
HIDDEN = ("label", "probabilities", "confidence", "intensity", "why", "expression_probability")
"""What a coder who is blind to the machine's classes does not see of an event."""


class FramesNotReadError(InputError):
    """An action needs the times of the video's frames, which are still being read: it can be carried out later."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _CodeFields(_Message):
    id: Identifier
    event: Identifier | None
    face: Annotated[int, Field(ge=0, lt=100_000)]
    decision: Decision
    onset: FrameNumber
    apex: FrameNumber
    offset: FrameNumber
    label: Annotated[str, Field(max_length=64)]
    action_units: Annotated[str, Field(max_length=400)]
    note: Annotated[str, Field(max_length=MAX_NOTE)]


class _Put(_Message):
    type: Literal["put"]
    id: Identifier
    code: _CodeFields


class _Remove(_Message):
    type: Literal["remove"]
    id: Identifier
    code: Identifier


class _Undo(_Message):
    type: Literal["undo"]
    id: Identifier


_MESSAGES: TypeAdapter[_Put | _Remove | _Undo] = TypeAdapter(Annotated[_Put | _Remove | _Undo, Field(discriminator="type")])


class ReviewSession:
    """A coder's work on the results; times are those of the video's frames once they are known, None until then, and for ever
    where there is a problem with the video.

    Raises InputError where the coder was blind to more of the machine before.
    """

    def __init__(
        self,
        results: Results,
        database: ReviewDatabase,
        coder: str,
        blind: Blind = "none",
        *,
        adjudication: Adjudication | None = None,
    ) -> None:
        self.results, self.database, self.coder, self.blind = results, database, coder, blind
        self.times: F64 | None = None
        self.problem: str | None = None
        self._adjudication = adjudication
        database.require_same_events(results.entries)
        database.enter(coder, blind)
        self._events = {} if blind == "machine" else {entry.event.id: entry.event for entry in results.entries}
        if adjudication is not None:
            self._events = adjudication.events

    @property
    def codes(self) -> list[Code]:
        """The coder's codes as they are now."""
        return self.database.codes(self.coder)

    @property
    def labels(self) -> list[str]:
        """The classes to choose from: the usual ones and those of the events."""
        seen = (label for entry in self.results.entries for label in (entry.event.label, *entry.event.probabilities))
        return list(dict.fromkeys((*LABELS, *(seen if self.blind == "none" else ()))))

    def hello(self) -> dict[str, Any]:
        """All that the page shows besides pictures: the machine's events as far as the coder may see them, and the coder's
        codes."""
        events = [event.as_dict() for event in self._events.values()]
        if self.blind == "labels":
            events = [{key: value for key, value in event.items() if key not in HIDDEN} for event in events]
        codes = self.codes
        if self._adjudication is not None:
            events = [self._adjudication.described(event) for event in events]
            codes = [code for code in codes if code.id in self._events or code.id not in self._adjudication.settled]
        return {
            "type": "hello",
            "identity": self.database.identity,
            "name": self.results.stream,
            "coder": self.coder,
            "blind": self.blind,
            "adjudicates": self._adjudication is not None,
            "labels": self.labels,
            "action_units": [[number, name] for number, name in ACTION_UNITS.items()],
            "origin": self.results.origin,
            "events": sorted(events, key=lambda event: (event["onset"]["t"], event["face"])),
            "codes": [self._shown(code) for code in codes],
        }

    def act(self, data: str | bytes) -> dict[str, Any]:
        """Carry out what the page asks for, durably, and return the answer. Raises OutputError where it cannot be stored,
        FramesNotReadError where the video has to be read before."""
        try:
            message = _MESSAGES.validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"][1:])
            return _refused(_id_of(data), f"the page sent what cannot be stored: {where} {first['msg'].lower()}")
        try:
            applied = self._apply(message)
        except FramesNotReadError:
            raise
        except InputError as error:
            return _refused(message.id, str(error))
        state = applied.state and self._shown(applied.state)
        return {"type": "stored", "id": message.id, "code": applied.code, "state": state}

    def _shown(self, code: Code) -> dict[str, Any]:
        """A code as the coder may see it: whether the class is the machine's would tell which class the machine gave."""
        hidden = self.blind == "labels" and code.decision == "relabelled"
        return {**code.as_dict(), **({"decision": "accepted"} if hidden else {})}

    def _apply(self, message: _Put | _Remove | _Undo) -> Applied:
        if isinstance(message, _Undo):
            return self.database.undo(message.id, self.coder)
        if isinstance(message, _Remove):
            return self.database.remove(message.id, self.coder, message.code)
        return self.database.put(message.id, self._code(message.code))

    def _code(self, fields: _CodeFields) -> Code:
        event = self._events.get(fields.id)
        proposed = event is not None and self._adjudication is not None and fields.id in self._adjudication.proposed
        if fields.event != (None if event is None or proposed else fields.id):
            raise InputError("there is no such event in these results")
        if (fields.decision == "added") != (event is None) and not proposed:
            raise InputError("what the machine did not find is added, all else accepted or rejected")
        if not fields.onset <= fields.apex <= fields.offset or fields.onset == fields.offset:
            raise InputError("onset, apex and offset follow one another")
        known = {mark.frame: mark for mark in (event.onset, event.apex, event.offset) if mark} if event is not None else {}
        onset, apex, offset = (self._mark(number, known) for number in (fields.onset, fields.apex, fields.offset))
        label, decision = fields.label, fields.decision
        if decision in ("accepted", "relabelled", "added"):
            if label not in self.labels:
                raise InputError("choose a class first")
            if event is not None:
                decision = "added" if proposed else "accepted" if label == event.label else "relabelled"
        units = action_units(fields.action_units)
        return Code(fields.id, self.coder, fields.event, fields.face, decision, onset, apex, offset, label, units, fields.note)

    def _mark(self, number: int, known: dict[int, Mark]) -> Mark:
        """The mark of a frame, with the time of the video's own clock."""
        if number in known:
            return known[number]
        if self.times is None:
            raise FramesNotReadError("the video is still being read") if self.problem is None else InputError(self.problem)
        if number >= len(self.times):
            raise InputError(f"the video has no frame {number}")
        return Mark(number, round(float(self.times[number]), 6))


def _refused(action: str, sentence: str) -> dict[str, Any]:
    return {"type": "refused", "id": action, "sentence": sentence}


def _id_of(data: str | bytes) -> str:
    """The id of an action that cannot be read otherwise; empty where it has none."""
    try:
        found = json.loads(data)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return found[:200] if isinstance(found, str) else ""
