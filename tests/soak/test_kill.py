from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from tests.soak.kill import app, made_up


def test_three_kills_cost_no_event(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    result = CliRunner().invoke(app, ["--times", "3", "--json", str(path)])
    assert result.exit_code == 0, result.output
    record = json.loads(path.read_text())
    assert (record["kills"], record["problems"]) == (3, [])
    assert record["events_seen"] == record["events_stored"] > 3
    assert [kill["events"] for kill in record["kills_in_order"]] == sorted(kill["events"] for kill in record["kills_in_order"])
    assert "3 kills" in result.stderr


def test_made_up_events_differ() -> None:
    ids = {decided.event.id for run in range(3) for number in range(3) for decided in made_up(run, number)}
    assert len(ids) == 9
    assert [decided.event.state for decided in made_up(1, 1)] == ["provisional", "final"]
