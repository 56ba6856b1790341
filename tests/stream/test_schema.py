from __future__ import annotations

import json
from typing import Any

import pytest

from stream.schema import read_message, read_stored
from tests.events import DAMAGED, stored


def test_a_stored_event_is_read_unchanged() -> None:
    event = {**stored(1), "unknown": [1, 2.5, None], "why": "not sure"}
    assert read_stored(json.dumps(event).encode()) == event


@pytest.mark.parametrize(
    "text", ['{"a": [{"b": []}, {}]}', '{"a": ' + "[" * 31 + "]" * 31 + "}", '{"a": [' + "[],{}," * 100 + "1]}"]
)
def test_brackets_are_not_levels(text: str) -> None:
    assert read_message(text)["a"] == json.loads(text)["a"]


@pytest.mark.parametrize("body", DAMAGED)
def test_a_damaged_event_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_stored(body)


def message(**fields: Any) -> str:
    return json.dumps(fields)


@pytest.mark.parametrize(
    "text",
    [
        message(type="hello", seq=0, store="a"),
        message(type="heartbeat", seq=1),
        message(type="status", stream="lobby", state="live", detail=""),
        message(type="error", code="store", message="the disk is full"),
        message(**{**stored(1), "seq": 1}),
        message(**{**stored(1, state="provisional")}),
        message(type="of another version"),
        message(),
    ],
)
def test_valid_messages_are_read_unchanged(text: str) -> None:
    assert read_message(text) == {"type": "", **json.loads(text)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "1",
        "null",
        "[" * 100_000,
        '{"a":' * 100_000,
        message(type=[]),
        message(type="hello"),
        message(type="hello", seq="1", store="a"),
        message(type="hello", seq=-1, store="a"),
        message(type="hello", seq=2**63, store="a"),
        message(type="hello", seq=True, store="a"),
        message(type="hello", seq=1, store=None),
        message(type="heartbeat", seq=None),
        message(type="heartbeat", seq=1.5),
        message(type="status", stream="lobby"),
        message(type="status", stream=1, state="live", detail=""),
        message(type="error"),
        message(type="expression"),
        message(**stored(1)),
        message(**{**stored(1), "seq": 1, "onset": None}),
        message(**{**stored(1), "seq": 1, "state": "done"}),
        message(**{**stored(1), "seq": 1, "confidence": "high"}),
        message(**{**stored(1), "seq": 1, "emitted_at": "yesterday"}),
        message(**{**stored(1), "seq": 1, "emitted_at": "0001-01-01T00:00:00+14:00"}),
    ],
)
def test_invalid_messages_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_message(text)
