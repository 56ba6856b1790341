from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from stream.review.database import ReviewDatabase
from tests.review import code_of, events_at, write_results
from tests.soak.review import CODER, Script, app, problems_of


def test_two_kills_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    result = CliRunner().invoke(app, ["--events", "30", "--kills", "2", "--json", str(path)])
    assert result.exit_code == 0, result.output
    record = json.loads(path.read_text())
    assert (record["events"], record["kills"], record["problems"]) == (30, 2, [])
    assert record["actions"] >= 30


def test_what_is_lost_doubled_or_changed_is_found(tmp_path: Path) -> None:
    events = events_at([10, 40])
    results = write_results(tmp_path, events)
    script = Script([("event-0", "accepted", "negative"), ("event-1", "rejected", "positive")])
    script.left = {"event-0": ("accepted", "negative"), "event-1": ("rejected", "positive")}
    with ReviewDatabase.open(results) as database:
        database.put("1", code_of(events[0], CODER))
        lost = list(problems_of(results, script, 1, 1))
        database.put("2", code_of(events[1], CODER, decision="rejected"))
        assert list(problems_of(results, script, 1, 1)) == []
        database.put("3", code_of(events[1], CODER, decision="rejected"))
        doubled = list(problems_of(results, script, 2, 1))
    assert lost == ["1 actions are stored and 2 were made; 0 differ in place", "1 events have other codes than were given"]
    assert doubled == ["3 actions are stored and 2 were made; 0 differ in place", "the server was killed 1 times, not 2"]
