from __future__ import annotations

import pytest

from engine.errors import InputError
from training.datasets.subjects import refuse_two_spellings


@pytest.mark.parametrize(
    ("one", "other"),
    [("sub01", "Sub01"), ("sub01", "sub1"), ("006", "6"), ("spNO.1", "spNO. 1"), ("casme2/sub10", "CASME2/sub010")],
)
def test_one_person_spelled_in_two_ways_is_an_error_that_names_both(one: str, other: str) -> None:
    with pytest.raises(InputError, match=f"the table spells one subject in two ways, {one!r} and {other!r}"):
        refuse_two_spellings((one, "another", one, other), "the table")


def test_different_people_are_different() -> None:
    refuse_two_spellings(("sub01", "sub10", "sub100", "sub01", "sub001x", "1", "11", "0", "smic/s01", "samm/s01"), "the table")
