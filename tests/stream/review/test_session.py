from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import InputError
from engine.types import Mark
from stream.recorded.results import read_results
from stream.review.database import ReviewDatabase
from stream.review.session import FramesNotReadError, ReviewSession
from tests.review import events_at, write_results

EVENTS = events_at([40, 10])
CODE = {
    "id": "event-0",
    "event": "event-0",
    "face": 0,
    "decision": "accepted",
    "onset": 40,
    "apex": 46,
    "offset": 52,
    "label": "negative",
    "action_units": "",
    "note": "",
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[ReviewDatabase]:
    write_results(tmp_path, EVENTS)
    with ReviewDatabase.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def session(database: ReviewDatabase) -> ReviewSession:
    made = ReviewSession(read_results(database.path.parent), database, "anna")
    made.times = np.arange(100) / 30
    return made


def put(session: ReviewSession, action: str = "1", **changes: Any) -> dict[str, Any]:
    return session.act(json.dumps({"type": "put", "id": action, "code": {**CODE, **changes}}))


def test_the_page_is_told_events_by_time_and_codes(session: ReviewSession) -> None:
    put(session)
    hello = session.hello()
    assert [event["id"] for event in hello["events"]] == ["event-1", "event-0"]
    assert [code["decision"] for code in hello["codes"]] == ["accepted"]
    assert hello["labels"][:4] == ["negative", "positive", "surprise", "uncertain"]
    assert [12, "Lip corner puller"] in hello["action_units"]
    assert json.loads(json.dumps(hello)) == hello


def test_a_code_is_stored_with_the_times_of_its_frames(session: ReviewSession) -> None:
    answer = put(session, onset=41, offset=60, action_units="1+2", note="brows")
    assert answer["type"] == "stored"
    assert answer["state"]["onset"] == {"frame": 41, "t": round(41 / 30, 6)}
    (code,) = session.database.codes("anna")
    assert (code.decision, code.action_units, code.note) == ("accepted", ("AU1", "AU2"), "brows")
    assert (code.apex, code.offset) == (EVENTS[0].apex, Mark(60, 2.0)), "the event's own mark as the results have it"


def test_another_class_makes_it_relabelled(session: ReviewSession) -> None:
    assert put(session, label="surprise")["state"]["decision"] == "relabelled"
    assert put(session, "2", decision="relabelled", label="negative")["state"]["decision"] == "accepted"
    assert put(session, "3", decision="rejected")["state"]["decision"] == "rejected"


def test_what_was_missed_is_added_and_removed(session: ReviewSession) -> None:
    answer = put(session, id="new", event=None, decision="added", onset=70, apex=71, offset=75)
    assert answer["state"]["event"] is None
    gone = session.act(json.dumps({"type": "remove", "id": "2", "code": "new"}))
    assert (gone["type"], gone["code"], gone["state"]) == ("stored", "new", None)
    back = session.act(json.dumps({"type": "undo", "id": "3"}))
    assert (back["code"], back["state"]["onset"]["frame"]) == ("new", 70)
    assert session.act(json.dumps({"type": "undo", "id": "3"})) == back, "sent again"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"onset": 60}, "follow one another"),
        ({"apex": 40, "offset": 40}, "follow one another"),
        ({"offset": 100}, "has no frame 100"),
        ({"label": "joy"}, "choose a class"),
        ({"label": ""}, "choose a class"),
        ({"action_units": "smile"}, "'smile' is no action unit"),
        ({"id": "event-9", "event": "event-9"}, "no such event"),
        ({"id": "other"}, "no such event"),
        ({"id": "other", "event": None}, "is added"),
        ({"event": None}, "no such event"),
        ({"decision": "added"}, "is added"),
        ({"decision": "maybe"}, "cannot be stored"),
        ({"onset": -1}, "cannot be stored"),
        ({"onset": "40"}, "cannot be stored"),
        ({"onset": 1e99}, "cannot be stored"),
        ({"note": "x" * 3000}, "cannot be stored"),
        ({"coder": "ben"}, "cannot be stored"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(session: ReviewSession, changes: dict[str, Any], sentence: str) -> None:
    answer = put(session, **changes)
    assert (answer["type"], answer["id"]) == ("refused", "1")
    assert sentence in answer["sentence"]
    assert session.database.codes() == []


@pytest.mark.parametrize("data", ["", "{", "[]", "null", b"\xff", "[" * 60_000, '{"type":"drop"}', '{"id":7}'])
def test_what_is_no_message_is_refused(session: ReviewSession, data: str | bytes) -> None:
    assert session.act(data)["type"] == "refused"


def test_marks_wait_for_the_times_of_the_frames(session: ReviewSession) -> None:
    session.times = None
    assert put(session)["type"] == "stored", "the event's own marks are known"
    with pytest.raises(FramesNotReadError, match="still being read"):
        put(session, "2", onset=41)
    session.problem = "the video is damaged"
    answer = put(session, "2", onset=41)
    assert (answer["type"], answer["sentence"]) == ("refused", "the video is damaged")


def test_blind_to_the_classes_or_to_all_events(database: ReviewDatabase) -> None:
    results = read_results(database.path.parent)
    blind = ReviewSession(results, database, "ben", "labels")
    (first, _) = blind.hello()["events"]
    assert not {"label", "probabilities", "confidence", "why"} & first.keys()
    assert put(blind)["state"]["decision"] == "accepted"
    assert put(blind, "2", label="positive")["state"]["decision"] == "accepted", "else the coder would learn the class"
    assert [code["decision"] for code in blind.hello()["codes"]] == ["accepted"]
    assert [code.decision for code in database.codes("ben")] == ["relabelled"]
    unaware = ReviewSession(results, database, "cleo", "machine")
    assert unaware.hello()["events"] == []
    assert "no such event" in put(unaware, "3")["sentence"]
    assert ReviewSession(results, database, "anna").hello()["codes"] == [], "nobody sees the codes of others"
    with pytest.raises(InputError, match="--blind labels"):
        ReviewSession(results, database, "ben", "none")
