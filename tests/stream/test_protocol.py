from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from engine.errors import InputError
from engine.types import Activity, Frame, Mark
from stream import protocol
from stream.analysis.preview import draw
from stream.messages import Acted, FaceTrace, NodeStatus, Preview, Signal, SourceStatus, WantedPreview
from stream.protocol import CameraOffer, Message, Ping, PreviewRequest, Subscribe
from tests.events import an_event, decided, preview_parts, stored
from tests.schema import FROM_CLIENT, document, problems

NOW = 1769850000.1234
NAN = math.nan
STATUS = SourceStatus("lobby", "rtsp", "live", "", 29.97, 300, 2, 1, 640, 480, NOW)
TRACE = FaceTrace(0, (1.0, 1.0333333), (0.2, 1.25), (0.05, 0.3))


def every_message() -> Iterator[tuple[str, Message]]:
    stamps = {"monotonic": time.monotonic(), "now": NOW}
    hello = {"model": "ahmsa-3db@sha256:0", "version": "0.1.0", "seq": 17, "store": "5a", "now": NOW}
    yield "hello", protocol.hello([STATUS], **hello)
    yield "hello in trouble", protocol.hello([], **hello, problem="events cannot be stored")
    yield "final", protocol.expression({**protocol.stamped(decided(1), **stamps), "seq": 1})
    unsure = decided(1, label="uncertain", why="turned away")
    captured = replace(decided(1), clock_offset=time.monotonic() - 2.0)
    yield "final with the time of its capture", protocol.expression({**protocol.stamped(captured, **stamps), "seq": 4})
    yield "final, uncertain", protocol.expression({**protocol.stamped(unsure, **stamps), "seq": 3})
    yield (
        "final, cut short",
        protocol.expression({**protocol.stamped(decided(1, truncated=True), **stamps), "seq": 2}, evidence=True),
    )
    yield "provisional", protocol.expression(protocol.stamped(decided(1, state="provisional"), **stamps))
    yield (
        "final without usable numbers",
        protocol.expression(
            {
                **protocol.stamped(decided(1, confidence=NAN, intensity=math.inf, probabilities={"surprise": NAN}), **stamps),
                "seq": 3,
            }
        ),
    )
    yield "from the store", protocol.expression({**stored(4), "seq": 4})
    yield "status", protocol.status(STATUS)
    yield "status at the start", protocol.status(SourceStatus("lobby", "webcam", "starting", fps=NAN))
    yield "signal", protocol.signal(Signal("lobby", 1.0333333, NOW, (TRACE,)))
    yield "signal while it speaks", protocol.signal(Signal("lobby", 1.0, NOW, (replace(TRACE, doing={"speech": 0.25}),)))
    yield "activity", protocol.activity(Acted("lobby", Activity(0, "head_turn", Mark(10, 0.4), Mark(20, 0.8))))
    yield "signal of nobody", protocol.signal(Signal("lobby", 1.0, NOW, ()))
    yield (
        "signal without values",
        protocol.signal(Signal("lobby", 1.0, NOW, (FaceTrace(0, (), (), ()), FaceTrace(1, (1.0,), (NAN,), (NAN,))))),
    )
    yield "status of a node's source", protocol.status(replace(STATUS, stream="desk/lobby", node="desk"))
    node = NodeStatus("desk", "lost", "nothing was heard of it", "http://desk:8765/", "0.1.0", "ahmsa", NOW)
    yield "node", protocol.node(node)
    yield "hello of a fleet", protocol.hello([replace(STATUS, node="desk")], **hello, nodes=[node])
    forwarded = {**stored(4), "stream": "desk/lobby", "node": "desk", "node_store": "5a", "node_seq": 3, "seq": 4}
    yield "final of a node", protocol.expression(forwarded)
    yield "heartbeat", protocol.heartbeat(now=NOW, seq=17)
    yield "error", protocol.error("store", "the disk is full")
    yield "removed", protocol.removed("lobby")
    yield "pong", protocol.pong(now=NOW)
    picture = draw("lobby", Frame(7, 0.25, np.zeros((48, 64, 3), np.uint8)), [], WantedPreview(64, 10))
    yield "preview", protocol.preview(picture)


MESSAGES = dict(every_message())


def body(message: Message) -> dict[str, Any]:
    if isinstance(message.encoded, bytes):
        return preview_parts(message.encoded)[0]
    return dict(json.loads(message.encoded, parse_constant=lambda word: pytest.fail(f"{word} in JSON")))


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_sent_fits_the_published_schema(name: str) -> None:
    assert problems(body(MESSAGES[name])) == []


def test_every_published_type_is_sent_and_tested() -> None:
    published = {message["$ref"].rsplit("/", 1)[-1] for message in document()["operations"]["tell"]["messages"]}
    assert {message.type for message in MESSAGES.values()} == published


def test_the_schema_tells_wrong_messages_apart() -> None:
    """Each change of a right message that must not pass."""
    final, provisional = body(MESSAGES["final"]), body(MESSAGES["provisional"])
    for wrong in (
        {**final, "seq": 0},
        {**final, "kind": None},
        {**final, "offset": None},
        {**final, "surplus": 1},
        {**final, "label": None},
        {**provisional, "seq": 3},
        {**provisional, "kind": "micro"},
        {key: value for key, value in final.items() if key != "seq"},
        {**body(MESSAGES["status"]), "state": "unheard of"},
        {"type": "unheard of"},
    ):
        assert problems(wrong), wrong


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_document_is_whole() -> None:
    whole = document()
    assert whole["asyncapi"] == "3.0.0"
    for reference in references(whole):
        at: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            assert part in at, f"{reference} leads nowhere"
            at = at[part]
    for schema in whole["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    used = {reference.rsplit("/", 1)[-1] for reference in references(whole)}
    assert set(whole["components"]["schemas"]) <= used
    assert set(whole["components"]["messages"]) <= used


def test_an_event_keeps_the_form_it_has_in_files_and_gains_three_fields() -> None:
    event = an_event(3)
    made = protocol.stamped(decided(3), monotonic=time.monotonic() + 0.0382, now=NOW)
    assert {key: made[key] for key in event.as_dict()} == event.as_dict()
    assert made["emitted_at"] == "2026-01-31T09:00:00.123Z"
    assert 38 <= made["latency_ms"] < 10_000
    assert "onset_at" not in made, "the clock of the source is not known"
    message = protocol.expression({**made, "seq": 9})
    assert (message.type, message.stream, message.body) == ("expression", "lobby", {**made, "seq": 9})


def test_when_the_onset_was_captured() -> None:
    """The source's time 3 was 0.5 s before now."""
    monotonic = time.monotonic()
    known = replace(decided(3), clock_offset=monotonic - 3.5)
    assert protocol.stamped(known, monotonic=monotonic, now=NOW)["onset_at"] == "2026-01-31T08:59:59.623Z"


def test_no_latency_is_negative() -> None:
    assert protocol.stamped(decided(1), monotonic=0.0, now=NOW)["latency_ms"] == 0


@pytest.mark.parametrize("name", ["final without usable numbers", "status at the start", "signal without values"])
def test_numbers_that_are_not_finite_become_null(name: str) -> None:
    assert "null" in str(MESSAGES[name].encoded)


@given(
    st.recursive(
        st.floats() | st.integers() | st.text() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_header_is_valid_json(value: Any) -> None:
    message = protocol.preview(Preview("lobby", {"anything": value}, b"\xff\xd8"))
    assert isinstance(message.encoded, bytes)
    header, jpeg = preview_parts(message.encoded)
    assert (header["stream"], jpeg) == ("lobby", b"\xff\xd8")


VALID: dict[str, Any] = {
    '{"type":"subscribe"}': Subscribe(),
    '{"type":"subscribe","v":1,"streams":null,"types":["expression"],"kinds":["micro"],"labels":["surprise"]}': Subscribe(
        types=("expression",), kinds=("micro",), labels=("surprise",)
    ),
    '{"type":"preview","stream":"lobby","on":true,"fps":5,"width":320}': PreviewRequest(
        type="preview", stream="lobby", on=True, fps=5, width=320
    ),
    '{"type":"preview","stream":"lobby","on":false}': PreviewRequest(type="preview", stream="lobby", on=False),
    '{"type":"ping"}': Ping(type="ping"),
}


@pytest.mark.parametrize("text", VALID)
def test_messages_of_clients_are_parsed(text: str) -> None:
    assert protocol.read_client(text) == protocol.read_client(text.encode()) == VALID[text]
    assert problems(json.loads(text), FROM_CLIENT) == []


INVALID = {
    "": "not valid JSON",
    "{": "not valid JSON",
    "[]": "the message: ",
    "null": "the message: ",
    "7": "the message: ",
    "{}": "subscribe, preview or ping",
    '{"type":"shutdown"}': "subscribe, preview or ping",
    '{"type":["ping"]}': "subscribe, preview or ping",
    '{"type":"ping","v":2}': "v: ",
    '{"type":"ping","more":1}': "the message: ",
    '{"type":"subscribe","types":["hello"]}': "types",
    '{"type":"subscribe","kinds":"micro"}': "kinds",
    '{"type":"subscribe","streams":[""]}': "streams",
    json.dumps({"type": "subscribe", "labels": ["x"] * 101}): "labels",
    json.dumps({"type": "subscribe", "labels": ["x" * 201]}): "labels",
    '{"type":"preview","on":true}': "stream",
    '{"type":"preview","stream":"a","on":true,"fps":16}': "fps",
    '{"type":"preview","stream":"a","on":true,"fps":NaN}': "fps",
    '{"type":"preview","stream":"a","on":true,"fps":0}': "fps",
    '{"type":"preview","stream":"a","on":true,"width":100000}': "width",
    '{"type":"preview","stream":"a","on":true,"width":1e400}': "width",
    "[" * 100_000: "not valid JSON",
    '{"type":"ping","v":' + "[" * 500 + "]" * 500 + "}": "not valid JSON|v: ",
}


@pytest.mark.parametrize("text", INVALID, ids=[text[:60] for text in INVALID])
def test_an_invalid_message_is_answered_with_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match=INVALID[text]) as caught:
        protocol.read_client(text)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert 10 < len(sentence) < 200


def test_the_sentence_quotes_nothing_of_the_message() -> None:
    for text in (
        '{"type":"ping","secret-key":1}',
        '{"type":"subscribe","kinds":["secret-value"]}',
        '{"type":"secret"}',
        "secret",
    ):
        with pytest.raises(InputError) as caught:
            protocol.read_client(text)
        assert "secret" not in str(caught.value)


def test_bytes_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(InputError):
        protocol.read_client(b"\xff\xfe{}")


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        protocol.read_client(data)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_camera_needs_consent_and_a_valid_name() -> None:
    offer = {"type": "camera", "v": 1, "name": "front desk", "consent": True}
    assert protocol.read_camera(json.dumps(offer)) == CameraOffer(type="camera", name="front desk", consent=True)
    assert problems(offer, FROM_CLIENT) == []
    for wrong in ({"consent": False}, {"name": ""}, {"name": "../x"}, {"name": "x" * 65}, {"type": "ping"}):
        with pytest.raises(InputError):
            protocol.read_camera(json.dumps({**offer, **wrong}))


def test_the_query_holds_since_and_a_subscription() -> None:
    assert protocol.read_query("") == (None, Subscribe())
    assert protocol.read_query("since=0") == (0, Subscribe())
    since, subscription = protocol.read_query(
        "since=17&stream=lobby&stream=front%20desk&type=expression&kind=micro&label=surprise&other=1"
    )
    assert since == 17
    assert subscription == Subscribe(
        streams=("lobby", "front desk"), types=("expression",), kinds=("micro",), labels=("surprise",)
    )
    assert protocol.read_query(protocol.query(since, subscription)) == (since, subscription)
    assert protocol.query(None, Subscribe()) == ""


@pytest.mark.parametrize(
    "query",
    [
        "since=",
        "since=-1",
        "since=1.5",
        "since=x",
        "since=99999999999999999999",
        "since=٣",
        "kind=nano",
        "type=hello",
        "&a" * 300,
    ],
)
def test_an_invalid_query_is_refused(query: str) -> None:
    with pytest.raises(InputError):
        protocol.read_query(query)


ALL = ("final", "provisional", "activity", "status", "signal", "removed", "preview")
ALWAYS = ("hello", "heartbeat", "error", "pong")


@pytest.mark.parametrize(
    ("subscription", "wanted"),
    [
        (Subscribe(), ALL),
        (Subscribe(types=("expression",)), ("final", "provisional")),
        (Subscribe(types=("activity",)), ("activity",)),
        (Subscribe(types=()), ()),
        (Subscribe(streams=("door",)), ()),
        (Subscribe(streams=("door", "lobby")), ALL),
        (Subscribe(kinds=("micro",)), ("final", "activity", "status", "signal", "removed", "preview")),
        (Subscribe(kinds=("macro",), types=("expression", "status")), ("status",)),
        (Subscribe(labels=("surprise",), types=("expression",)), ("final", "provisional")),
        (Subscribe(labels=("negative",), types=("expression",)), ()),
    ],
)
def test_a_subscription_selects_messages_about_streams_alone(subscription: Subscribe, wanted: tuple[str, ...]) -> None:
    assert tuple(name for name in (*ALL, *ALWAYS) if subscription.wants(MESSAGES[name])) == (*wanted, *ALWAYS)


def test_times_are_utc_to_the_millisecond() -> None:
    assert protocol.iso(0) == "1970-01-01T00:00:00.000Z"
    assert protocol.iso(NOW) == "2026-01-31T09:00:00.123Z"
