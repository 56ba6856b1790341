from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from engine.types import Event, Mark
from stream.recorded.results import read_results
from stream.review.agreement import MACHINE, NONE, Unit, agreed, agreement_of, disagreements, undecided, units_of
from stream.review.codes import Code
from stream.review.database import Blind
from tests.review import added_code, code_of, events_at, write_results

LABELS = ("negative", "positive", "surprise", NONE)


def units(folder: Path, events: Sequence[Event], codes: Sequence[Code], **blind: Blind) -> list[Unit]:
    coders: dict[str, Blind] = dict.fromkeys(dict.fromkeys(code.coder for code in codes), "none")
    return units_of(read_results(write_results(folder, events)), codes, {**coders, **blind})


def given(event: Event, coder: str, label: str) -> Code:
    if label == NONE:
        return code_of(event, coder, decision="rejected")
    return code_of(event, coder, label=label, decision="accepted" if label == event.label else "relabelled")


def test_kappa_of_two_coders_and_the_machine_is_that_of_scikit_learn(tmp_path: Path) -> None:
    chance = random.Random(5)
    events = events_at(range(0, 4000, 50))
    labelled = {coder: [chance.choice((event.label, *LABELS)) for event in events] for coder in ("anna", "ben")}
    codes = [
        given(event, coder, label) for coder, labels in labelled.items() for event, label in zip(events, labels, strict=True)
    ]
    found = agreement_of(units(tmp_path, events, codes), ["anna", "ben"])
    labelled[MACHINE] = [event.label for event in events]
    assert [(pair.first, pair.second) for pair in found.pairs] == [("anna", "ben"), ("anna", MACHINE), ("ben", MACHINE)]
    for pair in found.pairs:
        one, other = labelled[pair.first], labelled[pair.second]
        assert pair.kappa == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)
        assert set(pair.by_class) == {*one, *other}
        for label, kappa in pair.by_class.items():
            binary = [[each == label for each in labels] for labels in (one, other)]
            assert kappa == pytest.approx(cohen_kappa_score(*binary), abs=1e-12)


def test_alpha_of_three_coders_is_that_of_the_reference(tmp_path: Path) -> None:
    chance = random.Random(6)
    events = events_at(range(0, 2000, 50))
    codes, table = [], []
    for coder in ("anna", "ben", "cleo"):
        labels = [chance.choice((*LABELS, None)) for _ in events]
        codes += [given(event, coder, label) for event, label in zip(events, labels, strict=True) if label is not None]
        table.append([np.nan if label is None else LABELS.index(label) for label in labels])
    found = agreement_of(units(tmp_path, events, codes), ["anna", "ben", "cleo"])
    assert found.alpha == pytest.approx(krippendorff.alpha(table, level_of_measurement="nominal"), abs=1e-12)
    assert found.as_dict()["krippendorff_alpha"]["all"] == round(found.alpha, 4)


def test_what_was_added_is_matched_by_overlap(tmp_path: Path) -> None:
    events = events_at([100])
    codes = [
        *(code_of(events[0], coder) for coder in ("anna", "ben", "cleo")),
        added_code(1, 300, coder="anna"),
        added_code(2, 303, coder="ben"),  # overlaps by 9 of 15 frames
        added_code(3, 310, coder="cleo"),  # overlaps with none by half
        added_code(4, 303, coder="cleo", face=1),
    ]
    made = units(tmp_path, events, codes)
    assert [unit.id for unit in made] == ["event-0", "added-1", "added-4", "added-3"]
    both = made[1]
    assert (both.label("anna"), both.label("ben"), both.label("cleo"), both.label(MACHINE)) == (
        "positive",
        "positive",
        NONE,
        NONE,
    )
    pair = agreement_of(made, ["anna", "ben"]).pairs[0]
    assert (pair.units, pair.both, pair.matched, pair.kappa) == (2, 2, 2, 1.0)
    assert pair.differences == pytest.approx({"onset": 0.05, "apex": 0.05, "offset": 0.05}, abs=1e-3)


def test_a_coder_blind_to_the_machine_is_matched_with_its_events(tmp_path: Path) -> None:
    events = events_at([100, 200])
    codes = [added_code(1, 102, coder="ben", label=events[0].label), code_of(events[0], "anna")]
    made = units(tmp_path, events, codes, ben="machine")
    assert [unit.label("ben") for unit in made] == [events[0].label, NONE]
    assert [unit.label("anna") for unit in made] == [events[0].label, None], "anna has not decided about the second"


def test_disagreements_are_about_class_existence_and_time(tmp_path: Path) -> None:
    events = events_at([100, 200, 300, 400, 500])
    moved = {"onset": Mark(420, 14.0), "apex": Mark(426, 14.2), "offset": Mark(432, 14.4)}
    codes = [
        *(code_of(events[0], coder) for coder in ("anna", "ben")),
        *(given(events[1], coder, label) for coder, label in (("anna", "negative"), ("ben", NONE))),
        *(given(events[2], coder, NONE) for coder in ("anna", "ben")),
        code_of(events[3], "anna"),
        replace(code_of(events[3], "ben"), **moved),
        code_of(events[4], "anna"),
    ]
    made, people = units(tmp_path, events, codes), ["anna", "ben"]
    assert [unit.id for unit in disagreements(made, people)] == ["event-1", "event-3"]
    assert undecided(made, people) == {"ben": 1}
    assert agreed(made[4], ["anna"])


def test_nothing_to_compare_is_not_defined(tmp_path: Path) -> None:
    found = agreement_of(units(tmp_path, [], [], anna="none", ben="none"), ["anna", "ben"])
    assert (found.pairs[0].units, found.pairs[0].kappa, found.alpha) == (0, None, None)
    assert found.as_dict()["krippendorff_alpha"] is None
