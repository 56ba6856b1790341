from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from stream.events.formats.csv import columns
from tests.exports import EVENTS, HOSTILE, RECORDING, exported, reviewed


def rows(content: bytes, tmp_path: Path) -> list[dict[str, Any]]:
    """The table as another program reads it, which finds out the types by itself."""
    path = tmp_path / "events.csv"
    path.write_bytes(content)
    with duckdb.connect() as db:
        found = db.execute("SELECT * FROM read_csv(?, header = true)", [str(path)])
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_another_program_reads_frames_and_both_clocks(tmp_path: Path) -> None:
    found = rows(exported("csv"), tmp_path)
    assert tuple(found[0]) == columns(RECORDING)
    assert [row["label"] for row in found] == [event.label for event in EVENTS]
    second = found[1]
    assert (second["onset_frame"], second["apex_frame"], second["offset_frame"]) == (205, 212, 220)
    assert (second["onset_t"], second["onset_played"]) == (pytest.approx(36_006.833333), pytest.approx(6.833333))
    assert second["speaking"] is True and second["duration_s"] == pytest.approx(0.5)


def test_stored_events_have_the_clocks_of_source_and_wall(tmp_path: Path) -> None:
    first = rows(exported("csv", recording=None), tmp_path)[0]
    assert tuple(first) == columns(None)
    assert (first["seq"], first["onset_t"], first["emitted_at"].year, first["onset_at"]) == (1, 36_001.0, 2026, None)


def test_reviewed_events_say_what_the_coder_did(tmp_path: Path) -> None:
    (only,) = rows(reviewed("csv"), tmp_path)
    assert (only["coder"], only["decision"], only["action_units"]) == ("anna", "relabelled", "AU1+AU2")
    assert only["note"].startswith('<b>&"quoted"</b>\\n') and len(HOSTILE.splitlines()) == 2
