from __future__ import annotations

import json

import pytest

from stream.outlets import fleet
from stream.outlets.fleet import IncompatibleError, NodeInfo, NodeState, StreamState, read_info, read_state

STREAM = StreamState(stream="lobby", kind="webcam", state="live", fps=30.0)
STATE = NodeState(node="desk", store="5a", instance="1", version="0.1.0", page="http://desk:8765/", streams=(STREAM,))


def test_a_state_is_read_as_it_was_written() -> None:
    assert read_state(json.loads(STATE.model_dump_json())) == STATE
    assert read_info(STATE.info.model_dump_json()) == STATE.info == NodeInfo(**STATE.info.model_dump())
    assert "streams" not in STATE.info.model_dump_json()


@pytest.mark.parametrize(
    "wrong",
    [
        {"node": "a/b"},
        {"node": "a:b"},
        {"store": ""},
        {"page": "javascript:alert(1)"},
        {"page": "http://user:word@desk/"},
        {"type": "status"},
        {"streams": [{"stream": "a", "kind": "webcam", "state": "sleeping"}]},
        {"streams": [{"stream": "a", "kind": "webcam", "state": "live", "frames": 10**400}]},
        {"seq": -1},
    ],
)
def test_what_is_no_state_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_state({**json.loads(STATE.model_dump_json()), **wrong})


def test_long_sentences_are_cut() -> None:
    state = read_state({**json.loads(STATE.model_dump_json()), "problem": "x" * 2_000_000})
    assert state.problem == "x" * fleet.LONGEST


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"protocol":2,"version":"\\ud800"}'])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_info(text)


@pytest.mark.parametrize("protocol", [0, 2, None, "1"])
def test_another_protocol_is_named_whatever_else_it_holds(protocol: object) -> None:
    with pytest.raises(IncompatibleError) as refused:
        read_info(json.dumps({"protocol": protocol, "version": "9.0", "new": []}))
    assert (refused.value.protocol, refused.value.version) == (protocol, "9.0")


def test_keys_name_node_and_store() -> None:
    keys = [key("desk", "5a") for key in (fleet.events_key, fleet.state_key, fleet.node_field)]
    assert keys == ["apexstream:events:desk:5a", "apexstream:state:desk:5a", "desk:5a"]
    assert (fleet.name_key("desk"), fleet.live_channel("desk")) == ("apexstream:name:desk", "apexstream:live:desk")
