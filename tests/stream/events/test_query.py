from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import InputError
from stream.events.database import FILE
from stream.events.query import Reader
from stream.events.store import Store
from tests.events import DAMAGED, damage, read, seqs, stored

ROOT = Path(__file__).resolve().parents[3]


def test_since_is_exclusive_and_bounded(store: Store) -> None:
    store.append([stored(number) for number in range(1, 11)])
    assert seqs(read(store, 7)) == [8, 9, 10]
    assert seqs(read(store, 2, limit=3)) == [3, 4, 5]
    assert seqs(read(store, 2, upto=4)) == [3, 4]
    assert read(store, 10) == read(store, 99) == []


def test_events_are_chosen_by_stream_label_kind_and_time(store: Store) -> None:
    store.append(
        [stored(1, stream="lobby"), stored(2, stream="door", label="positive"), stored(3, stream="door", length_s=2.0)]
    )
    assert seqs(read(store, streams=["door"])) == [2, 3]
    assert seqs(read(store, labels=["surprise"])) == [1, 3]
    assert seqs(read(store, kinds=["micro"], streams=["door", "lobby"])) == [1, 2]
    assert read(store, streams=[]) == []
    now = time.time()
    assert seqs(read(store, begin=now - 60, end=now + 60)) == [1, 2, 3]
    assert read(store, begin=now + 60) == read(store, end=now - 60) == []


def test_readers_see_what_is_written_while_they_are_open(store: Store) -> None:
    with Reader(store.path.parent) as reader:
        assert reader.since(0) == []
        store.append([stored(1)])
        assert seqs(reader.since(0)) == [1]


@pytest.mark.parametrize("body", [*DAMAGED, 17, "\x00"])
def test_a_damaged_event_is_skipped_counted_and_logged_once(
    store: Store, caplog: pytest.LogCaptureFixture, body: object
) -> None:
    store.append([stored(number) for number in range(1, 8)])
    damage(store.path, 2, body)
    damage(store.path, 3, body)
    with Reader(store.path.parent) as reader, caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert seqs(reader.since(0)) == [1, 4, 5, 6, 7]
            assert seqs(reader.since(0, limit=3)) == [1, 4, 5], "a page is full while there is more"
            assert reader.since(1, upto=3) == []
        assert reader.damaged == {2, 3}
    assert [f"event {number} in" in line for number, line in zip((2, 3), caplog.messages, strict=True)] == [True, True]


def test_readers_write_nothing(store: Store) -> None:
    with Reader(store.path.parent) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM events")


READING = """
import os, sys, urllib.parse  # before the rights to read it are given up
from pathlib import Path
from engine.errors import OutputError
from stream.events.query import Reader
folder = Path(sys.argv[1])
if not os.geteuid():  # root always may
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
assert not os.access(folder, os.W_OK), "the test is to be run without the right to write"
try:
    with Reader(folder) as reader:
        print([event["seq"] for event in reader.since(0)])
except OutputError as error:
    print(error)
"""


@pytest.fixture
def exposed() -> Iterator[Path]:
    """A folder with a store that every user can reach."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with Store(folder) as written:
            written.append([stored(1), stored(2)])
        yield folder
        folder.chmod(0o755)


def read_only(folder: Path) -> str:
    """What a user without write access reads there."""
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    command = [sys.executable, "-c", READING, str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def test_a_read_only_folder_can_be_read(exposed: Path) -> None:
    assert read_only(exposed) == "[1, 2]"
    assert sorted(path.name for path in exposed.iterdir()) == ["events.lock", FILE]


def test_a_read_only_folder_is_read_while_a_service_writes_there(exposed: Path) -> None:
    with Store(exposed) as store:
        store.append([stored(3)])
        assert read_only(exposed) == "[1, 2, 3]"
        exposed.chmod(0o755)
        for path in exposed.iterdir():
            path.chmod(0o644)


def test_a_read_only_copy_of_a_store_that_was_not_closed_is_reported(exposed: Path) -> None:
    with Store(exposed) as store:
        store.append([stored(3)])
        log = Path(f"{store.path}-wal").read_bytes()
    Path(f"{store.path}-wal").write_bytes(log)
    assert read_only(exposed).endswith("is read-only; copy the folder to where it can be written")


def test_a_folder_without_events_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no events"):
        Reader(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
