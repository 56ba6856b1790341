from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stream.events.database import FILE
from stream.events.store import Store
from tests.events import stored
from tests.soak.recording_client import examined, violations

EVENTS: list[dict[str, Any]] = [{**stored(number), "seq": number} for number in range(1, 6)]


def test_nothing_is_wrong_with_what_is_right() -> None:
    assert violations(EVENTS, EVENTS) == violations(EVENTS, EVENTS[:3]) == violations([], []) == []


@pytest.mark.parametrize(
    ("kept", "seen", "sentence"),
    [
        (EVENTS[:2] + EVENTS[3:], [], "the 4 stored events are numbered out of order, missing [3], twice []"),
        ([*EVENTS, EVENTS[4]], [], "twice [5]"),
        ([*EVENTS, {**EVENTS[2], "seq": 6}], [], "1 events are stored twice, lobby-3 among them"),
        (EVENTS, EVENTS[1:], "the 4 events seen are numbered out of order, missing [1]"),
        (EVENTS, [*EVENTS, EVENTS[4]], "the 6 events seen are numbered out of order, missing [], twice [5]"),
        (EVENTS, [EVENTS[1], EVENTS[0]], "the 2 events seen"),
        (EVENTS[:4], EVENTS, "1 events were sent and are not stored like that, number 5 among them"),
        (EVENTS, [{**EVENTS[0], "label": "negative"}], "number 1 among them"),
    ],
)
def test_what_is_wrong_is_found(kept: list[dict[str, Any]], seen: list[dict[str, Any]], sentence: str) -> None:
    assert any(sentence in problem for problem in violations(kept, seen)), violations(kept, seen)


def test_a_damaged_store_is_found(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append([stored(number) for number in range(100)])
    assert examined(tmp_path, [])[1] == []
    with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'body TEXT NOT NULL', 'body TEXT NOT NULL CHECK (seq < 50)')")
    assert any("the store is damaged" in problem for problem in examined(tmp_path, [])[1])
