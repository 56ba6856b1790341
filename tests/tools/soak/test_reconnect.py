from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.soak.reconnect import HARMS, Holdings, Return, judged, main

ROOT = Path(__file__).resolve().parents[3]
PER_HARM_S = 60.0
"""Longest wait for each harm: reached only by a test that fails."""


def test_every_harm_is_done_and_recorded(tmp_path: Path) -> None:
    record_file = tmp_path / "record.json"
    times = str(len(HARMS))
    command = [sys.executable, "-m", "tools.soak.reconnect", "--times", times, "--warm-up", "0", "--json", str(record_file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PER_HARM_S * len(HARMS), check=False)
    assert record_file.exists(), done.stderr
    record = json.loads(record_file.read_text())
    assert {harm: record["returns"][harm]["times"] for harm in HARMS} == dict.fromkeys(HARMS, 1)
    assert record["after"]["threads"] <= record["before"]["threads"]
    assert record["after"]["handles"] <= record["before"]["handles"]
    assert done.returncode == bool(record["problems"])
    assert "kill" in done.stderr


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0 and "--times" in capsys.readouterr().out


WELL = Holdings(threads=3, system_threads=5, handles=20, memory_mib=100.0)


@pytest.mark.parametrize(
    ("seconds", "after", "said"),
    [
        (1.0, WELL, []),
        (5.5, WELL, ["frames came 5.5 s after a return"]),
        (1.0, Holdings(4, 5, 20, 100.0), ["threads grew from 3 to 4"]),
        (1.0, Holdings(3, 5, 21, 100.0), ["handles grew from 20 to 21"]),
        (1.0, Holdings(3, 5, 20, 110.0), ["memory grew by 10.0%"]),
    ],
)
def test_what_leaks_or_lasts_too_long_is_told(seconds: float, after: Holdings, said: list[str]) -> None:
    assert judged([Return("kill", 0.5), Return("reset", seconds)], [WELL, after]) == said
