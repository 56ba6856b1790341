from __future__ import annotations

from pathlib import Path

import duckdb

from tests.exports import EVENTS, exported


def test_another_program_reads_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(exported("jsonl"))
    with duckdb.connect() as db:
        found = db.execute("SELECT label, onset.frame, played.apex, why FROM read_json(?)", [str(path)]).fetchall()
    assert [row[:2] for row in found] == [(event.label, event.onset.frame) for event in EVENTS]
    assert (found[0][2], found[3][3]) == (1.2, "not sure")
