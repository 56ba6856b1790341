"""Reading stored events, by the service or by another program while the service writes.

A reader has a connection of its own (write-ahead log) and is used by one thread at a time. SQLite's errors become OutputError:
one sentence that names the file and says what to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack, cast

from engine.errors import InputError, OutputError
from stream.events.database import FILE, LostError, check_schema, damaged_message, removed_message, sqlite_errors
from stream.permissions import same_file
from stream.schema import read_stored

MAX_LOGGED = 10
"""Damaged events that are logged, one by one."""

log = logging.getLogger(__name__)


class Bounds(TypedDict, total=False):
    """Which events to read; a key that is missing or None sets no bound.

    limit: the most events (500). upto: the last seq. begin, end: when they were stored, seconds of the Unix epoch, begin
    inclusive. streams, labels, kinds: only these.
    """

    limit: int
    upto: int | None
    begin: float | None
    end: float | None
    streams: Sequence[str] | None
    labels: Sequence[str] | None
    kinds: Sequence[str] | None


class Reader:
    """The events in folder, read only, whether or not a service writes there. Raises InputError where there is no store.

    A single event that is damaged is skipped and logged; its seq is in damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = path = folder / FILE
        self.damaged: set[int] = set()
        if not path.is_file():
            raise InputError(f"{folder} holds no events ({FILE} is not there); name the folder that the live service used")
        with contextlib.ExitStack() as undo, sqlite_errors(path):
            address = f"{path.resolve().as_uri()}?{_open_mode(path)}"
            self._db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            undo.callback(self._db.close)
            self._db.execute("PRAGMA query_only = ON")
            check_schema(self._db, path)
            read_identity(self._db, path)
            self._file = path.stat()
            undo.pop_all()

    def since(self, seq: int, **bounds: Unpack[Bounds]) -> list[dict[str, Any]]:
        """Events after seq within bounds, in ascending order of seq, which is among their fields.

        Raises OutputError where the file is damaged, LostError where it was removed or replaced.
        """
        if not same_file(self._path, self._file):
            raise LostError(removed_message(self._path))
        where, values = ["seq > ?"], cast("list[object]", [seq])
        limits = {"seq <= ?": "upto", "stored_at >= ?": "begin", "stored_at < ?": "end"}
        for condition, name in limits.items():
            if (value := bounds.get(name)) is not None:
                where.append(condition)
                values.append(value)
        for column in ("stream", "label", "kind"):
            if (names := cast("Sequence[str] | None", bounds.get(f"{column}s"))) is not None:
                where.append(f"{column} IN ({', '.join('?' * len(names))})")
                values.extend(names)
        query = f"SELECT seq, CAST(body AS BLOB) FROM events WHERE {' AND '.join(where)} ORDER BY seq"
        with sqlite_errors(self._path), contextlib.closing(self._db.execute(query, values)) as rows:
            return list(islice(self._readable(rows), bounds.get("limit", 500)))

    def _readable(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[dict[str, Any]]:
        """The events in rows, without those that cannot be read."""
        for number, body in rows:
            try:
                yield numbered(read_stored(body), number)
            except ValueError as error:
                if number not in self.damaged and len(self.damaged) < MAX_LOGGED:
                    reason = " ".join(str(error).split())
                    log.warning("event %d in %s is damaged and skipped (%s)", number, self._path, reason)
                self.damaged.add(number)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_identity(db: sqlite3.Connection, path: Path) -> str:
    """The store's unique name. Raises LostError where it has none."""
    row = db.execute("SELECT value FROM identity").fetchone()
    if row is None:
        raise LostError(damaged_message(path, "it has lost its identity"))
    return str(row[0])


def read_last(db: sqlite3.Connection) -> int:
    """The last seq that was assigned, 0 before the first."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0


def numbered(event: dict[str, Any], seq: int) -> dict[str, Any]:
    """The event with its seq in its place in the format: after type and v."""
    return {"type": event["type"], "v": event["v"], "seq": seq, **event}


def _open_mode(path: Path) -> str:
    """The parameters with which SQLite opens a file for reading. Raises OutputError where it cannot.

    To read beside a writer SQLite needs two more files, and creates them where they are missing. Where it may not, a file
    without a write-ahead log has no writer and can be read as immutable.
    """
    if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        return "mode=rw"
    if not Path(f"{path}-wal").exists():
        return "mode=ro&immutable=1"
    if not Path(f"{path}-shm").exists():
        raise OutputError(f"{path} was not closed, and {path.parent} is read-only; copy the folder to where it can be written")
    return "mode=ro"


def examine(path: Path, identity: str, last: int, *, within_s: float) -> bool:
    """Check a store's file by a new connection, without cached pages; True where that was completed in within_s seconds.

    Raises LostError where it is damaged, or not the store of that identity with events up to last; OutputError.
    """
    with sqlite_errors(path), contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as db:
        complete = _quick_check(db, path, within_s)
        if read_identity(db, path) != identity or read_last(db) < last:
            raise LostError(removed_message(path))
    return complete


def _quick_check(db: sqlite3.Connection, path: Path, within_s: float) -> bool:
    timer = threading.Timer(within_s, db.interrupt)
    timer.daemon = True
    timer.start()
    try:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
        return False
    finally:
        timer.cancel()
        timer.join()
    if found != "ok":
        raise LostError(damaged_message(path, found))
    return True
