"""A label that a coder gave a part of a video, and which of a file's labels are wanted."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.errors import InputError
from engine.text import plain

_FACE = re.compile(r"\bface (\d+)\b")
_LABEL_TIER, _APEX_TIER = (
    re.compile(rf"(?P<subject>|.* ){word}(?P<number> \d+)?$", re.IGNORECASE) for word in ("label", "apex")
)


@dataclass(frozen=True)
class TimedLabel:
    """A label from start to end, in seconds as a player counts them; apex where the file tells. face is the number that exports
    have in the names of tiers and subjects, None elsewhere. end may equal start: one frame.

    Raises InputError where the times are no such part.
    """

    start: float
    end: float
    label: str
    apex: float | None = None
    face: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise InputError(f"the annotation {plain(self.label)!r} has no times")
        if self.end < self.start:
            raise InputError(
                f"the annotation {plain(self.label)!r} ends at {self.end:.3f} s, before it starts at {self.start:.3f} s"
            )


@dataclass(frozen=True)
class Wanted:
    """What to read of a file that holds more: the names of tiers (ELAN, Praat) or of behaviours and categories (BORIS); the
    observation (BORIS). video is the name of the video's file, by which the observation is chosen where none is named; fps
    turns frames into times where a table has frames alone."""

    tiers: tuple[str, ...] = ()
    observation: str | None = None
    video: str | None = None
    fps: float | None = None


def face_of(name: str) -> int | None:
    """The face that the name of a tier or subject of an export is about."""
    found = _FACE.search(name)
    return int(found[1]) if found else None


def listed(names: Iterable[str]) -> str:
    """Names for a message, the first of them where there are many."""
    shown = [plain(name) for name in names]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def apex_within(start: float, end: float, apexes: Sequence[float]) -> float | None:
    """The first of the apexes, in ascending order, that lies from start to end, a thousandth more or less."""
    first = bisect_left(apexes, start - 1e-3)
    return apexes[first] if first < len(apexes) and apexes[first] <= end + 1e-3 else None


def chosen_tiers(names: Sequence[str], used: Sequence[str], wanted: Wanted, kind: str) -> list[str]:
    """Which of all tiers (names) hold the labels: those that are wanted, else those that exports name so, else the only one in
    which something is annotated (used).

    Raises InputError that lists the tiers where that is not clear; kind is what they are called.
    """
    if missing := [name for name in wanted.tiers if name not in names]:
        raise InputError(f"it has no {kind} {plain(missing[0])!r}; it has {listed(names) or 'none'}")
    if chosen := list(wanted.tiers) or [name for name in names if _LABEL_TIER.match(name)]:
        return chosen
    if len(used) > 1:
        raise InputError(f"it has several {kind}s; choose those with expressions by --tier: {listed(used)}")
    return list(used)


def apex_tiers(tier: str, names: Iterable[str]) -> list[str]:
    """The tiers with the apexes of a tier: that of an export, else all that are named so."""
    found = [name for name in names if _APEX_TIER.match(name)]
    label = _LABEL_TIER.match(tier)
    own = label and f"{label['subject']}apex{label['number'] or ''}"
    return [own] if own in found else found
