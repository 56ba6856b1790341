from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.soak import subscribers
from tests.soak.subscribers import app, measure, violations

SOUND: dict[str, Any] = {
    "readers": 950,
    "stuck": 50,
    "events": 6000,
    "rate": 20.0,
    "receipts": 5_700_000,
    "lost": 0,
    "twice": 0,
    "readers_gone": 0,
    "p50_ms": 10.0,
    "p99_ms": 40.0,
    "max_ms": 90.0,
    "stuck_dropped": 50,
    "last_dropped_after_s": 60.0,
    "service_cpu": 0.2,
    "clients_cpu": 0.2,
    "service_memory_mib": 120.0,
}
ALL_READ = SOUND | {"readers": 1000, "stuck": 0, "stuck_dropped": 0, "last_dropped_after_s": None}


def test_a_small_round_loses_nothing_and_drops_who_does_not_read() -> None:
    one = measure(20, 2, rate=500, events=2000, buffer_bytes=4096)
    assert (one["receipts"], one["lost"], one["twice"], one["readers_gone"]) == (40_000, 0, 0, 0)
    assert one["stuck_dropped"] == 2
    assert 0 < one["p50_ms"] <= one["p99_ms"] <= one["max_ms"]


def test_a_sound_run_has_no_violations() -> None:
    assert violations([ALL_READ, SOUND]) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"p99_ms": 151.0}, "p99 is 151.0 ms"),
        ({"p99_ms": float("nan")}, "p99 is nan ms"),
        ({"lost": 1}, "1 receipts are missing"),
        ({"twice": 3}, "3 events came twice"),
        ({"readers_gone": 2}, "2 that read were cut off"),
        ({"stuck_dropped": 49}, "49 of 50 were dropped"),
        ({"p99_ms": 51.0}, "from 40.0 to 51.0 ms"),
    ],
)
def test_each_violation_is_reported(changed: dict[str, float], expected: str) -> None:
    found = violations([ALL_READ, SOUND | changed])
    assert expected in " ".join(found)


def test_the_record_holds_the_command_and_the_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribers, "measure", lambda readers, stuck, **_: SOUND if stuck else ALL_READ)
    file = tmp_path / "record.json"
    result = CliRunner().invoke(app, ["--subscribers", "1000", "--json", str(file)])
    assert result.exit_code == 0
    record = json.loads(file.read_text())
    command = "python -m tests.soak.subscribers --subscribers 1000 --rate 20 --minutes 5 --stuck 50"
    assert record["command"].removeprefix(f"nice -n {os.nice(0)} ") == command
    assert [one["readers"] for one in record["rounds"]] == [1000, 950]
    assert record["problems"] == []
    assert str(tmp_path) not in file.read_text()
    assert "950 read, 50 never" in result.stdout
