from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OutputError
from stream.events.store import Store
from stream.outlets import follower
from stream.outlets.follower import Position, StoreFollower
from tests.events import read, seqs
from tests.outlets import final


def following(store: Store, at: int = 0) -> StoreFollower:
    position = Position(store.path.parent / "position.json", store.identity, at)
    return StoreFollower(lambda since, limit: read(store, since, limit=limit), position)


def taken(follower: StoreFollower) -> list[object]:
    """All that it gives now, delivered page by page."""
    got: list[object] = []
    while page := follower.page():
        got += seqs(page)
        follower.delivered(page[-1]["seq"])
    return got


def test_each_event_comes_once_and_in_order_whether_read_or_queued(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "PAGE", 3)
    one = following(store)
    for number in range(5):
        final(store, number)  # before it followed: in the store only
    for number in range(5, 8):
        one.offer(final(store, number).body)
    assert taken(one) == [1, 2, 3, 4, 5, 6, 7, 8]
    for number in range(8, 13):
        one.offer(final(store, number).body)
    assert taken(one) == [9, 10, 11, 12, 13]
    assert taken(one) == []


def test_while_it_keeps_up_nothing_is_read_from_the_store(store: Store) -> None:
    reads: list[int] = []

    def stored(since: int, limit: int) -> list[dict[str, Any]]:
        reads.append(since)
        return []

    one = StoreFollower(stored, Position(store.path.parent / "position.json", store.identity, 0))
    assert taken(one) == []
    for number in range(3):
        one.offer(final(store, number).body)
        assert taken(one) == [number + 1]
    assert reads == [0]


def test_a_full_queue_is_left_to_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "QUEUED", 4)
    one = following(store)
    assert taken(one) == []
    for number in range(11):
        one.offer(final(store, number).body)
        assert len(one._queue) <= 4
    assert taken(one) == list(range(1, 12))


def test_a_page_that_is_not_delivered_comes_again(store: Store) -> None:
    one = following(store)
    assert taken(one) == []
    one.offer(final(store, 1).body)
    assert seqs(one.page()) == seqs(one.page()) == [1]


def test_an_event_that_is_sent_while_the_store_is_read_is_not_missed(store: Store) -> None:
    first = final(store, 1)

    def stored(since: int, limit: int) -> list[dict[str, Any]]:
        found = read(store, since, limit=limit)
        if not found and store.last == 1:
            one.offer(final(store, 2).body)
        return found

    one = StoreFollower(stored, Position(store.path.parent / "position.json", store.identity, 0))
    one.offer(first.body)
    assert taken(one) == [1, 2]


def test_after_an_error_of_the_store_it_is_read_again(store: Store) -> None:
    failing = [True]

    def stored(since: int, limit: int) -> list[dict[str, Any]]:
        if failing:
            raise OutputError("no disk")
        return read(store, since, limit=limit)

    one = StoreFollower(stored, Position(store.path.parent / "position.json", store.identity, 0))
    final(store, 1)
    with pytest.raises(OutputError):
        one.page()
    one.offer(final(store, 2).body)
    failing.clear()
    assert taken(one) == [1, 2]


def test_the_position_is_kept_for_its_store(tmp_path: Path) -> None:
    path = tmp_path / "position.json"
    assert Position(path, "a", 7).seq == 7, "at first: what happens from now on"
    Position(path, "a", 7).move(9)
    assert Position(path, "a", 12).seq == 9
    assert Position(path, "a", 8).seq == 8, "a store that was put back to an earlier state"
    assert Position(path, "b", 5).seq == 0, "another store: nothing of it has been delivered"
    assert json.loads(path.read_text()) == {"store": "b", "seq": 0}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"store": 1, "seq": 2}', b'{"store": "a", "seq": -1}', b"\xff\xfe"])
def test_a_damaged_position_is_reported_and_replaced(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "position.json"
    path.write_bytes(content)
    assert Position(path, "a", 3).seq == 3
    assert "events from now on are sent" in caplog.text
    assert Position(path, "a", 5).seq == 3


def test_a_disk_that_refuses_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        position = Position(tmp_path / "missing" / "position.json", "a", 0)
        for seq in range(1, 4):
            position.move(seq)
    assert position.seq == 3
    assert caplog.text.count("may be sent again after a restart") == 1
