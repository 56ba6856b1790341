from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.soak.kill import made_up, main


def test_three_kills_cost_no_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "record.json"
    assert main(["--times", "3", "--json", str(record)]) == 0
    told = json.loads(record.read_text())
    assert (told["kills"], told["problems"]) == (3, [])
    assert told["events_seen"] == told["events_stored"] > 3
    assert [death["events"] for death in told["deaths"]] == sorted(death["events"] for death in told["deaths"])
    assert "3 kills" in capsys.readouterr().err


def test_made_up_events_differ() -> None:
    ids = {decided.event.id for run in range(3) for number in range(3) for decided in made_up(run, number)}
    assert len(ids) == 9
    assert [decided.event.state for decided in made_up(1, 1)] == ["provisional", "final"]
