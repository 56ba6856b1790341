from __future__ import annotations

import contextlib
import sqlite3
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import InputError, OutputError
from stream.events.formats import Entry
from stream.review.database import FILE, ReviewDatabase
from tests.review import added_code, code_of, events_at

EVENTS = events_at([10, 40, 70])


def test_the_last_state_of_a_code_counts(tmp_path: Path) -> None:
    with ReviewDatabase.open(tmp_path) as database:
        first = code_of(EVENTS[0])
        database.put("a", first)
        database.put("b", code_of(EVENTS[1], decision="rejected"))
        database.put("c", replace(first, label="surprise", decision="relabelled"))
        database.put("d", code_of(EVENTS[0], "ben"))
    with ReviewDatabase.open(tmp_path) as database:
        assert [(code.id, code.decision) for code in database.codes("anna")] == [
            ("event-1", "rejected"),
            ("event-0", "relabelled"),
        ]
        assert {code.coder for code in database.codes()} == {"anna", "ben"}
        assert database.actions("anna") == ["a", "b", "c"]


def test_an_action_sent_again_is_stored_once(tmp_path: Path) -> None:
    with ReviewDatabase.open(tmp_path) as database:
        code = code_of(EVENTS[0])
        assert not database.put("a", code).repeated
        database.put("b", replace(code, decision="rejected"))
        again = database.put("a", code)
        assert again.repeated and again.state == code
        assert database.actions("anna") == ["a", "b"]
        assert [one.decision for one in database.codes("anna")] == ["rejected"], "the repetition changes nothing"
        with pytest.raises(InputError, match="another coder"):
            database.put("a", replace(code, coder="ben"))


def test_undo_goes_back_action_by_action(tmp_path: Path) -> None:
    with ReviewDatabase.open(tmp_path) as database:
        code = code_of(EVENTS[0])
        added = added_code(1, 100)
        database.put("1", code)
        database.put("2", replace(code, decision="rejected"))
        database.put("3", added)
        database.remove("4", "anna", added.id)
        database.put("5", code_of(EVENTS[0], "ben"))
        assert database.undo("u4", "anna").state == added
        assert database.undo("u4", "anna").repeated, "sent again"
        assert database.undo("u3", "anna").state is None
        assert database.undo("u2", "anna").state == code
        database.put("6", replace(code, note="new"))
        assert database.undo("u6", "anna").state == code
        assert database.undo("u1", "anna").state is None
        nothing = database.undo("u0", "anna")
        assert (nothing.code, nothing.state) == (None, None)
        assert [one.coder for one in database.codes()] == ["ben"]


def test_several_processes_may_write_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(3)

    def write(coder: str) -> None:
        together.wait()
        with ReviewDatabase.open(tmp_path) as database:
            for number in range(20):
                database.put(f"{coder}-{number}", code_of(EVENTS[number % 3], coder, note=str(number)))

    threads = [threading.Thread(target=write, args=(coder,)) for coder in ("anna", "ben", "cleo")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ReviewDatabase.open(tmp_path) as database:
        assert all(len(database.actions(coder)) == 20 for coder in ("anna", "ben", "cleo"))
        assert len(database.codes()) == 9
    assert {path.name for path in tmp_path.iterdir()} == {FILE}, "no draft is left"


def test_what_is_stored_survives_others_that_open_the_file_and_a_kill(tmp_path: Path) -> None:
    """The server opens the file twice, another program opens and closes it, and the server is killed after an action."""
    script = f"""
import os, sys
from pathlib import Path
from stream.review.database import ReviewDatabase
from tests.review import code_of, events_at
folder = Path({str(tmp_path)!r})
server = ReviewDatabase.open(folder)
ReviewDatabase.open(folder).close()
print("ready", flush=True)
sys.stdin.readline()
server.put("a", code_of(events_at([10])[0]))
os._exit(9)
"""
    root = Path(__file__).resolve().parents[3]
    server = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    ReviewDatabase.open(tmp_path).close()
    server.communicate("go\n", timeout=30)
    with ReviewDatabase.open(tmp_path) as database:
        assert database.actions("anna") == ["a"]


def test_a_blind_coder_stays_blind(tmp_path: Path) -> None:
    with ReviewDatabase.open(tmp_path) as database:
        database.enter("anna", "none")
        database.enter("anna", "machine")  # nothing was coded before
        database.put("a", code_of(EVENTS[0]))
        with pytest.raises(InputError, match="--blind machine"):
            database.enter("anna", "none")
        database.enter("ben", "none")
        assert database.coders() == {"anna": "machine", "ben": "none"}


def test_codes_are_never_taken_to_be_about_other_events(tmp_path: Path) -> None:
    entries = [Entry(event, {}) for event in EVENTS]
    with ReviewDatabase.open(tmp_path) as database:
        database.require_same_events(entries[:2])
        database.require_same_events(entries)  # nothing was coded before
        database.put("a", code_of(EVENTS[0]))
        database.require_same_events(entries)
        with pytest.raises(InputError, match="was analysed again, with other events"):
            database.require_same_events([Entry(event, {}) for event in events_at([11, 40, 70])])


def test_token_and_identity_are_kept_and_private(tmp_path: Path) -> None:
    with ReviewDatabase.open(tmp_path) as database:
        token, identity = database.token, database.identity
        database.note_fact("origin", 2.5)
        assert (database.fact("origin"), database.fact("other")) == (2.5, None)
        for path in (tmp_path / FILE, tmp_path / f"{FILE}-wal"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with ReviewDatabase.open(tmp_path) as database:
        assert (database.token, database.identity) == (token, identity)
    with ReviewDatabase.open_existing(tmp_path) as database:
        assert database.token == token


def test_what_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has not been reviewed"):
        ReviewDatabase.open_existing(tmp_path)
    with pytest.raises(OutputError, match="no such file"):
        ReviewDatabase.open(tmp_path / "missing")
    (tmp_path / FILE).write_bytes(b"no database at all, but text that is long enough" * 100)
    with pytest.raises(OutputError, match="restore a copy"):
        ReviewDatabase.open(tmp_path)
    (tmp_path / FILE).unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(OutputError, match="another program"):
        ReviewDatabase.open(tmp_path)
