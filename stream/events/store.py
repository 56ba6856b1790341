"""The events, kept: one SQLite file in a folder that one service at a time may use.

    append   one transaction; when it returns, its events survive a kill of the process and a loss of power
    seq      AUTOINCREMENT: from 1, never given twice, not even when the events that had it were removed
    readers  open connections of their own and read while the service writes (write-ahead log)

A `Store` and a `Reader` are each used by one thread at a time; `Store.examine` may run on another. What SQLite reports becomes
OutputError, one sentence that says which file and what to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sqlite3
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from engine.errors import OutputError
from stream.events.query import APPLICATION, FILE, SCHEMA, Bounds, LostError, Pages, check_ours, damaged, examine, gone, told
from stream.events.retention import TrustedClock, Waited
from stream.permissions import make_private, same_file

log = logging.getLogger(__name__)

LOCK = "events.lock"
CHECKED_BYTES = 256 << 20
"""A store up to this size is checked as a whole when it is opened; measured: 31 ms for 31 MiB."""
EXAMINED_S = 3.0
"""How long a store in use is read through at the most; 198 MiB that are in no cache took 3.2 s. Less than `hub.HUNG_S`."""
LOG_BYTES = 4 << 20
"""Of SQLite's log between two of its checkpoints (1,000 pages). In turns on a busy machine, appending an event took 8.6 ms in
the median (p95 16.9) where the log grew and 6.4 ms (p95 12.5) where it was overwritten."""
PRUNED_AT_ONCE = 2000
"""Events removed in one transaction, so that appending never waits long."""
BUSY_S = 0.25
"""How long writing waits where another program holds the file; the service tries again, and its end cannot wait for long."""
DAY_S = 86400.0
_MAGIC = b"SQLite format 3\0"
_OLD = """SELECT seq FROM events WHERE stored_at < ? AND seq < coalesce(
    (SELECT seq FROM events WHERE +stored_at >= ? AND +stored_at <= ? ORDER BY seq LIMIT 1), 9223372036854775807
) ORDER BY seq LIMIT ?"""
"""Events that are too old and came before all that are not: a stamp from a clock that was years behind makes none old. (+: the
first that is young is near the beginning of the table, which the index by time does not know.)"""
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

    keep_days and keep_bytes are what `prune` leaves: events no older, a file no larger; None: no bound. recreate: `reopen` may
    begin a new file where this one is gone. Raises OutputError.
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
        self._damage: str | None = None
        self._believes = True
        with contextlib.ExitStack() as undo:
            self._lock = _locked(folder)
            undo.callback(lambda: os.close(self._lock))
            self._lock_beside = _locked_beside(folder)
            undo.callback(self._let_go_beside)
            self._connect()
            undo.callback(self._disconnect)
            self._clock = clock(self._newest(), self._waited())
            undo.pop_all()

    def _connect(self) -> None:
        """Open the file, a new one where there is none. The handle is closed after SQLite's own: closing one takes SQLite's
        locks away."""
        with contextlib.ExitStack() as undo, told(self.path):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)  # for its owner alone; its log gets the same mode
            undo.callback(self._close_file)
            for path in (self.path, *self._logs):
                make_private(path)
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            undo.callback(self._db.close)
            self._open()
            self._pages = Pages(self._db, self.path)
            self.identity, self.last = self._pages.identity(), self._pages.last()
            self._log_files = {path: path.stat() for path in self._logs}
            undo.pop_all()

    def _disconnect(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # what it has of a removed file goes with it
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
        """Bytes on the disk, without SQLite's log; 0 where the file is gone. From any thread."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def check(self) -> None:
        """Raise LostError where the file, or the log that belongs to it, is not in its place any more or not what it was.

        Raises OutputError where the system refuses to look.
        """
        with told(self.path):
            self._check_file()
            self._check_damage()
            self._check_logs()
            self._keep_lock()

    def examine(self) -> None:
        """Read the file, up to `CHECKED_BYTES` and for `EXAMINED_S`, on any thread; raise LostError where it is damaged.

        Until a later look finds it well again, nothing is appended to a file that was found damaged. Raises OutputError where
        the system refuses to look.
        """
        with told(self.path):
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
            raise LostError(gone(self.path))
        if os.pread(self._file, len(_MAGIC), 0) != _MAGIC:
            raise LostError(damaged(self.path, "it was overwritten"))

    def _check_damage(self) -> None:
        if self._damage is not None:
            raise LostError(self._damage)

    def _check_logs(self) -> None:
        for path, file in self._log_files.items():
            there = _stat(path)
            if there is None or not os.path.samestat(there, file):
                raise LostError(gone(path))

    def _keep_lock(self) -> None:
        """Lock the folder again where its lock, or the folder, was removed. Raises OutputError."""
        if not same_file(self.path.parent / LOCK, self._lock):
            lock = _locked(self.path.parent)
            os.close(self._lock)
            self._lock = lock

    def reopen(self) -> None:
        """Go on after LostError, as far as that can be: with the same file where only its log is gone, or, where the file is
        gone and `recreate` allows it, with a new one that goes on with name and numbers; what was in the old one is not in it.

        No other connection of this process may be open. Raises OutputError where it cannot.
        """
        with told(self.path):
            new = _stat(self.path) is None
            if same_file(self.path, self._file):
                self._check_file()
                self._check_damage()
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            elif not self._recreate if new else self._file >= 0:
                raise LostError(gone(self.path))
        identity, last = self.identity, self.last
        if new:
            self._clear_place()
        self._disconnect()
        self._connect()
        if new:
            self._go_on(identity, last)
            log.warning("%s was gone; a new file is used from event %d on, what the old one held is lost", self.path, last + 1)

    def _clear_place(self) -> None:
        """Remove what belongs to a file that is gone. Raises OutputError."""
        self._keep_lock()
        with told(self.path):
            for path in self._logs:
                path.unlink(missing_ok=True)

    def _go_on(self, identity: str, last: int) -> None:
        """Give a new file another's name and let its numbers begin behind last."""
        with told(self.path), self._transaction():
            self._db.execute("UPDATE identity SET value = ?", (identity,))
            self._db.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", (last,))
        self.identity, self.last = identity, last

    def _newest(self) -> float | None:
        """When the newest event was stored, Unix seconds."""
        with told(self.path):
            row = self._db.execute("SELECT stored_at FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return None if row is None else float(row[0])

    def _waited(self) -> Waited | None:
        """What an earlier run kept of a clock that it did not believe."""
        with told(self.path):
            row = self._db.execute("SELECT CAST(seen AS REAL), CAST(seconds AS REAL) FROM clock").fetchone()
        return None if row is None else Waited(*row)

    def _keep_waited(self) -> None:
        waited = self._clock.waited()
        with self._transaction():
            self._db.execute("DELETE FROM clock")
            if waited is not None:
                self._db.execute("INSERT INTO clock VALUES (?, ?)", waited)

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
                self._db.execute("INSERT INTO identity VALUES (?)", (self.identity,))
            self._db.execute("CREATE TABLE IF NOT EXISTS clock (seen REAL NOT NULL, seconds REAL NOT NULL)")
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

        Each is an event's JSON form without seq. Raises OutputError; then none of them is kept and none has a seq. LostError is
        one of them: what is written into a file that was removed is not stored.
        """
        rows = [_row(event, self._clock.stamp()) for event in events]
        self.check()
        with told(self.path), self._transaction():
            insert = "INSERT INTO events (stored_at, stream, kind, label, body) VALUES (?, ?, ?, ?, ?)"
            numbers = [int(self._db.execute(insert, row).lastrowid or 0) for row in rows]
        try:
            self.check()
        except OutputError:
            with contextlib.suppress(sqlite3.Error):  # the file may come back, and they will be appended again
                self._db.execute("DELETE FROM events WHERE seq > ?", (self.last,))
            raise
        self.last = numbers[-1] if numbers else self.last
        return numbers

    def since(self, seq: int, **bounds: Unpack[Bounds]) -> list[dict[str, Any]]:
        """As `Reader.since`."""
        return self._pages.since(seq, **bounds)

    def prune(self) -> int:
        """Remove events that retention no longer keeps, oldest first, at most `PRUNED_AT_ONCE`; how many it removed.

        None is removed for its age while the machine's clock is not believed (`stream.events.retention`). Call it until it
        returns 0. Raises OutputError.
        """
        removed = 0
        with told(self.path):
            now = self._time()
            if self._keep_s is not None and now is not None:
                removed = self._remove(_OLD, (now - self._keep_s, now - self._keep_s, now, PRUNED_AT_ONCE))
            if not removed and self._keep_bytes is not None:
                removed = self._remove("SELECT seq FROM events ORDER BY seq LIMIT ?", (self._too_many(self._keep_bytes),))
            if removed:
                self._db.executescript("PRAGMA incremental_vacuum")  # execute would give back one page and stop
        return removed

    def _time(self) -> float | None:
        now = self._clock.now()
        changed, self._believes = self._believes != (now is not None), now is not None
        if changed or now is None:
            self._keep_waited()
        if changed and now is None and self._keep_s is not None:
            log.warning("%s; until it has gone on from there for a day of running, no event is too old", self._clock.reason)
        return now

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
            self._disconnect()
            self._let_go_beside()
            os.close(self._lock)
            self._lock = -1

    def _let_go_beside(self) -> None:
        if self._lock_beside is not None:
            handle, path = self._lock_beside
            self._lock_beside = None
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _stat(path: Path) -> os.stat_result | None:
    """What is at path; None where nothing is. Raises OSError where the system does not say."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _row(event: dict[str, Any], at: float) -> tuple[float, str, str | None, str, str]:
    body = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return at, event["stream"], event["kind"], event["label"], body


def _locked(folder: Path) -> int:
    """A handle whose lock on the folder lasts until it is closed or its process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise OutputError(f"{folder} cannot keep events: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise OutputError(f"{str(folder)!r} cannot keep events: no folder has such a name ({error})") from error
    try:
        _lock(handle, folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be locked: {(error.strerror or str(error)).lower()}; use a local folder") from error
    return handle


def _lock(handle: int, folder: Path) -> None:
    """Lock a file that was opened, or close it and raise what keeps it from that."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise OutputError(f"{folder} is in use by another service; stop that one or choose another folder") from error
        raise


def _locked_beside(folder: Path) -> tuple[int, Path] | None:
    """A second lock in the place of the folder's path, which is still held where the folder was removed and made again.

    The handle and its file, in this user's own part of the folder for temporary files; None where there is no such part.
    """
    place = Path(tempfile.gettempdir()) / f"apexstream-{os.getuid()}"
    path = place / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.lock"
    while True:
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            owned = place.lstat()
            if not stat.S_ISDIR(owned.st_mode) or owned.st_uid != os.getuid():
                return None
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            _lock(handle, folder)
        except OSError:
            return None
        if same_file(path, handle):
            return handle, path
        os.close(handle)  # whoever had it has just removed it
