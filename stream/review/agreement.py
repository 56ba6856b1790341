"""How far the coders of a video agree with each other and with the machine, and where they do not.

What is judged are units: each event of the machine, and each expression that a coder added. Added ones of several coders are
one unit where they overlap by half or more (`engine.intervals`), each with one of every other coder. In a unit a coder gave a
class, or NONE: rejected it, or did not see it. Of an event that a coder has not decided about, nothing is known of that coder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from engine.agreement import cohen_kappa, krippendorff_alpha
from engine.intervals import IOU, Interval, match, overlap
from engine.types import Event
from stream.recorded.results import Results
from stream.review.codes import Code
from stream.review.database import Blind

MACHINE = "machine"
"""The coder's name that stands for what `analyze` found; no person has it."""
NONE = "none"
"""The class of what a coder took for no expression."""

Draft = tuple[Event | None, dict[str, Code | None]]
"""A unit in the making: the machine's event, and what each coder gave so far."""


@dataclass(frozen=True)
class Unit:
    """What was judged: by coder the code of an expression, or None where the coder saw none; who has not decided is missing.

    id is the machine's event's, or that of the code by which it was first added.
    """

    id: str
    face: int
    event: Event | None
    codes: Mapping[str, Code | None]

    def label(self, coder: str) -> str | None:
        """The class that a coder gave, NONE for no expression; None where the coder has not decided."""
        if coder not in self.codes:
            return None
        code = self.codes[coder]
        return NONE if code is None else code.label

    @property
    def expressions(self) -> list[Code]:
        """What coders took for an expression."""
        return [code for code in self.codes.values() if code is not None]

    @property
    def start(self) -> float:
        """When it begins, seconds of the source."""
        marks = [code.onset for code in self.expressions] + ([self.event.onset] if self.event else [])
        return min(mark.t for mark in marks if mark is not None)


def units_of(results: Results, codes: Iterable[Code], coders: Mapping[str, Blind]) -> list[Unit]:
    """What the machine and these coders judged, in order of time; coders tells what was hidden from each."""
    drafts: list[Draft] = [(entry.event, {MACHINE: machine_code(entry.event)}) for entry in results.entries]
    given_codes = list(codes)
    for coder in coders:
        own = [code for code in given_codes if code.coder == coder]
        decided = {code.event: code for code in own if code.event is not None and code.decision != "open"}
        for event, given in drafts:
            if event is not None and event.id in decided:
                code = decided[event.id]
                given[coder] = code if code.is_expression else None
        free = [code for code in own if code.event is None and code.is_expression]
        _place(coder, free, drafts, among_events=coders[coder] == "machine")
    return sorted(_units(drafts, coders), key=lambda unit: (unit.start, unit.face, unit.id))


def machine_code(event: Event) -> Code:
    """The machine's event as a code."""
    marks = event.onset, event.apex, event.offset or event.apex
    return Code(event.id, MACHINE, event.id, event.face, "accepted", *marks, event.label)


def _place(coder: str, free: Sequence[Code], drafts: list[Draft], *, among_events: bool) -> None:
    """Put the codes that a coder made without an event into the drafts that they belong to, or into new ones."""
    open_ones = [(event, given) for event, given in drafts if coder not in given and (among_events or event is None)]
    for face in sorted({code.face for code in free}):
        own = [code for code in free if code.face == face]
        others = [given for event, given in open_ones if _first(given).face == face]
        pairs = dict(match([_interval(code) for code in own], [_interval(_first(given)) for given in others]))
        for index, code in enumerate(own):
            if index in pairs:
                others[pairs[index]][coder] = code
            else:
                drafts.append((None, {coder: code}))


def _first(given: Mapping[str, Code | None]) -> Code:
    """The code by which a draft was made."""
    return next(code for code in given.values() if code is not None)


def _units(drafts: Iterable[Draft], coders: Mapping[str, Blind]) -> Iterator[Unit]:
    for event, given in drafts:
        first = _first(given)
        looked = [MACHINE, *(coder for coder, blind in coders.items() if event is None or blind == "machine")]
        yield Unit(first.id, first.face, event, {**dict.fromkeys(looked), **given})


def _interval(code: Code) -> Interval:
    assert code.onset is not None and code.offset is not None
    return Interval(code.onset.t, max(code.offset.t, code.onset.t + 1e-6))


def iou(one: Code, other: Code) -> float:
    """Intersection over union of two codes, 0 to 1."""
    return float(overlap([_interval(one)], [_interval(other)])[0, 0])


@dataclass(frozen=True)
class PairAgreement:
    """How two coders agree: units that both judged, expressions that both saw (both) and those of them that overlap by half or
    more (matched); kappa over all classes and NONE, by_class of each against all others, None where it is not defined;
    differences are the medians of the absolute differences of the matched marks, seconds."""

    first: str
    second: str
    units: int
    both: int
    matched: int
    kappa: float | None
    by_class: Mapping[str, float | None]
    differences: Mapping[str, float | None]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "coders": [self.first, self.second],
            "units": self.units,
            "both": self.both,
            "matched": self.matched,
            "kappa": _rounded(self.kappa),
            "by_class": {label: _rounded(kappa) for label, kappa in self.by_class.items()},
            "differences_s": {mark: _rounded(value) for mark, value in self.differences.items()},
        }


@dataclass(frozen=True)
class Agreement:
    """The agreement of all pairs, and of all people at once by Krippendorff's alpha, where they are more than two."""

    pairs: tuple[PairAgreement, ...]
    alpha: float | None
    alpha_by_class: Mapping[str, float | None]
    people: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        by_class = {label: _rounded(alpha) for label, alpha in self.alpha_by_class.items()}
        alpha = {"all": _rounded(self.alpha), "by_class": by_class} if self.people > 2 else None
        return {"pairs": [pair.as_dict() for pair in self.pairs], "krippendorff_alpha": alpha}


def agreement_of(units: Sequence[Unit], people: Sequence[str]) -> Agreement:
    """How people agree, and each of them with the machine."""
    pairs = [*combinations(people, 2), *((person, MACHINE) for person in people)]
    labels = sorted({code.label for unit in units for code in unit.expressions})
    given = [[label for person in people if (label := unit.label(person)) is not None] for unit in units]
    by_class = {label: krippendorff_alpha([[str(one == label) for one in unit] for unit in given]) for label in labels}
    made = tuple(_pair(first, second, units) for first, second in pairs)
    return Agreement(made, krippendorff_alpha(given), by_class, len(people))


def _pair(first: str, second: str, units: Sequence[Unit]) -> PairAgreement:
    judged = [unit for unit in units if first in unit.codes and second in unit.codes]
    judged = [unit for unit in judged if unit.event is not None or unit.codes[first] or unit.codes[second]]
    table = Counter((unit.label(first) or NONE, unit.label(second) or NONE) for unit in judged)
    by_class = {label: cohen_kappa(_against_all_others(table, label)) for label in sorted({*sum(table, ())})}
    both = [(one, other) for unit in judged if (one := unit.codes[first]) and (other := unit.codes[second])]
    matched = [(one, other) for one, other in both if iou(one, other) >= IOU]
    differences = {mark: _median_difference(matched, mark) for mark in ("onset", "apex", "offset")}
    return PairAgreement(first, second, len(judged), len(both), len(matched), cohen_kappa(table), by_class, differences)


def _against_all_others(table: Mapping[tuple[str, str], int], label: str) -> Counter[tuple[str, str]]:
    binary: Counter[tuple[str, str]] = Counter()
    for (one, other), count in table.items():
        binary[str(one == label), str(other == label)] += count
    return binary


def _median_difference(pairs: Sequence[tuple[Code, Code]], mark: str) -> float | None:
    marks = [(one.marks[mark], other.marks[mark]) for one, other in pairs]
    found = [abs(one.t - other.t) for one, other in marks if one and other]
    return median(found) if found else None


def disagreements(units: Sequence[Unit], people: Sequence[str]) -> list[Unit]:
    """The units about which those of people who have decided do not agree: in the class, in whether there is an expression, or
    in when it is (overlapping by less than half)."""
    decided = [unit for unit in units if sum(person in unit.codes for person in people) > 1]
    return [unit for unit in decided if not agreed(unit, people)]


def undecided(units: Sequence[Unit], people: Sequence[str]) -> dict[str, int]:
    """How many units each person has not decided about; who has decided about all is left out."""
    counts = {person: sum(person not in unit.codes for unit in units) for person in people}
    return {person: count for person, count in counts.items() if count}


def agreed(unit: Unit, people: Sequence[str]) -> bool:
    """Whether people agree about a unit."""
    labels = [label for person in people if (label := unit.label(person)) is not None]
    codes = [code for person in people if (code := unit.codes.get(person)) is not None]
    together = all(iou(one, other) >= IOU for one, other in combinations(codes, 2))
    return len(labels) >= min(2, len(people)) and len(set(labels)) == 1 and together


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
