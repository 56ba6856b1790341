"""The store of events: one SQLite file in a folder that one service at a time may use.

    append   one transaction; when it returns, its events survive a kill of the process and a loss of power; with an event of
             another node, what was stored of that one so far (positions) is in the same transaction
    seq      AUTOINCREMENT: from 1, never assigned twice, not even after the event was removed
    readers  have connections of their own and read while the service writes (write-ahead log)

A `Store` and a `Reader` are each used by one thread at a time; `Store.examine` may run on another. SQLite's errors become
OutputError: one sentence that names the file and says what to do.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.errors import OutputError
from stream.events.database import (
    CHECKED_BYTES,
    FILE,
    LostError,
    damaged_message,
    prepare,
    removed_message,
    sqlite_errors,
    transaction,
)
from stream.events.lock import FolderLock
from stream.events.query import examine, read_identity, read_last
from stream.events.retention import TrustedClock, Waited
from stream.permissions import make_private, same_file

log = logging.getLogger(__name__)

Origin = tuple[str, str]
"""A node of a fleet by its name, and the identity of its store."""
EXAMINED_S = 3.0
"""The longest that a store in use is examined; 198 MiB that are in no cache took 3.2 s. Less than `store_threads.HUNG_S`."""
PRUNED_AT_ONCE = 2000
"""The most events removed in one transaction, so that appending never waits long."""
DAY_S = 86400.0
_MAGIC = b"SQLite format 3\0"
_OLD = """SELECT seq FROM events WHERE stored_at < ? AND seq < coalesce(
    (SELECT seq FROM events WHERE +stored_at >= ? AND +stored_at <= ? ORDER BY seq LIMIT 1), 9223372036854775807
) ORDER BY seq LIMIT ?"""
"""Events that are too old and precede all that are not, so that a time stamp from a clock that was years behind does not count.
(+ keeps SQLite from the index by time: the first event that is not too old is near the beginning of the table.)"""
_SIZES = ("page_size", "page_count", "freelist_count")


class Store:
    """The events in folder, which is created if needed; it can be opened once at a time.

    keep_days and keep_bytes limit what `prune` leaves: events no older, a file no larger; None: no limit. recreate: `reopen`
    may create a new file where this one was removed. Raises OutputError.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_days: float | None = None,
        keep_bytes: int | None = None,
        recreate: bool = False,
        clock: Callable[[float | None, Waited | None], TrustedClock] = TrustedClock,
    ) -> None:
        self.path = folder / FILE
        self.identity, self.last = uuid.uuid4().hex, 0  # of a new file
        self._keep_s = None if keep_days is None else keep_days * DAY_S
        self._keep_bytes, self._recreate = keep_bytes, recreate
        self.positions: dict[Origin, int] = {}
        self._damage: str | None = None
        self._clock_trusted = True
        with contextlib.ExitStack() as undo:
            self._lock = FolderLock(folder)
            undo.callback(self._lock.release)
            self._connect()
            undo.callback(self._disconnect)
            with sqlite_errors(self.path):
                newest = self._db.execute("SELECT stored_at FROM events ORDER BY seq DESC LIMIT 1").fetchone()
                waited = self._db.execute("SELECT CAST(seen AS REAL), CAST(seconds AS REAL) FROM clock").fetchone()
            self._clock = clock(newest and float(newest[0]), waited and Waited(*waited))
            undo.pop_all()

    def _connect(self) -> None:
        """Open the file, a new one where there is none. Its handle is closed after SQLite's: closing one releases SQLite's
        locks."""
        with contextlib.ExitStack() as undo, sqlite_errors(self.path):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)  # its log gets the same mode
            undo.callback(self._close_file)
            for path in (self.path, *self._logs):
                make_private(path)
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            undo.callback(self._db.close)
            prepare(self._db, self.path, self.identity)
            self.identity, self.last = read_identity(self._db, self.path), read_last(self._db)
            found = self._db.execute("SELECT node, store, seq FROM positions")
            self.positions = {(node, store): seq for node, store, seq in found}
            self._log_files = {path: path.stat() for path in self._logs}
            undo.pop_all()

    def _disconnect(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # the file may have been removed
            self._db.close()
        self._close_file()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    @property
    def _logs(self) -> tuple[Path, Path]:
        return Path(f"{self.path}-wal"), Path(f"{self.path}-shm")

    @property
    def size(self) -> int:
        """Bytes on the disk, without SQLite's log; 0 where the file is missing. From any thread."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def check(self) -> None:
        """Raise LostError where the file or its log was removed, replaced or overwritten, or was found damaged.

        Raises OutputError where the system cannot read it.
        """
        with sqlite_errors(self.path):
            self._check_file()
            self._check_damage()
            for path, file in self._log_files.items():
                found = _stat(path)
                if found is None or not os.path.samestat(found, file):
                    raise LostError(removed_message(path))
            self._lock.renew()

    def examine(self) -> None:
        """Read the file, up to `CHECKED_BYTES` and for `EXAMINED_S`, on any thread; raise LostError where it is damaged.

        Nothing is appended to a damaged file until a later examination finds it sound. Raises OutputError where the system
        cannot read it.
        """
        with sqlite_errors(self.path):
            self._check_file()
            if self.size > CHECKED_BYTES:
                self._damage = None
                return
            try:
                if examine(self.path, self.identity, self.last, within_s=EXAMINED_S):
                    self._damage = None
            except LostError as error:
                self._damage = str(error)
                raise

    def _check_file(self) -> None:
        if not same_file(self.path, self._file):
            raise LostError(removed_message(self.path))
        if os.pread(self._file, len(_MAGIC), 0) != _MAGIC:
            raise LostError(damaged_message(self.path, "it was overwritten"))

    def _check_damage(self) -> None:
        if self._damage is not None:
            raise LostError(self._damage)

    def reopen(self) -> None:
        """Recover from LostError: with the same file where only its log was removed, or where the file was removed and recreate
        allows it, with a new, empty one of the same identity whose seq continues.

        No other connection of this process may be open. Raises OutputError where it cannot.
        """
        with sqlite_errors(self.path):
            new = _stat(self.path) is None
            if same_file(self.path, self._file):
                self._check_file()
                self._check_damage()
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            elif not self._recreate if new else self._file >= 0:
                raise LostError(removed_message(self.path))
        identity, last, positions = self.identity, self.last, self.positions
        if new:
            self._lock.renew()
            with sqlite_errors(self.path):
                for path in self._logs:
                    path.unlink(missing_ok=True)
        self._disconnect()
        self._connect()
        if new:
            self._continue_from(identity, last, positions)
            log.warning("%s was removed; a new file is used from event %d on, the events before are lost", self.path, last + 1)

    def _continue_from(self, identity: str, last: int, positions: dict[Origin, int]) -> None:
        """Give a new file the identity and the positions of another, and the seq after last to its first event."""
        with sqlite_errors(self.path), transaction(self._db):
            self._db.execute("UPDATE identity SET value = ?", (identity,))
            self._db.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", (last,))
            self._store_positions(positions)
        self.identity, self.last, self.positions = identity, last, positions

    def _store_positions(self, positions: dict[Origin, int]) -> None:
        rows = [(*origin, seq) for origin, seq in positions.items()]
        self._db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", rows)

    def _store_waited(self) -> None:
        waited = self._clock.waited()
        with transaction(self._db):
            self._db.execute("DELETE FROM clock")
            if waited is not None:
                self._db.execute("INSERT INTO clock VALUES (?, ?)", waited)

    def append(self, events: Sequence[dict[str, Any]]) -> list[int]:
        """Store events, all or none, and return their seq in order; they are durable when it returns.

        Each is an event's JSON form without seq. Raises OutputError, LostError where the file was removed or damaged; then none
        of them is stored and no seq is used.
        """
        rows = [_row(event, self._clock.stamp()) for event in events]
        positions = {origin: event["node_seq"] for event in events if (origin := _origin(event)) is not None}
        self.check()
        with sqlite_errors(self.path), transaction(self._db):
            insert = "INSERT INTO events (stored_at, stream, kind, label, body) VALUES (?, ?, ?, ?, ?)"
            numbers = [int(self._db.execute(insert, row).lastrowid or 0) for row in rows]
            self._store_positions(positions)
        try:
            self.check()
        except OutputError:
            with contextlib.suppress(sqlite3.Error), transaction(self._db):  # the file may be put back, and append be repeated
                self._db.execute("DELETE FROM events WHERE seq > ?", (self.last,))
                self._db.execute("DELETE FROM positions")
                self._store_positions(self.positions)
            raise
        self.positions |= positions
        self.last = numbers[-1] if numbers else self.last
        return numbers

    def prune(self) -> int:
        """Remove events beyond the limits, oldest first, at most `PRUNED_AT_ONCE`; returns how many.

        None is removed for its age while the machine's clock is not trusted (`stream.events.retention`). Call it until it
        returns 0. Raises OutputError.
        """
        removed = 0
        with sqlite_errors(self.path):
            now = self._trusted_time()
            if self._keep_s is not None and now is not None:
                removed = self._remove(_OLD, (now - self._keep_s, now - self._keep_s, now, PRUNED_AT_ONCE))
            if not removed and self._keep_bytes is not None:
                removed = self._remove("SELECT seq FROM events ORDER BY seq LIMIT ?", (self._excess(self._keep_bytes),))
            if removed:
                self._db.executescript("PRAGMA incremental_vacuum")  # execute would give back one page and stop
        return removed

    def _trusted_time(self) -> float | None:
        now = self._clock.now()
        changed, self._clock_trusted = self._clock_trusted != (now is not None), now is not None
        if changed or now is None:
            self._store_waited()
        if changed and now is None and self._keep_s is not None:
            log.warning("%s; no event is removed for its age until the clock has run a day without a jump", self._clock.reason)
        return now

    def _excess(self, keep_bytes: int) -> int:
        """How many of the oldest events to remove now to bring the file down to keep_bytes."""
        page, pages, free = (int(self._db.execute(f"PRAGMA {of}").fetchone()[0]) for of in _SIZES)
        used = page * (pages - free)
        if used <= keep_bytes:
            return 0
        events = int(self._db.execute("SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM events").fetchone()[0])
        return min(PRUNED_AT_ONCE, -(-events * (used - keep_bytes) // used))

    def _remove(self, query: str, values: tuple[float, ...]) -> int:
        with transaction(self._db):
            return self._db.execute(f"DELETE FROM events WHERE seq IN ({query})", values).rowcount

    def close(self) -> None:
        """Close the file and release the folder; may be called more than once."""
        self._disconnect()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _origin(event: dict[str, Any]) -> Origin | None:
    """Where an event of another node comes from; None for one of this service."""
    return (event["node"], event["node_store"]) if "node_seq" in event else None


def _stat(path: Path) -> os.stat_result | None:
    """The state of path; None where it does not exist. Raises OSError where the system cannot say."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _row(event: dict[str, Any], at: float) -> tuple[float, str, str | None, str, str]:
    body = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return at, event["stream"], event["kind"], event["label"], body
