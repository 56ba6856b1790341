from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import InputError
from stream.recorded.results import read_results
from stream.review.adjudication import adjudicate
from stream.review.database import ReviewDatabase
from stream.review.entries import reviewed_entries
from stream.review.session import ReviewSession
from tests.review import added_code, code_of, events_at, write_results

EVENTS = events_at([100, 200, 300])


@pytest.fixture
def database(tmp_path: Path) -> Iterator[ReviewDatabase]:
    """Two coders who agree on the first event, and that the third is none, and not on the second; one has added another."""
    write_results(tmp_path, EVENTS)
    with ReviewDatabase.open(tmp_path) as opened:
        for coder in ("anna", "ben"):
            opened.enter(coder, "none")
            opened.put(f"1 {coder}", code_of(EVENTS[0], coder, action_units=("AU4",)))
            opened.put(f"2 {coder}", code_of(EVENTS[1], coder, decision="rejected" if coder == "ben" else "accepted"))
            opened.put(f"3 {coder}", code_of(EVENTS[2], coder, decision="rejected"))
        opened.put("4", added_code(1, 400))
        yield opened


def session(database: ReviewDatabase) -> ReviewSession:
    results = read_results(database.path.parent)
    made = ReviewSession(results, database, "cleo", adjudication=adjudicate(results, database, "cleo"))
    made.times = np.arange(500) / 30
    return made


def act(session: ReviewSession, action: str, code: str, event: str | None, onset: int, **changes: Any) -> dict[str, Any]:
    fields = {"id": code, "event": event, "face": 0, "onset": onset, "apex": onset + 6, "offset": onset + 12}
    put = {**fields, "decision": "accepted", "label": "surprise", "action_units": "", "note": "", **changes}
    return session.act(json.dumps({"type": "put", "id": action, "code": put}))


def test_the_third_person_sees_the_disagreements_and_who_said_what(database: ReviewDatabase) -> None:
    hello = session(database).hello()
    assert [event["id"] for event in hello["events"]] == ["event-1", "added-1"]
    machine, added = hello["events"]
    assert [(other["coder"], other["code"] and other["code"]["decision"]) for other in machine["others"]] == [
        ("anna", "accepted"),
        ("ben", None),
    ]
    assert added["proposed"] and "label" not in added
    assert [other["code"] and other["code"]["label"] for other in added["others"]] == ["positive", None]
    assert hello["codes"] == []
    assert json.loads(json.dumps(hello)) == hello


def test_what_was_agreed_and_what_is_decided_are_one_review(database: ReviewDatabase) -> None:
    third = session(database)
    assert act(third, "a", "event-1", "event-1", 200)["state"]["decision"] == "relabelled"
    assert act(third, "b", "added-1", None, 400)["state"]["decision"] == "added"
    entries = reviewed_entries(database.path.parent, "cleo")
    assert [(entry.event.id, entry.event.label) for entry in entries] == [
        ("event-0", "negative"),
        ("event-1", "surprise"),
        ("added-1", "surprise"),
    ]
    assert entries[0].fields["review"]["action_units"] == ["AU4"]
    assert act(third, "c", "added-1", None, 400, decision="rejected")["state"]["decision"] == "rejected"
    assert len(reviewed_entries(database.path.parent, "cleo")) == 2
    assert len(session(database).hello()["codes"]) == 2, "resumed: what was settled is not listed"
    assert act(third, "d", "added-1", "added-1", 400)["type"] == "refused"


def test_what_was_agreed_cannot_be_undone_and_follows_the_coders(database: ReviewDatabase) -> None:
    third = session(database)
    undone = third.act(json.dumps({"type": "undo", "id": "u"}))
    assert undone["code"] is None, "there is nothing that cleo did"
    assert agreed_of(database) == {"event-0": "negative", "event-2": None}
    for coder in ("anna", "ben"):
        database.put(f"5 {coder}", code_of(EVENTS[0], coder, label="surprise", decision="relabelled"))
    database.put("6 ben", code_of(EVENTS[2], "ben"))
    assert [event["id"] for event in session(database).hello()["events"]] == ["event-1", "event-2", "added-1"]
    assert agreed_of(database) == {"event-0": "surprise"}, "cleo has not decided about the third event"
    actions = database.actions("cleo")
    session(database)
    assert database.actions("cleo") == actions, "nothing has changed"


def test_what_the_third_person_decided_stays_though_the_coders_agree_later(database: ReviewDatabase) -> None:
    act(session(database), "a", "event-1", "event-1", 200)
    database.put("7 ben", code_of(EVENTS[1], "ben"))
    assert "event-1" not in [event["id"] for event in session(database).hello()["events"]]
    assert agreed_of(database)["event-1"] == "surprise"


def agreed_of(database: ReviewDatabase) -> dict[str, str | None]:
    """The classes of cleo's codes by id, None for those that are no expression."""
    return {code.id: code.label if code.is_expression else None for code in database.codes("cleo")}


def test_who_cannot_decide_is_told_so(database: ReviewDatabase, tmp_path: Path) -> None:
    results = read_results(database.path.parent)
    with pytest.raises(InputError, match="anna is one of the coders"):
        adjudicate(results, database, "anna")
    folder = write_results(tmp_path / "other", EVENTS)
    with ReviewDatabase.open(folder) as other:
        other.enter("anna", "none")
        other.put("1", code_of(EVENTS[0]))
        with pytest.raises(InputError, match="has been coded by anna; adjudication is about"):
            adjudicate(read_results(folder), other, "cleo")
