"""The stored events, read: by the service, and by whoever else looks into its folder while it writes.

A reader opens a connection of its own (write-ahead log) and is used by one thread at a time. What SQLite reports becomes
OutputError, one sentence that says which file and what to do.
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
from stream.events.schema import read_stored

FILE = "events.sqlite3"
APPLICATION = 0x41504558
"""SQLite's application_id of our files: "APEX"."""
SCHEMA = 1
NAMED = 10
"""Damaged events that are named in the log, one by one."""

log = logging.getLogger(__name__)


class Bounds(TypedDict, total=False):
    """Which events to read; a name left out, or None, bounds nothing.

    limit: how many at the most (500). upto: the last seq looked at. begin, end: seconds of the Unix epoch at which they were
    stored, begin inclusive. streams, labels, kinds: those named.
    """

    limit: int
    upto: int | None
    begin: float | None
    end: float | None
    streams: Sequence[str] | None
    labels: Sequence[str] | None
    kinds: Sequence[str] | None


class LostError(OutputError):
    """A store's file is not what it was when it was opened: removed, replaced, overwritten, damaged."""


class Reader:
    """The events in folder, read only, whether or not a service writes there. Raises InputError where there are none."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        if not self.path.is_file():
            raise InputError(f"{folder} holds no events ({FILE} is not there); name the folder that the live service used")
        with contextlib.ExitStack() as undo, told(self.path):
            address = f"{self.path.resolve().as_uri()}?{_reading(self.path)}"
            self._db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            undo.callback(self._db.close)
            self._db.execute("PRAGMA query_only = ON")
            check_ours(self._db, self.path)
            self._pages = Pages(self._db, self.path)
            self.identity = self._pages.identity()
            self._file = self.path.stat()
            undo.pop_all()

    def since(self, seq: int, **bounds: Unpack[Bounds]) -> list[dict[str, Any]]:
        """Events after seq within bounds, in ascending order, seq among their fields.

        Raises OutputError where the file is damaged, LostError where another or none is in its place.
        """
        try:
            there = os.path.samestat(self.path.stat(), self._file)
        except OSError:
            there = False
        if not there:
            raise LostError(gone(self.path))
        return self._pages.since(seq, **bounds)

    def last(self) -> int:
        """The last seq that was given, 0 before the first."""
        return self._pages.last()

    @property
    def damaged(self) -> int:
        """How many events were left out so far because what is stored of them cannot be read."""
        return len(self._pages.damaged)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Pages:
    """Reading, for whoever holds a connection. Raises OutputError, as `told` does.

    An event that is damaged in itself is left out, counted in damaged by its seq, and logged.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path
        self.damaged: set[int] = set()

    def identity(self) -> str:
        """What tells this store from others."""
        with told(self._path):
            row = self._db.execute("SELECT value FROM identity").fetchone()
        if row is None:
            raise LostError(damaged(self._path, "it has lost its identity"))
        return str(row[0])

    def last(self) -> int:
        """The last seq that was given, 0 before the first."""
        with told(self._path):
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
        with told(self._path), contextlib.closing(self._db.execute(query, values)) as rows:
            return list(islice(self._readable(rows), bounds.get("limit", 500)))

    def _readable(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[dict[str, Any]]:
        """The events in rows, those left out that cannot be read."""
        for number, body in rows:
            try:
                event = read_stored(body)
            except ValueError as error:
                self._leave_out(number, error)
            else:
                yield numbered(event, number)

    def _leave_out(self, number: int, error: ValueError) -> None:
        if number not in self.damaged:
            self.damaged.add(number)
            if len(self.damaged) <= NAMED:
                log.warning("event %d in %s is damaged and left out (%s)", number, self._path, " ".join(str(error).split()))


def numbered(event: dict[str, Any], seq: int) -> dict[str, Any]:
    """The event with its seq where the format has it: after type and v."""
    return {"type": event["type"], "v": event["v"], "seq": seq, **event}


def _reading(path: Path) -> str:
    """How SQLite is to open a file for reading. Raises OutputError where it cannot.

    It reads beside a writer through two files of its own, and makes them where they are missing. In a folder where it may not,
    a file without a log has no writer, and needs neither.
    """
    if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        return "mode=rw"
    if not Path(f"{path}-wal").exists():
        return "mode=ro&immutable=1"
    if not Path(f"{path}-shm").exists():
        raise OutputError(f"{path} was not closed, and {path.parent} is read-only; copy the folder to where it can be written")
    return "mode=ro"


def check_ours(db: sqlite3.Connection, path: Path) -> None:
    """Refuse a database of another program or of a newer version."""
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise OutputError(f"{path} is another program's file, not a store of events; choose another folder")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA:
        raise OutputError(f"{path} has schema {version} and this version reads {SCHEMA}; use the apexstream that wrote it")


def damaged(path: Path, reason: str) -> str:
    """That a store cannot be read, and what to do."""
    return f"{path} is damaged ({' '.join(reason.split())}); move it away to begin anew, or put a copy in its place"


def gone(path: Path) -> str:
    """That a file is not there any more, or is another one."""
    return f"{path} was removed or replaced while it was in use"


def examine(path: Path, identity: str, last: int, *, within_s: float) -> bool:
    """Look through a store's file by a connection of its own, which remembers nothing of it; True where that was completed in
    within_s seconds.

    Raises LostError where it is damaged, or not the store of that identity with events up to last; OutputError.
    """
    with told(path), contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as db:
        complete = _examined(db, path, within_s)
        pages = Pages(db, path)
        if pages.identity() != identity or pages.last() < last:
            raise LostError(gone(path))
    return complete


def _examined(db: sqlite3.Connection, path: Path, within_s: float) -> bool:
    late = threading.Timer(within_s, db.interrupt)
    late.daemon = True
    late.start()
    try:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
        return False
    finally:
        late.cancel()
        late.join()
    if found != "ok":
        raise LostError(damaged(path, found))
    return True


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Whatever SQLite or the system reports, as OutputError."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", "")
        if code == "SQLITE_NOTADB":
            raise LostError(f"{path} is not a store of events; choose another folder") from error
        if code.startswith("SQLITE_CORRUPT"):
            raise LostError(damaged(path, str(error))) from error
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
