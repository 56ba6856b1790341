from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.errors import ConfigError
from stream import protocol
from stream.events.store import Store
from stream.messages import Acted
from stream.outlets import fleet, redis_publisher
from stream.outlets.fleet import NodeState, read_info, read_state
from stream.outlets.redis_publisher import RedisPublisher
from stream.outlets.settings import RedisSettings
from tests.events import decided, read, stored
from tests.live import PATIENCE_S
from tests.outlets import context, final, reaches, signal, started, status
from tests.redis_server import RedisServer, redis_server

NODE = "desk"


@pytest.fixture(autouse=True)
def _retried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_publisher, "RETRY_S", (0.01, 0.05))


def made(store: Store, server: RedisServer, **settings: Any) -> RedisPublisher:
    return RedisPublisher(RedisSettings(**{"url": server.url, "node": NODE, **settings}), context(store))


def published(server: RedisServer, store: Store) -> list[int]:
    """The seq of each event that Redis has, in its order."""
    entries: Any = server.client().xrange(fleet.events_key(NODE, store.identity))
    seqs = [int(entry.partition("-")[0]) for entry, _ in entries]
    assert [json.loads(fields["event"])["seq"] for _, fields in entries] == seqs
    return seqs


def working(sender: RedisPublisher) -> None:
    reaches(sender, lambda now: now.state == "working", "the connection")


def sent(sender: RedisPublisher, count: int) -> None:
    reaches(sender, lambda now: now.sent == count and now.state == "working", f"{count} events")


def until(found: Callable[[], Any], what: str) -> Any:
    """What is found once it is true."""
    end = time.monotonic() + PATIENCE_S
    while not (result := found()):
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.005)
    return result


def state(server: RedisServer, store: Store, true: Callable[[NodeState], object], what: str) -> NodeState:
    """The node's state at Redis once something is true of it."""

    def now() -> NodeState | None:
        found: Any = server.client().get(fleet.state_key(NODE, store.identity))
        return read_state(json.loads(found)) if found else None

    return until(lambda: state if (state := now()) and true(state) else None, what)


def test_events_are_entries_with_their_seq_as_id(store: Store, tmp_path: Path) -> None:
    store.append([protocol.stamped(decided(0), monotonic=time.monotonic(), now=time.time())])
    with redis_server(tmp_path) as server, started(made(store, server)) as sender:
        message = final(store, 1, id="one")
        sender.offer(protocol.expression(message.body, evidence=True))
        sent(sender, 2)  # one of a time before this was a node
        entries: Any = server.client().xrange(fleet.events_key(NODE, store.identity))
        assert [entry for entry, _ in entries] == ["1-0", "2-0"]
        assert json.loads(entries[1][1]["event"]) == message.body, "as it is stored: without what is true of one run only"


def test_what_redis_missed_or_lost_follows_each_event_once(store: Store, tmp_path: Path) -> None:
    server = RedisServer(tmp_path, ("--appendfsync", "no"))
    try:
        with started(made(store, server)) as sender:
            for number in range(10):
                sender.offer(final(store, number))
            assert "cannot be reached" in reaches(sender, lambda now: now.state == "failing", "the failure").detail
            server.start()
            sent(sender, 10)
            server.kill()
            (tmp_path / "appendonlydir").rename(tmp_path / "kept")
            store.append([protocol.stamped(decided(number), monotonic=0.0, now=time.time()) for number in range(10, 1500)])
            sender.offer(final(store, 1500))
            server.start()  # empty
            sent(sender, 10 + 1501)
            assert published(server, store) == list(range(1, 1502))
            server.kill()
            server.forget()
            (tmp_path / "kept").rename(tmp_path / "appendonlydir")
            server.start()  # as it was long ago
            sent(sender, 10 + 1501 + 1491)
            assert published(server, store) == list(range(1, 1502))
        with started(made(store, server)) as again:
            working(again)
            again.offer(final(store, 1501))
            sent(again, 1)
            assert published(server, store) == list(range(1, 1503))
    finally:
        server.kill()


def test_a_redis_that_came_back_empty_gets_what_it_keeps(store: Store, tmp_path: Path) -> None:
    store.append([protocol.stamped(decided(number), monotonic=0.0, now=time.time()) for number in range(1000)])
    with redis_server(tmp_path) as server, started(made(store, server, max_events=300)) as sender:
        sent(sender, 300)
        assert published(server, store) == list(range(701, 1001))


def test_what_an_earlier_connection_sent_late_is_no_error(store: Store, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server, started(made(store, server)) as sender:
        working(sender)
        for number in (1, 2):
            event = protocol.stamped(decided(number), monotonic=0.0, now=time.time())
            store.append([event])
            entry: Any = {"event": json.dumps({**event, "seq": number})}
            server.client().xadd(fleet.events_key(NODE, store.identity), entry, id=f"{number}-0")
        sender.offer(final(store, 3))
        sent(sender, 1)
        assert published(server, store) == [1, 2, 3]


def test_a_full_redis_gets_the_events_once_there_is_room(store: Store, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server, started(made(store, server)) as sender:
        sender.offer(final(store, 0))
        sent(sender, 1)
        administrator = server.client()
        with administrator.pubsub() as heard:
            heard.subscribe(fleet.live_channel(NODE))
            administrator.config_set("maxmemory", "1")
            for number in range(1, 5):
                sender.offer(final(store, number))
            detail = reaches(sender, lambda now: now.state == "failing", "the refusal").detail
            assert detail == f"{server.url} is full (maxmemory): events wait in this node's store until there is room"
            states = (read_state(json.loads(each["data"])) for each in heard.listen() if each["type"] == "message")
            assert next(each for each in states if each.problem).problem == detail, "the node is alive, and says what ails it"
        administrator.config_set("maxmemory", "0")
        sent(sender, 5)
        assert published(server, store) == [1, 2, 3, 4, 5]
        state(server, store, lambda now: now.problem is None, "the end of the problem")


def test_the_state_has_streams_and_problem_and_expires(store: Store, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        with started(made(store, server, page="http://desk:8765/")) as sender:
            sender.offer(status())
            sender.offer(status("door", "stalled"))
            sender.offer(protocol.heartbeat(now=0.0, seq=0, problem="the disk is full"))
            now = state(server, store, lambda now: len(now.streams) == 2 and now.problem, "the streams")
            assert [(one.stream, one.state) for one in now.streams] == [("lobby", "live"), ("door", "stalled")]
            earlier = now.beat
            assert (now.problem, now.page, now.ended) == ("the disk is full", "http://desk:8765/", False)
            sender.offer(protocol.removed("door"))
            now = state(server, store, lambda now: [one.stream for one in now.streams] == ["lobby"], "the removal")
            assert now.beat > earlier
            assert 0 < server.client().pttl(fleet.state_key(NODE, store.identity)) <= 1000 * fleet.LEASE_S
            first = now.instance
            with server.client().pubsub() as heard:
                heard.subscribe(fleet.live_channel(NODE))
                sender.stop()
                last = [read_state(json.loads(each["data"])) for each in _until_ended(heard)][-1]
            assert last.ended and last.instance == first
        (field, info), *more = server.client().hgetall(fleet.NODES).items()  # type: ignore[union-attr]
        assert (field, more) == (f"{NODE}:{store.identity}", [])
        assert read_info(info).page == "http://desk:8765/"
        until(lambda: not server.client().keys("apexstream:[sn]*e:*"), "the end of what expires")


def _until_ended(heard: redis.client.PubSub) -> list[Any]:
    got = []
    for each in heard.listen():
        if each["type"] == "message":
            got.append(each)
            if json.loads(each["data"])["ended"]:
                break
    return got


def test_what_is_not_stored_is_published_as_on_the_websocket(store: Store, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server, server.client().pubsub() as heard:
        heard.subscribe(fleet.live_channel(NODE))
        provisional = protocol.expression(protocol.stamped(decided(1, state="provisional"), monotonic=0.0, now=0.0))
        for signals in (True, False):
            with started(made(store, server, signals=signals)) as sender:
                working(sender)
                sender.offer(signal("speech"))
                sender.offer(provisional)
                got = (json.loads(each["data"]) for each in heard.listen() if each["type"] == "message")
                types = [next(each for each in got if each["type"] != "state")["type"] for _ in range(1 + signals)]
                assert types == ["signal", "expression"][1 - signals :]


def test_two_nodes_of_one_name_say_so_but_one_that_was_restarted_does_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fleet, "BEAT_S", 0.05)
    monkeypatch.setattr(fleet, "LEASE_S", 0.3)
    with redis_server(tmp_path) as server, Store(tmp_path / "other") as other:
        killed = server.client()
        killed.set(fleet.name_key(NODE), "an instance that was killed", px=300)
        with started(made(store, server)) as first:
            working(first)
            state(server, store, lambda now: killed.get(fleet.name_key(NODE)) == now.instance, "the name to be free")
            assert "another node" not in caplog.text
            with started(made(other, server)) as second:
                sentence = "another node is called desk too; give one of them another name with --node"
                state(server, other, lambda now: now.problem == sentence, "the sentence")
                second.offer(final(other, 1))
                sent(second, 1)  # it goes on
        assert 1 <= caplog.text.count(sentence) <= 2, "each says it once, the first where it was too slow to keep the name"


def test_a_store_that_is_an_old_copy_says_so(store: Store, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        entry: Any = {"event": "{}"}
        server.client().xadd(fleet.events_key(NODE, store.identity), entry, id="7-0")
        with started(made(store, server)) as sender:
            detail = reaches(sender, lambda now: now.state == "failing", "the refusal").detail
            assert "has event 7 of this node's store, which ends with 0: the store is an old copy" in detail


def copied(store: Store, folder: Path) -> Store:
    """A copy of a store: another one with its identity and events."""
    folder.mkdir()
    shutil.copy(store.path, folder)
    return Store(folder)


def with_events(store: Store, *ids: str) -> Store:
    store.append([protocol.stamped(decided(0, id=one), monotonic=0.0, now=time.time()) for one in ids])
    return store


def checkpointed(store: Store) -> None:
    """Everything in the one file that is copied."""
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def test_of_two_copies_of_a_store_the_one_that_comes_second_says_so(store: Store, tmp_path: Path) -> None:
    checkpointed(with_events(store, "a", "b"))
    with redis_server(tmp_path) as server, copied(store, tmp_path / "copy") as copy:
        assert copy.identity == store.identity
        with ExitStack() as stack:
            first = stack.enter_context(started(made(store, server)))
            sent(first, 2)
            second = stack.enter_context(started(made(copy, server)))
            working(second)
            first.offer(final(store, 3, id="of the first"))
            sent(first, 3)
            ours = [final(copy, number, id=f"of the copy {number}") for number in (3, 4)]
            for message in ours:
                second.offer(message)
            detail = reaches(second, lambda now: now.state == "failing", "the refusal").detail
            assert "than this node's store: a copy of the store publishes" in detail or "is an old copy" in detail
            first.offer(final(store, 4, id="of the first, too"))
            sent(first, 4)
        entries: Any = server.client().xrange(fleet.events_key(NODE, store.identity))
        ids = [json.loads(fields["event"])["id"] for _, fields in entries]
        assert ids == ["a", "b", "of the first", "of the first, too"], "nothing of the copy got in between"
        with started(made(copy, server, node="another")) as renamed:
            sent(renamed, 4)


def test_a_store_from_a_backup_is_refused_after_it_has_grown_too(store: Store, tmp_path: Path) -> None:
    checkpointed(with_events(store, "a", "b"))
    with redis_server(tmp_path) as server, copied(store, tmp_path / "backup") as backup:
        with started(made(with_events(store, "c", "d"), server)) as sender:
            sent(sender, 4)
        with started(made(with_events(backup, "e", "f", "g"), server)) as sender:
            detail = reaches(sender, lambda now: now.state == "failing", "the refusal").detail
        assert detail == (
            f"{server.url} has another event 4 than this node's store: a copy of the store publishes, or has published, as "
            "desk too; give this node another name with --node"
        )
        assert published(server, store) == [1, 2, 3, 4]


def test_a_store_from_a_backup_goes_on_where_redis_has_no_more_than_it(store: Store, tmp_path: Path) -> None:
    checkpointed(with_events(store, "a", "b"))
    with redis_server(tmp_path) as server, copied(store, tmp_path / "backup") as backup:
        with started(made(store, server)) as sender:
            sent(sender, 2)
        with started(made(with_events(backup, "c", "d"), server)) as sender:
            sent(sender, 2)
        assert published(server, store) == [1, 2, 3, 4]


@pytest.mark.parametrize("more", [True, False])
def test_what_redis_loses_while_it_is_connected_is_sent_again(
    store: Store, tmp_path: Path, more: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fleet, "BEAT_S", 3600.0 if more else 0.05)
    with redis_server(tmp_path) as server, started(made(with_events(store, "a", "b", "c"), server, max_events=100)) as sender:
        sent(sender, 3)
        server.client().flushall()
        if more:  # an event finds out before the next beat
            sender.offer(final(store, 4))
        sent(sender, 7 if more else 6)
        assert published(server, store) == [1, 2, 3, 4][: 3 + more]
        if not more:
            assert server.client().hkeys(fleet.NODES) == [f"{NODE}:{store.identity}"]
    sentence = (
        f"redis: {server.url} has lost events 1 to 3 of this node; those that the store still has are sent again from 1 on"
    )
    assert caplog.text.count(sentence) == caplog.text.count("has lost") == 1


@pytest.mark.parametrize("full", [False, True])
def test_what_redis_loses_before_the_first_beat_is_sent_again(
    store: Store, tmp_path: Path, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = RedisPublisher._beat

    def emptied(sender: RedisPublisher, redis: Any, **ended: bool) -> None:
        if full:
            beat(sender, redis, **ended)
        server.client().config_set("maxmemory", "0")
        server.client().flushall()
        monkeypatch.setattr(RedisPublisher, "_beat", beat)
        beat(sender, redis, **ended)

    monkeypatch.setattr(fleet, "BEAT_S", 0.05)
    with redis_server(tmp_path) as server:
        with started(made(with_events(store, "a", "b", "c"), server)) as sender:
            sent(sender, 3)
        monkeypatch.setattr(RedisPublisher, "_beat", emptied)
        server.client().config_set("maxmemory", str(full * 1))
        with started(made(store, server)) as again:
            sent(again, 3)
        assert published(server, store) == [1, 2, 3]


def test_an_event_that_redis_has_before_the_service_sent_it_on_is_no_sign_of_an_old_copy(store: Store, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        with started(made(with_events(store, "a"), server)) as first:
            sent(first, 1)
        before = context(store)
        with_events(store, "b", "c")
        with started(made(store, server)) as second:
            sent(second, 2)
        with started(RedisPublisher(RedisSettings(url=server.url, node=NODE), before)) as again:
            working(again)
            again.offer(final(store, 4))
            sent(again, 1)
        assert published(server, store) == [1, 2, 3, 4]


def test_an_outlet_that_ends_says_so_however_much_is_stored(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_end(since: int, limit: int) -> list[dict[str, Any]]:
        return [{**stored(1), "seq": since + more} for more in range(1, limit + 1)]

    monkeypatch.setattr(redis_publisher, "LAST_S", 0.05)
    with redis_server(tmp_path) as server, server.client().pubsub() as heard:
        heard.subscribe(fleet.live_channel(NODE))
        settings = RedisSettings(url=server.url, node=NODE, max_events=1000)
        with started(RedisPublisher(settings, replace(context(store), stored=without_end))) as sender:
            reaches(sender, lambda now: now.sent > 2000, "some of them")
            sender.stop()
            assert sender.join(PATIENCE_S)
        assert _until_ended(heard)


def test_a_name_that_was_free_again_while_the_store_was_slow_is_no_namesake(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(since: int, limit: int) -> list[dict[str, Any]]:
        slow_until = time.monotonic() + 0.2
        while killed.exists(fleet.name_key(NODE)) or time.monotonic() < slow_until:
            time.sleep(0.005)
        return read(store, since, limit=limit)

    monkeypatch.setattr(fleet, "BEAT_S", 0.05)
    monkeypatch.setattr(fleet, "LEASE_S", 0.1)
    with redis_server(tmp_path) as server:
        killed = server.client()
        killed.set(fleet.name_key(NODE), "an instance that was killed", px=200)
        settings = RedisSettings(url=server.url, node=NODE)
        with started(RedisPublisher(settings, replace(context(store), stored=slow))):
            state(server, store, lambda now: killed.get(fleet.name_key(NODE)) == now.instance, "the name to be free")
    assert "another node" not in caplog.text


def test_a_redis_that_hangs_does_not_hold_up_the_service(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.outlets.redis_connection.ANSWER_S", 2.0)
    with redis_server(tmp_path) as server, started(made(store, server)) as sender:
        working(sender)
        server.freeze(True)
        began = time.monotonic()
        sender.offer(final(store, 1))
        assert time.monotonic() - began < 2.0
        assert "does not answer" in reaches(sender, lambda now: now.state == "failing", "the failure").detail
        server.freeze(False)
        working(sender)
        assert published(server, store) == [1], "sent twice, there once"


def test_credentials_are_checked_at_the_start_and_never_shown(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"redis\.password_env: the environment variable NOT_SET_HERE is not set"):
        RedisPublisher(RedisSettings(url="redis://a", password_env="NOT_SET_HERE"), context(store))
    monkeypatch.setenv("APEXSTREAM_REDIS_PASSWORD", "s3cret-word")
    with caplog.at_level(logging.DEBUG), redis_server(tmp_path, "--requirepass", "s3cret-word") as server:
        with started(made(store, server)) as sender:
            working(sender)
        monkeypatch.setenv("APEXSTREAM_REDIS_PASSWORD", "s3cret-other")
        with started(made(store, server)) as sender:
            detail = reaches(sender, lambda now: now.state == "failing", "the refusal").detail
        assert "refuses the user name or password" in detail
        RedisPublisher(RedisSettings(url="redis://far.example"), context(store))
    assert "the password for redis://far.example:6379/0 crosses the network unencrypted" in caplog.text
    assert "s3cret" not in caplog.text + detail + sender.shown


def test_activities_do_not_pile_up_without_redis(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.types import Activity, Mark

    sender = RedisPublisher(RedisSettings(url="redis://127.0.0.1:1", node=NODE), context(store))
    acted = protocol.activity(Acted("lobby", Activity(0, "blink", Mark(1, 0.1), Mark(3, 0.2))))
    for _ in range(redis_publisher.QUEUED + 10):
        sender.offer(acted)
    assert len(sender._live) == redis_publisher.QUEUED
