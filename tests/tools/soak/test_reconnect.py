from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.soak.reconnect import HARMS, Holdings, Return, judged, main


def test_every_harm_is_done_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_file = tmp_path / "record.json"
    main(["--times", "4", "--warm-up", "0", "--stall", "1", "--json", str(record_file)])
    record = json.loads(record_file.read_text())
    assert {harm: record["returns"][harm]["times"] for harm in HARMS} == dict.fromkeys(HARMS, 1)
    assert record["returns"]["all"]["worst_s"] < 5
    assert record["after"]["threads"] <= record["before"]["threads"]
    assert record["after"]["handles"] <= record["before"]["handles"]
    assert "kill" in capsys.readouterr().err


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
