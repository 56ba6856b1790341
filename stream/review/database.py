"""The coders' decisions about one video: review.sqlite in the folder of its results.

It holds a log of actions to which rows are only ever added. An action puts a code into a new state or removes it; the state of
a code is that of its last action, and undoing is another action. Actions have ids of the client's making, so that one that is
sent again after a crash is stored once. When `put`, `remove` or `undo` returns, its action survives a kill of the process and
a loss of power (write-ahead log, synchronous FULL). Several processes may use the file at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from engine.errors import InputError, OutputError
from stream.events.database import transaction
from stream.events.formats import Entry
from stream.review.codes import Code

FILE = "review.sqlite"
APPLICATION = 0x41505256
"""SQLite's application_id of the files: "APRV"."""
SCHEMA = 1
BUSY_S = 10.0
"""How long an action waits while another process writes."""

Blind = Literal["none", "labels", "machine"]
"""What a coder does not see of the machine: nothing is hidden; class and confidence are; all events are."""

_TABLES = f"""
CREATE TABLE actions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    coder TEXT NOT NULL,
    code TEXT NOT NULL,
    body TEXT,
    undoes INTEGER UNIQUE REFERENCES actions (number),
    at TEXT NOT NULL
);
CREATE INDEX actions_by_code ON actions (coder, code, number);
CREATE TABLE coders (name TEXT PRIMARY KEY, blind TEXT NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value NOT NULL);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
"""
AGREED = "agreed "
"""How the ids of actions begin that follow from what others agree on. No coder made them, and none undoes them."""
_LAST = "SELECT body FROM actions WHERE coder = ? AND code = ? AND number < ? ORDER BY number DESC LIMIT 1"
_STATES = """SELECT body FROM actions WHERE body IS NOT NULL AND number IN (
    SELECT max(number) FROM actions GROUP BY coder, code
)"""
_AGREED = f"""SELECT code FROM actions WHERE coder = ? AND body IS NOT NULL AND id LIKE '{AGREED}%' AND number IN (
    SELECT max(number) FROM actions GROUP BY coder, code
)"""
_UNDOABLE = f"""SELECT number, code FROM actions WHERE coder = ? AND undoes IS NULL AND id NOT LIKE '{AGREED}%'
    AND number NOT IN (SELECT undoes FROM actions WHERE undoes IS NOT NULL)
ORDER BY number DESC LIMIT 1"""


@dataclass(frozen=True)
class Applied:
    """What an action did: the code that it concerns and its new state, None where it is gone. code is None for an undo where
    there was nothing to undo. repeated: the action had been stored before."""

    code: str | None
    state: Code | None
    repeated: bool = False


class ReviewDatabase:
    """The codes of one video. Raises OutputError where the file cannot be used."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path, self._db = path, db

    @classmethod
    def open(cls, folder: Path) -> ReviewDatabase:
        """The database of the results in folder, created where there is none; only its owner may read it."""
        path = folder / FILE
        with _errors(path), contextlib.ExitStack() as undo:
            _create(path)
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
            undo.callback(db.close)
            _prepare(db, path)
            undo.pop_all()
        return cls(path, db)

    @classmethod
    def open_existing(cls, folder: Path) -> ReviewDatabase:
        """As `open`, where the results were reviewed. Raises InputError where they were not."""
        if not (folder / FILE).is_file():
            raise InputError(f"{folder} has not been reviewed: it has no {FILE}; run `apexstream review {folder}` first")
        return cls.open(folder)

    def codes(self, coder: str | None = None) -> list[Code]:
        """The codes as they are now, of one coder or of all, in the order in which they were last changed."""
        query = f"{_STATES} {'' if coder is None else 'AND coder = ?'} ORDER BY number"
        with _errors(self.path):
            rows = self._db.execute(query, () if coder is None else (coder,)).fetchall()
        return [Code.from_dict(json.loads(body)) for (body,) in rows]

    def coders(self) -> dict[str, Blind]:
        """Everyone who has coded, by name, and what was hidden from them, in the order of their first session."""
        with _errors(self.path):
            return dict(self._db.execute("SELECT name, blind FROM coders ORDER BY rowid").fetchall())

    def blind_of(self, coder: str) -> Blind:
        """What was hidden from a coder. Raises InputError that names the coders where there is none of that name."""
        known = self.coders()
        if coder not in known:
            others = f"reviewers: {', '.join(known)}" if known else "nobody has reviewed it"
            raise InputError(f"{self.path.parent} has no review by {coder!r}; {others}")
        return known[coder]

    def enter(self, coder: str, blind: Blind) -> None:
        """Note that a coder works on the results. Raises InputError where more was hidden from them before: what they coded
        then would count as blind, and no longer is."""
        with _errors(self.path), transaction(self._db):
            found = self._db.execute("SELECT blind FROM coders WHERE name = ?", (coder,)).fetchone()
            coded = self._db.execute("SELECT 1 FROM actions WHERE coder = ?", (coder,)).fetchone()
            if found is not None and found[0] != blind and coded is not None:
                raise InputError(
                    f"{coder} has coded these results with --blind {found[0]}; go on with that, or take another --coder name"
                )
            self._db.execute("INSERT INTO coders VALUES (?, ?) ON CONFLICT DO UPDATE SET blind = ?", (coder, blind, blind))

    def note_adjudicator(self, coder: str) -> None:
        """Note that a coder decides about the disagreements of the others, and so is none of them."""
        self.note_fact(f"adjudicator {coder}", 1)

    def adjudicators(self) -> list[str]:
        """Those who decide about disagreements."""
        with _errors(self.path):
            rows = self._db.execute("SELECT name FROM facts WHERE name LIKE 'adjudicator %'").fetchall()
        return [str(name).partition(" ")[2] for (name,) in rows]

    def people(self) -> list[str]:
        """The coders who have decided anything, without those who decide about disagreements."""
        decided = {code.coder for code in self.codes() if code.decision != "open"}
        return [name for name in self.coders() if name in decided and name not in self.adjudicators()]

    def agreed(self, coder: str) -> set[str]:
        """The ids of a coder's codes that are as they followed from what others agree on."""
        with _errors(self.path):
            return {str(code) for (code,) in self._db.execute(_AGREED, (coder,)).fetchall()}

    def put(self, action: str, code: Code) -> Applied:
        """Put a code into this state; action is the action's id."""
        return self._act(action, code.coder, lambda: (code.id, _as_body(code), None))

    def remove(self, action: str, coder: str, code: str) -> Applied:
        """Take a coder's code away."""
        return self._act(action, coder, lambda: (code, None, None))

    def undo(self, action: str, coder: str) -> Applied:
        """Undo the coder's last action that is not undone; not what follows from the agreement of others."""
        return self._act(action, coder, lambda: self._undoing(coder))

    def _undoing(self, coder: str) -> tuple[str, str | None, int] | None:
        last = self._db.execute(_UNDOABLE, (coder,)).fetchone()
        if last is None:
            return None
        number, code = last
        before = self._db.execute(_LAST, (coder, code, number)).fetchone()
        return code, before and before[0], number

    def _act(self, action: str, coder: str, make: Any) -> Applied:
        with _errors(self.path), transaction(self._db):
            known = self._db.execute("SELECT coder, code, body FROM actions WHERE id = ?", (action,)).fetchone()
            if known is not None:
                if known[0] != coder:
                    raise InputError("this action's id is another coder's")
                return Applied(known[1], _from_body(known[2]), repeated=True)
            made = make()
            if made is None:
                return Applied(None, None)
            code, body, undoes = made
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._db.execute(
                "INSERT INTO actions (id, coder, code, body, undoes, at) VALUES (?, ?, ?, ?, ?, ?)",
                (action, coder, code, body, undoes, now),
            )
        return Applied(code, _from_body(body))

    def actions(self, coder: str) -> list[str]:
        """The ids of a coder's actions, in order."""
        with _errors(self.path):
            rows = self._db.execute("SELECT id FROM actions WHERE coder = ? ORDER BY number", (coder,)).fetchall()
        return [str(row[0]) for row in rows]

    @property
    def identity(self) -> str:
        """What distinguishes this database from all others."""
        return str(self.fact("identity"))

    @property
    def token(self) -> str:
        """What the page must present; kept, so that a page goes on after a restart of the server."""
        return str(self.fact("token"))

    def fact(self, name: str) -> Any:
        """What was noted about the video under a name; None where nothing was."""
        with _errors(self.path):
            found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return found and found[0]

    def require_same_events(self, entries: Iterable[Entry]) -> None:
        """Note which events of the machine are reviewed. Raises InputError where they are others than before: a second analysis
        gives the same ids to other events, and the codes would be taken to be about those."""
        marks = [(entry.event.id, [mark and mark.frame for mark in entry.marks.values()]) for entry in entries]
        digest = hashlib.sha256(json.dumps(marks).encode()).hexdigest()
        known = self.fact("events")
        if known not in (None, digest) and self.codes():
            raise InputError(
                f"{self.path.parent} was analysed again, with other events, since it was reviewed; move {FILE} away to review "
                "these, or restore the events.jsonl that was reviewed"
            )
        if known != digest:
            self.note_fact("events", digest)

    def note_fact(self, name: str, value: str | float | bytes) -> None:
        """Note something about the video."""
        with _errors(self.path):
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _create(path: Path) -> None:
    """Make the file where there is none, whole and in one step: several may be about to, and changing to a write-ahead log
    does not wait for others. One that is there is not opened: closing it would release the locks of this process's other
    connections, and another process would then take away the log that they write."""
    if path.exists():
        return
    draft = path.with_name(f".{FILE}-{uuid.uuid4().hex}")
    try:
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            _make_tables(db)
        with contextlib.suppress(FileExistsError):
            _put_in_place(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _put_in_place(draft: Path, path: Path) -> None:
    """Give the draft its name. Raises FileExistsError where another process was first."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        draft.rename(path)


def _make_tables(db: sqlite3.Connection) -> None:
    with transaction(db):
        for statement in _TABLES.strip().split(";\n"):
            db.execute(statement)
        facts = {"identity": uuid.uuid4().hex, "token": secrets.token_urlsafe(24)}
        db.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Check and set up a connection. Raises OutputError where the file is no review, or another version's."""
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise OutputError(f"{path} is another program's file; move it away")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA:
        raise OutputError(f"{path} has schema {version} and this version reads {SCHEMA}; use the apexstream that wrote it")
    db.execute("PRAGMA synchronous = FULL")


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and of the system as OutputError."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", "")
        damaged = code == "SQLITE_NOTADB" or code.startswith("SQLITE_CORRUPT")
        advice = "; it is damaged: restore a copy, or move it away to start again" if damaged else ""
        raise OutputError(f"{path} cannot be used: {error}{advice}") from error
    except OSError as error:
        raise OutputError(f"{path} cannot be used: {(error.strerror or str(error)).lower()}") from error


def _as_body(code: Code) -> str:
    return json.dumps(code.as_dict(), ensure_ascii=False, separators=(",", ":"))


def _from_body(body: str | None) -> Code | None:
    return None if body is None else Code.from_dict(json.loads(body))
