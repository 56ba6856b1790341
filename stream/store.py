"""The events, kept: one SQLite file in a folder that one service at a time may use.

    append   one transaction; when it returns, its events survive a kill of the process and a loss of power
    seq      AUTOINCREMENT: from 1, never given twice, not even when the events that had it were removed
    readers  open connections of their own and read while the service writes (write-ahead log)

A `Store` and a `Reader` are each used by one thread at a time. What SQLite reports becomes OutputError, one sentence that says
which file and what to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from engine.errors import OutputError
from stream.reader import APPLICATION, FILE, SCHEMA, Bounds, Pages, check_ours, damaged, told

LOCK = "events.lock"
CHECKED_BYTES = 256 << 20
"""A store up to this size is checked as a whole when it is opened; measured: 31 ms for 31 MiB."""
LOG_BYTES = 4 << 20
"""Of SQLite's log between two of its checkpoints (1,000 pages). In turns on a busy machine, appending an event took 8.6 ms in
the median (p95 16.9) where the log grew and 6.4 ms (p95 12.5) where it was overwritten."""
PRUNED_AT_ONCE = 2000
"""Events removed in one transaction, so that appending never waits long."""
BUSY_S = 0.25
"""How long writing waits where another program holds the file; the service tries again, and its end cannot wait for long."""
DAY_S = 86400.0
_SIZES = ("page_size", "page_count", "freelist_count")

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


class Store:
    """The events in folder, which is made if need be; opening it twice at once is an error.

    keep_days and keep_bytes are what `prune` leaves: events no older, a file no larger; None: no bound. Raises OutputError.
    """

    def __init__(self, folder: Path, *, keep_days: float | None = None, keep_bytes: int | None = None) -> None:
        self.path = folder / FILE
        self._keep_s = None if keep_days is None else keep_days * DAY_S
        self._keep_bytes = keep_bytes
        with contextlib.ExitStack() as undo:
            self._lock = _locked(folder)
            undo.callback(os.close, self._lock)
            with told(self.path):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # for its owner alone; its log gets the same mode
                self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                undo.callback(self._db.close)
                self._open()
            self._pages = Pages(self._db, self.path)
            self.identity = self._pages.identity()
            self.last = self._pages.last()
            undo.pop_all()

    def _open(self) -> None:
        if not self._db.execute("PRAGMA schema_version").fetchone()[0]:
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        else:
            check_ours(self._db, self.path)
        for setting in ("journal_mode = WAL", "synchronous = FULL", f"journal_size_limit = {16 << 20}"):
            self._db.execute(f"PRAGMA {setting}")
        with self._transaction():
            if not self._db.execute("PRAGMA schema_version").fetchone()[0]:
                for statement in _TABLES.strip().split(";\n"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO identity VALUES (?)", (uuid.uuid4().hex,))
        if self.path.stat().st_size <= CHECKED_BYTES:
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise OutputError(damaged(self.path, found))
        self._stretch_log()
        self._db.execute(f"PRAGMA busy_timeout = {1000 * BUSY_S:.0f}")

    def _stretch_log(self) -> None:
        """Give the log's file its full size now: to overwrite it is quicker than to grow it.

        Pages of a transaction that does not fit into the cache go to the log; rolled back, they are overwritten by the next.
        """
        if shutil.disk_usage(self.path.parent).free < 16 * LOG_BYTES:
            return  # a disk without that much room may still have enough
        with contextlib.suppress(sqlite3.Error):
            cache = self._db.execute("PRAGMA cache_size").fetchone()[0]
            self._db.execute("PRAGMA cache_size = 10")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.execute("CREATE TABLE stretch AS SELECT zeroblob(?) AS log", (LOG_BYTES,))
            finally:
                self._db.execute("ROLLBACK")
                self._db.execute(f"PRAGMA cache_size = {cache}")

    def append(self, events: Sequence[dict[str, Any]]) -> list[int]:
        """Keep events, all or none, and return their seq in order; they are durable when it returns.

        Each is an event's JSON form without seq. Raises OutputError; then none of them is kept and none has a seq.
        """
        rows = [_row(event) for event in events]
        with told(self.path), self._transaction():
            insert = "INSERT INTO events (stored_at, stream, kind, label, body) VALUES (?, ?, ?, ?, ?)"
            numbers = [int(self._db.execute(insert, row).lastrowid or 0) for row in rows]
        self.last = numbers[-1] if numbers else self.last
        return numbers

    def since(self, seq: int, **bounds: Unpack[Bounds]) -> list[dict[str, Any]]:
        """As `Reader.since`."""
        return self._pages.since(seq, **bounds)

    def prune(self) -> int:
        """Remove events that retention no longer keeps, oldest first, at most `PRUNED_AT_ONCE`; how many it removed.

        Call it until it returns 0. Raises OutputError.
        """
        removed = 0
        with told(self.path):
            if self._keep_s is not None:
                doomed = "SELECT seq FROM events WHERE stored_at < ? ORDER BY stored_at LIMIT ?"
                removed = self._remove(doomed, (time.time() - self._keep_s, PRUNED_AT_ONCE))
            if not removed and self._keep_bytes is not None:
                removed = self._remove("SELECT seq FROM events ORDER BY seq LIMIT ?", (self._too_many(self._keep_bytes),))
            if removed:
                self._db.executescript("PRAGMA incremental_vacuum")  # execute would give back one page and stop
        return removed

    def _too_many(self, keep_bytes: int) -> int:
        """How many of the oldest events to remove now so that the file comes to keep_bytes."""
        page, pages, free = (int(self._db.execute(f"PRAGMA {of}").fetchone()[0]) for of in _SIZES)
        used = page * (pages - free)
        if used <= keep_bytes:
            return 0
        events = int(self._db.execute("SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM events").fetchone()[0])
        return min(PRUNED_AT_ONCE, -(-events * (used - keep_bytes) // used))

    def _remove(self, doomed: str, values: tuple[float, ...]) -> int:
        with self._transaction():
            return self._db.execute(f"DELETE FROM events WHERE seq IN ({doomed})", values).rowcount

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that is done inside, or, where it raises, nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file and let others use the folder; more than once is the same as once."""
        if self._lock >= 0:
            self._db.close()
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _row(event: dict[str, Any]) -> tuple[float, str, str | None, str, str]:
    body = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return time.time(), event["stream"], event["kind"], event["label"], body


def _locked(folder: Path) -> int:
    """A handle whose lock on the folder lasts until it is closed or its process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise OutputError(f"{folder} cannot keep events: {(error.strerror or str(error)).lower()}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise OutputError(f"{folder} is in use by another service; stop that one or choose another folder") from error
    except OSError as error:
        os.close(handle)
        raise OutputError(f"{folder} cannot be locked: {(error.strerror or str(error)).lower()}; use a local folder") from error
    return handle
