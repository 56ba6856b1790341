"""A code: what a coder decided about one expression of a recorded video; the classes and action units that codes may have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.errors import InputError
from engine.types import Mark

Decision = Literal["open", "accepted", "rejected", "relabelled", "added"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
"""open: marks or a note were changed, nothing is decided yet. relabelled: an expression, but of another class than the
machine's. added: one that the machine missed."""
EXPRESSIONS: tuple[Decision, ...] = ("accepted", "relabelled", "added")
"""The decisions that say that there is an expression."""

LABELS = ("negative", "positive", "surprise", "uncertain")
"""The classes to choose from."""

ACTION_UNITS = {
    1: "Inner brow raiser",
    2: "Outer brow raiser",
    4: "Brow lowerer",
    5: "Upper lid raiser",
    6: "Cheek raiser",
    7: "Lid tightener",
    9: "Nose wrinkler",
    10: "Upper lip raiser",
    11: "Nasolabial deepener",
    12: "Lip corner puller",
    13: "Sharp lip puller",
    14: "Dimpler",
    15: "Lip corner depressor",
    16: "Lower lip depressor",
    17: "Chin raiser",
    18: "Lip pucker",
    20: "Lip stretcher",
    22: "Lip funneler",
    23: "Lip tightener",
    24: "Lip pressor",
    25: "Lips part",
    26: "Jaw drop",
    27: "Mouth stretch",
    28: "Lip suck",
    38: "Nostril dilator",
    39: "Nostril compressor",
    43: "Eyes closed",
    45: "Blink",
    46: "Wink",
}
"""The Facial Action Coding System's numbers and names of what a face can do."""

MAX_NOTE = 2000
_UNIT = re.compile(r"([LR]?)(?:AU)?([0-9]{1,2})([A-E]?)", re.IGNORECASE)


@dataclass(frozen=True)
class Code:
    """One coder's decision about one expression.

    event is the id of the machine's event, None where the coder added the expression; then id is of the coder's making, else
    it is the event's. The marks are of the video's frames; action_units as FACS writes them, side and intensity included
    ("AU12", "LAU14", "AU4B").
    """

    id: str
    coder: str
    event: str | None
    face: int
    decision: Decision
    onset: Mark | None
    apex: Mark | None
    offset: Mark | None
    label: str
    action_units: tuple[str, ...] = ()
    note: str = ""

    @property
    def is_expression(self) -> bool:
        """Whether the coder decided that there is an expression."""
        return self.decision in EXPRESSIONS

    def as_dict(self) -> dict[str, Any]:
        """The code's JSON form."""
        return {
            "id": self.id,
            "coder": self.coder,
            "event": self.event,
            "face": self.face,
            "decision": self.decision,
            **{name: mark and mark.as_dict() for name, mark in self.marks.items()},
            "label": self.label,
            "action_units": list(self.action_units),
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Code:
        """The code of a JSON form."""
        marks: dict[str, Any] = {
            name: fields[name] and Mark(fields[name]["frame"], fields[name]["t"]) for name in ("onset", "apex", "offset")
        }
        rest = {name: fields[name] for name in ("id", "coder", "event", "face", "decision", "label", "note")}
        return cls(**rest, **marks, action_units=tuple(fields["action_units"]))

    @property
    def marks(self) -> dict[str, Mark | None]:
        """Onset, apex and offset."""
        return {"onset": self.onset, "apex": self.apex, "offset": self.offset}


def action_units(text: str) -> tuple[str, ...]:
    """Action units from what a coder typed, as in "1+2", "AU12 L14" or "4B, 7": numbers, a side before, an intensity after.

    Raises InputError that names what is no action unit.
    """
    found = []
    for word in filter(None, re.split(r"[\s,;+]+", text.strip())):
        unit = _UNIT.fullmatch(word)
        if unit is None or int(unit[2]) not in ACTION_UNITS:
            raise InputError(f"{word[:20]!r} is no action unit; examples are 1+2, L14 and 12B")
        found.append(f"{unit[1].upper()}AU{int(unit[2])}{unit[3].upper()}")
    return tuple(dict.fromkeys(found))
