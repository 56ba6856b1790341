from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from stream.outlets.identifier import identifier


def test_a_plain_name_stays_as_it_is() -> None:
    assert identifier("lobby") == "lobby" and identifier("webcam-0_left") == "webcam-0_left"


def test_other_names_stay_readable_and_different() -> None:
    assert re.fullmatch(r"Buro-links-[0-9a-f]{6}", identifier("Büro links"))
    assert identifier("Büro links") != identifier("Buro links")
    assert re.fullmatch(r"source-[0-9a-f]{6}", identifier("北京"))


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_name_becomes_a_part_of_a_topic(one: str, other: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+", identifier(one))
    assert (identifier(one) == identifier(other)) == (one == other)
