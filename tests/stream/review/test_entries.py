from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.types import Mark
from stream.review.database import ReviewDatabase
from stream.review.entries import reviewed_entries, undecided
from tests.review import added_code, code_of, events_at, write_results

EVENTS = events_at([10, 40, 70, 100, 130])


@pytest.fixture
def reviewed(tmp_path: Path) -> Path:
    """Results whose five events were accepted, moved, relabelled, rejected and left open, and one more added."""
    write_results(tmp_path, EVENTS, origin=-1.0)
    later = Mark(60, 2.0)
    with ReviewDatabase.open(tmp_path) as database:
        database.enter("anna", "none")
        codes = [
            code_of(EVENTS[0], action_units=("AU4",), note="clear"),
            code_of(EVENTS[1], offset=later),
            code_of(EVENTS[2], decision="relabelled", label="negative"),
            code_of(EVENTS[3], decision="rejected"),
            code_of(EVENTS[4], decision="open", note="look again"),
            added_code(1, 25),
            code_of(replace(EVENTS[0], id="gone")),
        ]
        for code in codes:
            database.put(code.id, code)
    return tmp_path


def test_events_as_reviewed(reviewed: Path) -> None:
    entries = reviewed_entries(reviewed, "anna")
    assert [entry.event.id for entry in entries] == ["event-0", "added-1", "event-1", "event-2"]
    accepted, added, moved, relabelled = (entry.event for entry in entries)
    assert accepted == EVENTS[0]
    assert (moved.offset, moved.kind, moved.label) == (Mark(60, 2.0), "macro", EVENTS[1].label)
    assert (relabelled.label, relabelled.model, relabelled.confidence) == ("negative", "coder anna", 1.0)
    assert relabelled.intensity == EVENTS[2].intensity
    assert (added.label, added.kind, added.stream) == ("positive", "micro", "interview")
    assert entries[0].fields["review"] == {
        "coder": "anna",
        "decision": "accepted",
        "action_units": ["AU4"],
        "note": "clear",
    }
    assert entries[1].fields["played"]["onset"] == pytest.approx(25 / 30 + 1.0, abs=1e-5)
    assert [entry.event for entry in undecided(reviewed, "anna")] == [EVENTS[4]]


def test_who_did_not_review_is_named(reviewed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no review by 'ben'; reviewers: anna"):
        reviewed_entries(reviewed, "ben")
    with pytest.raises(InputError, match="has not been reviewed"):
        reviewed_entries(write_results(tmp_path / "other", EVENTS), "anna")
