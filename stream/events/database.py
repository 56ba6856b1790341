"""The SQLite file of the events: its schema and settings, and its errors as sentences."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from engine.errors import OutputError

FILE = "events.sqlite3"
APPLICATION = 0x41504558
"""SQLite's application_id of the files: "APEX"."""
SCHEMA = 1
CHECKED_BYTES = 256 << 20
"""A store up to this size is checked as a whole when it is opened; measured: 31 ms for 31 MiB."""
LOG_BYTES = 4 << 20
"""Size of SQLite's log between two of its checkpoints (1,000 pages). On a busy machine, appending an event took 8.6 ms in the
median (p95 16.9) where the log grew and 6.4 ms (p95 12.5) where it was overwritten."""
BUSY_S = 0.25
"""How long writing waits where another program has locked the file; the service retries, and its shutdown is limited."""

_TABLES = f"""
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    stored_at REAL NOT NULL,
    stream TEXT NOT NULL,
    kind TEXT,
    label TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX events_by_time ON events (stored_at);
CREATE TABLE identity (value TEXT NOT NULL);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
"""


class LostError(OutputError):
    """The store's file was removed, replaced, overwritten or damaged since it was opened."""


def prepare(db: sqlite3.Connection, path: Path, identity: str) -> None:
    """Set up a connection for writing: create the schema of a new file, with this identity, or check that of an old one."""
    if not db.execute("PRAGMA schema_version").fetchone()[0]:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    else:
        check_schema(db, path)
    for setting in ("journal_mode = WAL", "synchronous = FULL", f"journal_size_limit = {16 << 20}"):
        db.execute(f"PRAGMA {setting}")
    with transaction(db):
        if not db.execute("PRAGMA schema_version").fetchone()[0]:
            for statement in _TABLES.strip().split(";\n"):
                db.execute(statement)
            db.execute("INSERT INTO identity VALUES (?)", (identity,))
        db.execute("CREATE TABLE IF NOT EXISTS clock (seen REAL NOT NULL, seconds REAL NOT NULL)")
        db.execute(
            "CREATE TABLE IF NOT EXISTS positions (node TEXT, store TEXT, seq INTEGER NOT NULL, PRIMARY KEY (node, store))"
        )
    if path.stat().st_size <= CHECKED_BYTES:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise OutputError(damaged_message(path, found))
    _grow_log(db, path)
    db.execute(f"PRAGMA busy_timeout = {1000 * BUSY_S:.0f}")


def _grow_log(db: sqlite3.Connection, path: Path) -> None:
    """Give the log's file its full size now: overwriting it is quicker than growing it.

    Pages of a transaction that does not fit into the cache go to the log; rolled back, they are overwritten by the next.
    """
    if shutil.disk_usage(path.parent).free < 16 * LOG_BYTES:
        return  # a nearly full disk may have enough for the events
    with contextlib.suppress(sqlite3.Error):
        cache = db.execute("PRAGMA cache_size").fetchone()[0]
        db.execute("PRAGMA cache_size = 10")
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute("CREATE TABLE filler AS SELECT zeroblob(?) AS log", (LOG_BYTES,))
        finally:
            db.execute("ROLLBACK")
            db.execute(f"PRAGMA cache_size = {cache}")


def check_schema(db: sqlite3.Connection, path: Path) -> None:
    """Raise OutputError for a database of another program or of another version."""
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise OutputError(f"{path} is another program's file, not a store of events; choose another folder")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA:
        raise OutputError(f"{path} has schema {version} and this version reads {SCHEMA}; use the apexstream that wrote it")


def damaged_message(path: Path, reason: str) -> str:
    """The sentence for a store that cannot be read."""
    return f"{path} is damaged ({' '.join(reason.split())}); move it away to start with an empty store, or restore a copy"


def removed_message(path: Path) -> str:
    """The sentence for a file that is missing or another one than was opened."""
    return f"{path} was removed or replaced while it was in use"


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done inside, or roll it back where it raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and of the system as OutputError, LostError where the file is damaged."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", "")
        if code == "SQLITE_NOTADB":
            raise LostError(f"{path} is not a store of events; choose another folder") from error
        if code.startswith("SQLITE_CORRUPT"):
            raise LostError(damaged_message(path, str(error))) from error
        if code == "SQLITE_FULL":
            sentence = f"{path} cannot grow: the disk is full"
        elif code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            sentence = f"{path} is held by another program ({error})"
        elif code.startswith("SQLITE_IOERR"):
            sentence = f"{path} cannot be written or read: the disk refuses ({error})"
        else:
            sentence = f"{path} cannot be used: {error}"
        raise OutputError(sentence) from error
    except OSError as error:
        raise OutputError(f"{path} cannot be used: {(error.strerror or str(error)).lower()}") from error
