from __future__ import annotations

import json
from dataclasses import replace

import pytest

from engine.errors import InputError
from stream.review.codes import Code, action_units
from tests.review import added_code, code_of, events_at


def test_a_code_survives_its_json_form() -> None:
    code = replace(code_of(events_at([3])[0]), action_units=("AU1", "LAU14"), note="eyes too", apex=None)
    for one in (code, added_code(1, 10)):
        assert Code.from_dict(json.loads(json.dumps(one.as_dict()))) == one


def test_which_decisions_are_expressions() -> None:
    code = code_of(events_at([3])[0])
    assert [replace(code, decision=one).is_expression for one in ("open", "accepted", "rejected", "relabelled", "added")] == [
        False,
        True,
        False,
        True,
        True,
    ]


def test_action_units_as_they_are_typed() -> None:
    assert action_units(" 1+2 ") == ("AU1", "AU2")
    assert action_units("AU12, l14;4b 12") == ("AU12", "LAU14", "AU4B")
    assert action_units("") == ()


@pytest.mark.parametrize("text", ["3", "99", "smile", "1-2", "12F", "1" * 40])
def test_what_is_no_action_unit_is_named(text: str) -> None:
    with pytest.raises(InputError, match="is no action unit"):
        action_units(text)
