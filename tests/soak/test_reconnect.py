from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.reconnect import FAULTS, Holdings, Return, figures, violations

ROOT = Path(__file__).resolve().parents[2]
PER_FAULT_S = 60.0
"""Longest wait for each fault: reached only by a test that fails."""


def test_every_fault_is_injected_and_recorded(tmp_path: Path) -> None:
    record_file = tmp_path / "record.json"
    times = str(len(FAULTS))
    command = [sys.executable, "-m", "tests.soak.reconnect", "--times", times, "--warm-up", "0", "--json", str(record_file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PER_FAULT_S * len(FAULTS), check=False)
    assert record_file.exists(), done.stderr
    record = json.loads(record_file.read_text())
    assert {fault: record["returns"][fault]["count"] for fault in FAULTS} == dict.fromkeys(FAULTS, 1)
    assert record["after"]["threads"] <= record["before"]["threads"]
    assert record["after"]["handles"] <= record["before"]["handles"]
    assert record["stall_s"] == 1.0
    assert done.returncode == bool(record["problems"])
    assert "kill" in done.stderr


WELL = Holdings(threads=3, system_threads=5, handles=20, memory_mib=100.0)


@pytest.mark.parametrize(
    ("last", "after", "expected"),
    [
        (Return("reset", 1.0), WELL, []),
        (Return("reset", 5.5), WELL, ["frames came 5.5 s after a return"]),
        (Return("silent-drop", 6.9), WELL, []),
        (
            Return("silent-drop", 7.5),
            WELL,
            ["frames came 7.5 s after a connection died unnoticed (stall_s and 5 s are allowed)"],
        ),
        (Return("reset", 1.0), Holdings(4, 5, 20, 100.0), ["threads grew from 3 to 4"]),
        (Return("reset", 1.0), Holdings(3, 5, 21, 100.0), ["handles grew from 20 to 21"]),
        (Return("reset", 1.0), Holdings(3, 5, 20, 110.0), ["memory grew by 10.0%"]),
    ],
)
def test_what_leaks_or_lasts_too_long_is_reported(last: Return, after: Holdings, expected: list[str]) -> None:
    assert violations([Return("kill", 0.5), last], [WELL, after], stall_s=2.0) == expected


def test_a_loss_that_must_be_noticed_first_is_counted_apart() -> None:
    assert set(FAULTS) == {"kill", "reset", "freeze", "stall", "silent-drop"}
    found = figures([Return("kill", 0.5), Return("silent-drop", 3.0), Return("silent-drop", 4.0)])
    assert found["all noticed"] == found["kill"] == {"count": 1, "p50": 0.5, "p95": 0.5, "worst": 0.5}
    assert found["silent-drop"]["worst"] == 4.0
