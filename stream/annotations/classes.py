"""From a coder's own labels (an emotion, action units) to the classes: negative, positive, surprise.

Emotions are grouped as in the Micro-Expression Grand Challenge, action units after EMFACS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from engine.errors import InputError

CLASSES = ("negative", "positive", "surprise", "uncertain")
EMOTIONS = {
    **dict.fromkeys(("anger", "angry", "contempt", "disgust", "disgusted", "fear", "fearful"), "negative"),
    **dict.fromkeys(("sadness", "sad", "repression", "pain"), "negative"),
    **dict.fromkeys(("happiness", "happy", "joy", "smile", "amusement"), "positive"),
    "surprised": "surprise",
}
"""Labels besides the classes themselves, in small letters."""
NEGATIVE_UNITS = {4, 9, 10, 14, 15, 16, 17, 20, 23, 24}
SURPRISE_UNITS = {1, 2, 5, 25, 26, 27}
_UNIT = re.compile(r"[LR]?(?:AU)?\s*([0-9]{1,2})[A-E]?", re.IGNORECASE)


def class_of(label: str, own: Mapping[str, str] | None = None) -> str | None:
    """The class of a label, None where there is none. own has labels in small letters that are mapped otherwise.

    Action units ("AU6+AU12", "1+2, 5B"): with the lip corner puller (12) positive; else with one of NEGATIVE_UNITS negative;
    else of SURPRISE_UNITS alone, a raised brow or lid among them, surprise.
    """
    word = label.strip().casefold()
    known = {**{name: name for name in CLASSES}, **EMOTIONS, **(own or {})}
    return known[word] if word in known else _class_of_units(word)


def _class_of_units(text: str) -> str | None:
    parts = [part for part in re.split(r"[+,;\s]+", re.sub(r"(?i)au\s+", "au", text)) if part]
    matches = [_UNIT.fullmatch(part) for part in parts]
    units = {int(match[1]) for match in matches if match is not None}
    if not matches or None in matches:
        return None
    if 12 in units or units == {6}:
        return "positive"
    if units & NEGATIVE_UNITS:
        return "negative"
    return "surprise" if units <= SURPRISE_UNITS and units & {1, 2, 5} else None


def own_mapping(given: Sequence[str]) -> dict[str, str]:
    """What `--map LABEL=CLASS` says, by labels in small letters. Raises InputError for what is no such pair."""
    pairs = {}
    for one in given:
        label, equals, name = (part.strip().casefold() for part in one.rpartition("="))
        if not (equals and label and name in CLASSES):
            raise InputError(f"{one!r} maps no label to a class; examples are happiness=positive and AU14=negative")
        pairs[label] = name
    return pairs
