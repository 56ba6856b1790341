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
from stream.schema import read_stored

MOST_LOGGED = 10
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


class EventTable:
    """The stored events by an open connection. Raises OutputError, as `sqlite_errors` does.

    A single event that is damaged is skipped and logged; its seq is in damaged.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path
        self.damaged: set[int] = set()

    def identity(self) -> str:
        """The store's unique name."""
        with sqlite_errors(self._path):
            row = self._db.execute("SELECT value FROM identity").fetchone()
        if row is None:
            raise LostError(damaged_message(self._path, "it has lost its identity"))
        return str(row[0])

    def last(self) -> int:
        """The last seq that was assigned, 0 before the first."""
        with sqlite_errors(self._path):
            row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return int(row[0]) if row else 0

    def since(self, seq: int, **bounds: Unpack[Bounds]) -> list[dict[str, Any]]:
        """Events after seq within bounds, in ascending order."""
        where, values = ["seq > ?"], cast("list[object]", [seq])
        for condition, value in (
            ("seq <= ?", bounds.get("upto")),
            ("stored_at >= ?", bounds.get("begin")),
            ("stored_at < ?", bounds.get("end")),
        ):
            if value is not None:
                where.append(condition)
                values.append(value)
        for column, names in (
            ("stream", bounds.get("streams")),
            ("label", bounds.get("labels")),
            ("kind", bounds.get("kinds")),
        ):
            if names is not None:
                where.append(f"{column} IN ({', '.join('?' * len(names))})")
                values.extend(names)
        query = f"SELECT seq, CAST(body AS BLOB) FROM events WHERE {' AND '.join(where)} ORDER BY seq"
        with sqlite_errors(self._path), contextlib.closing(self._db.execute(query, values)) as rows:
            return list(islice(self._readable(rows), bounds.get("limit", 500)))

    def _readable(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[dict[str, Any]]:
        """The events in rows, without those that cannot be read."""
        for number, body in rows:
            try:
                event = read_stored(body)
            except ValueError as error:
                self._skip(number, error)
            else:
                yield numbered(event, number)

    def _skip(self, number: int, error: ValueError) -> None:
        if number not in self.damaged:
            self.damaged.add(number)
            if len(self.damaged) <= MOST_LOGGED:
                log.warning("event %d in %s is damaged and skipped (%s)", number, self._path, " ".join(str(error).split()))


class Reader(EventTable):
    """The events in folder, read only, whether or not a service writes there. Raises InputError where there is no store."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        if not path.is_file():
            raise InputError(f"{folder} holds no events ({FILE} is not there); name the folder that the live service used")
        with contextlib.ExitStack() as undo, sqlite_errors(path):
            address = f"{path.resolve().as_uri()}?{_open_mode(path)}"
            db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            undo.callback(db.close)
            db.execute("PRAGMA query_only = ON")
            check_schema(db, path)
            super().__init__(db, path)
            self.identity()
            self._file = path.stat()
            undo.pop_all()

    def since(self, seq: int, **bounds: Unpack[Bounds]) -> list[dict[str, Any]]:
        """Events after seq within bounds, in ascending order of seq, which is among their fields.

        Raises OutputError where the file is damaged, LostError where it was removed or replaced.
        """
        try:
            same = os.path.samestat(self._path.stat(), self._file)
        except OSError:
            same = False
        if not same:
            raise LostError(removed_message(self._path))
        return super().since(seq, **bounds)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


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
        pages = EventTable(db, path)
        if pages.identity() != identity or pages.last() < last:
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
