from __future__ import annotations

import math

import pytest

from engine.errors import InputError
from stream.annotations.timed_label import TimedLabel, Wanted, apex_tiers, apex_within, chosen_tiers, face_of, listed


def test_a_label_has_times_in_order() -> None:
    assert TimedLabel(1.0, 1.0, "happiness").end == 1.0
    with pytest.raises(InputError, match=r"'happiness' ends at 0\.500 s, before it starts at 1\.000 s"):
        TimedLabel(1.0, 0.5, "happiness")
    with pytest.raises(InputError, match="has no times"):
        TimedLabel(math.nan, 1.0, "x")


@pytest.mark.parametrize(("name", "face"), [("face 2 label", 2), ("lobby face 10 label 2", 10), ("Interviewee", None)])
def test_the_face_in_the_name_of_a_tier(name: str, face: int | None) -> None:
    assert face_of(name) == face


def test_the_tiers_of_an_export_are_chosen_by_themselves() -> None:
    names = ["face 0 label", "face 0 kind", "face 0 label 2", "face 0 speech"]
    assert chosen_tiers(names, names, Wanted(), "tier") == ["face 0 label", "face 0 label 2"]


def test_the_only_tier_in_use_is_chosen() -> None:
    assert chosen_tiers(["default", "AUs"], ["AUs"], Wanted(), "tier") == ["AUs"]
    assert chosen_tiers(["default"], [], Wanted(), "tier") == []


def test_several_tiers_must_be_chosen_by_name() -> None:
    names = ["AUs", "gestures"]
    with pytest.raises(InputError, match="several tiers; choose those with expressions by --tier: AUs, gestures"):
        chosen_tiers(names, names, Wanted(), "tier")
    assert chosen_tiers(names, names, Wanted(tiers=("AUs",)), "tier") == ["AUs"]
    with pytest.raises(InputError, match="no tier 'faces'; it has AUs, gestures"):
        chosen_tiers(names, names, Wanted(tiers=("faces",)), "tier")


def test_apexes_belong_to_the_tier_of_that_name_else_to_all() -> None:
    names = ["face 0 label", "face 0 apex", "face 0 apex 2", "Apex"]
    assert apex_tiers("face 0 label", names) == ["face 0 apex"]
    assert apex_tiers("face 0 label 2", names) == ["face 0 apex 2"]
    assert apex_tiers("AUs", names) == ["face 0 apex", "face 0 apex 2", "Apex"]


def test_the_apex_lies_within() -> None:
    assert apex_within(1.0, 2.0, [0.5, 1.2, 1.7, 2.5]) == 1.2
    assert apex_within(1.0, 2.0, [2.0005]) == 2.0005
    assert apex_within(1.0, 2.0, [2.5]) is None


def test_long_lists_are_cut() -> None:
    assert listed(map(str, range(14))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more"
