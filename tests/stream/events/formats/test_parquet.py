from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from engine.errors import BackendError
from stream.events.formats import FORMATS, Entry
from stream.events.formats import parquet as module
from stream.events.formats.csv import columns
from tests.events import stored
from tests.exports import EVENTS, RECORDING, exported, reviewed


def rows(content: bytes, tmp_path: Path) -> list[dict[str, Any]]:
    """The table as another program reads it."""
    path = tmp_path / "events.parquet"
    path.write_bytes(content)
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        found = db.execute("SELECT * FROM read_parquet(?)", [str(path)])
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_another_program_reads_the_columns_with_their_types(tmp_path: Path) -> None:
    found = rows(exported("parquet"), tmp_path)
    assert tuple(found[0]) == columns(RECORDING) and len(found) == len(EVENTS)
    second, last = found[1], found[3]
    assert (second["onset_frame"], second["onset_t"]) == (205, EVENTS[1].onset.t)
    assert second["onset_played"] == pytest.approx(6.833333)
    assert (second["label"], second["speaking"], second["why"]) == ("positive", True, None)
    assert (last["face"], last["why"], last["p_surprise"], last["confidence"]) == (1, "not sure", 0.92, 0.41)


def test_stored_events_have_both_clocks(tmp_path: Path) -> None:
    first = rows(exported("parquet", recording=None), tmp_path)[0]
    assert (first["seq"], first["onset_t"]) == (1, 36_001.0)
    assert first["emitted_at"].astimezone(UTC) == datetime(2026, 1, 31, 9, 0, 0, 123_000, UTC)
    assert first["onset_at"] is None, "events of earlier versions do not have it"


def test_reviewed_events_say_what_the_coder_did(tmp_path: Path) -> None:
    (only,) = rows(reviewed("parquet"), tmp_path)
    assert (only["coder"], only["decision"], only["action_units"]) == ("anna", "relabelled", "AU1+AU2")
    assert "\\ud800" in only["note"]


def test_no_event_gives_a_table_without_rows(tmp_path: Path) -> None:
    assert rows(exported("parquet", []), tmp_path) == []


def test_only_the_events_of_one_piece_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 100)
    taken = 0

    def many() -> Iterator[Entry]:
        nonlocal taken
        for seq in range(250):
            taken += 1
            yield Entry.stored({**stored(1), "seq": seq})

    pieces, sizes = [], []
    for piece in FORMATS["parquet"].export(many(), None):
        pieces.append(piece)
        sizes.append(taken)
    assert sizes == [100, 200, 250, 250]
    assert [row["seq"] for row in rows(b"".join(pieces), tmp_path)] == list(range(250))


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendError, match=r"needs the package pyarrow: pip install 'apexstream\[parquet\]'"):
        FORMATS["parquet"].check()
    with pytest.raises(BackendError):
        exported("parquet")
