from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from engine.errors import OutputError
from stream.events.database import BUSY_S, FILE, LOG_BYTES, transaction
from stream.events.store import Store
from stream.hub_service import STORE_S
from tests.events import read, seqs, stored


def test_writing_waits_for_another_program_and_reports_it(tmp_path: Path) -> None:
    store = Store(tmp_path, keep_days=0)
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutputError, match="held by another program"):
            store.append([stored(1)])
        with pytest.raises(OutputError, match="held by another program"):
            store.prune()
        other.execute("ROLLBACK")
    assert store.append([stored(1)]) == [1]
    assert store._db.execute("PRAGMA busy_timeout").fetchone()[0] == 1000 * BUSY_S
    assert 2 * BUSY_S < STORE_S, "the end of the service has time for two tries"
    store.close()


def foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE events (anything TEXT)")


def newer(path: Path) -> None:
    Store(path.parent).close()
    with contextlib.closing(sqlite3.connect(path)) as changed, changed:
        changed.execute("PRAGMA user_version = 2")


def text(path: Path) -> None:
    path.write_text("these are no events, but quite some words " * 100)


def truncated(path: Path) -> None:
    with Store(path.parent) as whole:
        whole.append([stored(number) for number in range(500)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def overwritten(path: Path) -> None:
    with Store(path.parent) as whole:
        whole.append([stored(number) for number in range(500)])
    with path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\x5a" * 4096 * 20)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (foreign, "another program's file"),
        (newer, "schema 2 and this version reads 1"),
        (text, "is not a store of events"),
        (truncated, "is damaged"),
        (overwritten, "is damaged"),
    ],
    ids=["foreign", "newer", "text", "truncated", "overwritten"],
)
def test_a_file_that_cannot_be_used_is_reported_and_not_changed(tmp_path: Path, spoil, sentence: str) -> None:
    spoil(tmp_path / FILE)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(OutputError, match=sentence) as caught:
        Store(tmp_path)
    assert str(tmp_path / FILE) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / FILE).read_bytes() == before
    with pytest.raises(OutputError):
        Store(tmp_path)


def test_the_log_has_its_full_size_from_the_start(store: Store) -> None:
    log = store.path.with_name(f"{FILE}-wal")
    size = log.stat().st_size
    assert size >= LOG_BYTES
    for number in range(300):
        store.append([stored(number)])
    assert log.stat().st_size == size, "what is written overwrites it"
    assert seqs(read(store)) == list(range(1, 301))
    store.close()
    assert store.path.stat().st_size < 400_000


def test_the_settings_for_durability(store: Store) -> None:
    assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2, "FULL: the log is on the disk before append returns"


def test_a_transaction_that_raises_changes_nothing(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        with transaction(db):
            db.execute("CREATE TABLE t (x)")
        with pytest.raises(ZeroDivisionError), transaction(db):
            db.execute("INSERT INTO t VALUES (1)")
            raise ZeroDivisionError
        assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)
