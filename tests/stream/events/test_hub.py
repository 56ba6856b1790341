from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OutputError
from engine.types import Activity, Mark
from stream.events import hub as hub_module
from stream.events.hub import Hub
from stream.events.store import Store
from stream.messages import Acted, Forwarded, NodeStatus, Preview, Signal, SourceStatus
from stream.protocol import Message, Subscribe
from tests.events import decided, read, stored
from tests.subscribing import Client, on_a_loop, running

LIVE = SourceStatus("lobby", "webcam", "live")


def test_a_final_event_is_stored_numbered_and_sent(store: Store) -> None:
    async def body() -> None:
        async with running(store) as hub:
            client = Client()
            hub.join(client)
            hub.post(decided(1, state="provisional"))
            hub.post(decided(1))
            await client.until(lambda: len(client.got) == 2)
            provisional, final = client.got
            assert (provisional["state"], provisional["kind"], provisional["offset"]) == ("provisional", None, None)
            assert "seq" not in provisional
            assert (final["seq"], final["state"], final["id"]) == (1, "final", provisional["id"])
            assert 0 <= final["latency_ms"] < 60_000
            assert read(store) == [final], "what is sent is what is kept"

    on_a_loop(body)


def test_events_keep_their_order_while_the_store_is_busy(store: Store) -> None:
    async def body() -> None:
        async with running(store) as hub:
            client = Client()
            hub.join(client)
            for number in range(300):
                hub.post(decided(number, state="provisional"))
                hub.post(decided(number))
                if number % 50 == 0:
                    await asyncio.sleep(0)
            await client.until(lambda: len(client.got) == 600)
            order = [(message["id"], message["state"]) for message in client.got]
            assert order == [(f"lobby-{n}", state) for n in range(300) for state in ("provisional", "final")]
            assert client.seqs == list(range(1, 301))

    on_a_loop(body)


def test_statuses_signals_activities_and_pictures_are_sent_at_once(store: Store) -> None:
    async def body() -> None:
        hub = Hub(store)
        client, pictures = Client(Subscribe(types=("status", "signal", "activity", "removed"))), []
        hub.join(client)
        watcher = Client(Subscribe(types=("preview",)))
        watcher.write = pictures.append  # type: ignore[method-assign]
        hub.join(watcher)
        hub.post(SourceStatus("lobby", "webcam", "live", fps=30.0))
        hub.post(Signal("lobby", 1.0, 2.0, ()))
        hub.post(Acted("lobby", Activity(0, "blink", Mark(1, 0.1), Mark(4, 0.2))))
        hub.post(Preview("lobby", {"width": 4}, b"jpeg"))
        hub.remove("lobby")
        hub.remove("lobby")
        assert [message["type"] for message in client.got] == ["status", "signal", "activity", "removed"]
        assert len(pictures) == 1
        assert hub.streams == {}

    on_a_loop(body)


def test_a_removal_is_sent_after_the_last_events_of_the_stream(store: Store) -> None:
    async def body() -> None:
        sources: list[tuple[str, str | None]] = []
        async with running(store, sent=lambda message: sources.append((message.type, message.source))) as hub:
            client = Client()
            hub.post(SourceStatus("anna", "browser", "live"))
            hub.join(client)
            for number in range(3):
                hub.post(decided(number, stream="anna"))
            hub.remove("anna")
            assert "anna" in hub.streams
            hub.post(decided(3, stream="anna"))
            await client.until(lambda: len(client.seqs) == 4)
            assert [message["type"] for message in client.got] == ["status", *["expression"] * 3, "removed", "expression"]
            assert hub.streams == {}
            assert sources[1:] == [*[("expression", "browser")] * 3, ("removed", None), ("expression", "browser")]

    on_a_loop(body)


def test_a_subscriber_that_joins_is_sent_each_sources_status(store: Store) -> None:
    async def body() -> None:
        hub = Hub(store, model="ahmsa-3db@sha256:0", version="0.1.0")
        hub.post(SourceStatus("lobby", "rtsp", "starting"))
        hub.post(SourceStatus("lobby", "rtsp", "live"))
        hello = json.loads(hub.hello().encoded)
        assert hello["streams"] == [{"name": "lobby", "kind": "rtsp", "state": "live"}]
        assert (hello["seq"], hello["store"], hello["model"]) == (0, store.identity, "ahmsa-3db@sha256:0")
        client = Client()
        hub.join(client)
        assert [(message["stream"], message["state"]) for message in client.got] == [("lobby", "live")]

    on_a_loop(body)


def test_a_client_that_resumes_gets_each_event_once_while_events_go_on(store: Store) -> None:
    """Many join at different times, with long and empty replays, under load."""
    store.append([stored(number) for number in range(500)])

    async def body() -> None:
        async with running(store) as hub:
            clients: list[tuple[int, Client]] = []
            joins = []
            for number in range(500, 1500):
                hub.post(decided(number))
                if number % 50 == 0:
                    since = (number * 7) % 480
                    clients.append((since, Client()))
                    joins.append(asyncio.create_task(hub.follow(clients[-1][1], since)))
                if number % 5 == 0:
                    await asyncio.sleep(0)
            await asyncio.gather(*joins)
            for since, client in clients:
                await client.until(lambda client=client: bool(client.seqs) and client.seqs[-1] == 1500)
                assert client.seqs == list(range(since + 1, 1501))

    on_a_loop(body)


def test_events_sent_between_the_call_of_follow_and_its_first_step_are_not_missed(store: Store) -> None:
    async def body() -> None:
        async with running(store) as hub:
            client, other = Client(), Client()
            hub.join(other)
            following = hub.follow(client, hub.seq)
            hub.post(decided(1))
            await other.until(lambda: other.seqs == [1])
            await following
            assert client.seqs == [1]

    on_a_loop(body)


def test_a_replay_waits_for_its_subscriber_alone(store: Store) -> None:
    store.append([stored(number) for number in range(1000)])

    async def body() -> None:
        async with running(store) as hub:
            slow, quick = Client(reading=False), Client()
            following = asyncio.create_task(hub.follow(slow, 0))
            await slow.until(lambda: len(slow.got) == 1)
            await hub.follow(quick, 0)
            hub.post(decided(1000))
            await quick.until(lambda: len(quick.seqs) == 1001)
            assert len(slow.got) == 1, "a subscriber that does not read is sent nothing more"
            slow.reading.set()
            await following
            assert slow.seqs == quick.seqs == list(range(1, 1002))

    on_a_loop(body)


def test_a_client_that_disconnects_during_the_replay_never_joins(store: Store) -> None:
    store.append([stored(1), stored(2)])

    class Disconnected(Client):
        async def drained(self) -> None:
            raise ConnectionResetError("disconnected")

    async def body() -> None:
        async with running(store) as hub:
            client = Disconnected()
            with pytest.raises(ConnectionResetError):
                await hub.follow(client, 0)
            assert hub.subscribers == 0
            hub.leave(client)

    on_a_loop(body)


def test_the_subscription_applies_to_the_replay_and_afterwards(store: Store) -> None:
    store.append([stored(1), stored(2, label="positive"), stored(3, length_s=2.0), stored(4, stream="door")])

    async def body() -> None:
        async with running(store) as hub:
            client = Client(Subscribe(streams=("lobby",), labels=("surprise",), kinds=("micro",)))
            await hub.follow(client, 0)
            for number, changes in enumerate([{}, {"label": "positive"}, {"length_s": 2.0}, {"stream": "door"}, {}], start=5):
                hub.post(decided(number, **changes))
            await client.until(lambda: client.seqs[-1:] == [9])
            assert client.seqs == [1, 5, 9]

    on_a_loop(body)


def test_a_since_of_another_store_is_reported_and_new_events_are_sent(store: Store) -> None:
    store.append([stored(1)])

    async def body() -> None:
        async with running(store) as hub:
            client = Client()
            await hub.follow(client, 99)
            hub.post(decided(2))
            await client.until(lambda: client.seqs == [2])
            assert client.got[0]["code"] == "since"
            assert "the last event of this store is 1" in client.got[0]["message"]

    on_a_loop(body)


class Full(Store):
    """A store on a disk that is full for a while."""

    def fill(self) -> None:
        used = self._db.execute("PRAGMA page_count").fetchone()[0]
        self._db.execute(f"PRAGMA max_page_count = {used}")

    def make_room(self) -> None:
        self._db.execute("PRAGMA max_page_count = 1000000")


def filled(folder: Path) -> Full:
    """A store without room for one more event."""
    store = Full(folder)
    store.fill()
    with pytest.raises(OutputError):
        while True:
            store.append([stored(0)])
    return store


async def recovered(hub: Hub, store: Full) -> None:
    await asyncio.get_running_loop().run_in_executor(hub.threads._write, store.make_room)


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RETRY_S", (0.005, 0.02))


@pytest.mark.usefixtures("fast_retries")
def test_a_full_disk_is_reported_and_events_are_sent_once_there_is_room(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = store.last

    async def body() -> None:
        async with running(store, heartbeat_s=1000) as hub:
            client = Client()
            hub.join(client)
            for number in range(10):
                hub.post(decided(number))
            await client.until(lambda: bool(client.of("heartbeat")))
            (error,) = client.of("error")
            assert error["code"] == "store"
            assert "the disk is full" in error["message"]
            assert "wait in memory" in (hub.problem or "")
            assert client.of("heartbeat")[0]["problem"] == json.loads(hub.hello().encoded)["problem"] == hub.problem
            hub.post(decided(10, state="provisional"))
            assert client.got[-1]["state"] == "provisional", "provisional events are sent"
            hub.post(decided(10))
            assert client.seqs == []
            await recovered(hub, store)
            await client.until(lambda: len(client.seqs) == 11)
            assert client.seqs == list(range(before + 1, before + 12))
            assert [message["id"] for message in client.got if "seq" in message and "id" in message] == [
                f"lobby-{number}" for number in range(11)
            ]
            assert client.of("heartbeat")[-1]["problem"] is None
            assert hub.problem is None
            assert len(client.of("error")) == 1

    on_a_loop(body)
    assert store.last == before + 11
    store.close()


@pytest.mark.usefixtures("fast_retries")
def test_beyond_the_backlog_limit_the_oldest_events_are_lost_and_reported(tmp_path: Path) -> None:
    store = filled(tmp_path)

    async def body() -> None:
        async with running(store, backlog=100) as hub:
            client = Client()
            hub.join(client)
            hub.post(decided(0))
            await client.until(lambda: hub.problem is not None)
            for number in range(1, 151):
                hub.post(decided(number))
            assert (hub.backlog, hub.lost) == (101, 50)
            assert "50 are lost" in (hub.problem or "")
            await recovered(hub, store)
            await client.until(lambda: len(client.seqs) == 101)
            assert [m["id"] for m in client.of("expression")] == ["lobby-0"] + [f"lobby-{n}" for n in range(51, 151)]
            assert client.of("error")[-1]["code"] == "lost"

    on_a_loop(body)
    store.close()


@pytest.mark.usefixtures("fast_retries")
def test_shutdown_with_a_full_disk_reports_what_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = filled(tmp_path)

    async def body() -> None:
        async with running(store) as hub:
            for number in range(100):
                hub.post(decided(number))

    with caplog.at_level(logging.ERROR):
        on_a_loop(body)
    assert "100 wait in memory; the service ends and they are lost" in caplog.text
    store.close()


@pytest.mark.usefixtures("fast_retries")
def test_a_removal_is_sent_even_where_the_streams_events_cannot_be_stored(tmp_path: Path) -> None:
    store = filled(tmp_path)

    async def body() -> None:
        async with running(store) as hub:
            client = Client()
            hub.post(SourceStatus("anna", "browser", "live"))
            hub.join(client)
            hub.post(decided(0, stream="anna"))
            hub.remove("anna")
            await client.until(lambda: bool(client.of("removed")))
            assert client.seqs == []
            assert hub.backlog == 1

    on_a_loop(body)
    store.close()


def test_the_queue_is_stored_before_the_end(store: Store) -> None:
    async def body() -> None:
        async with running(store) as hub:
            for number in range(200):
                hub.post(decided(number))

    on_a_loop(body)
    assert len(read(store)) == 200


def test_a_replay_during_shutdown_fails(store: Store) -> None:
    store.append([stored(1)])

    async def body() -> None:
        async with running(store) as hub:
            pass
        with pytest.raises(ConnectionAbortedError):
            await hub.follow(Client(), 0)

    on_a_loop(body)


def test_heartbeats_are_sent_at_intervals(store: Store) -> None:
    async def body() -> None:
        async with running(store, heartbeat_s=0.005) as hub:
            client = Client()
            hub.join(client)
            await client.until(lambda: len(client.of("heartbeat")) >= 3)
            assert client.got[0]["seq"] == 0

    on_a_loop(body)


def test_a_long_replay_sends_heartbeats_to_a_client_that_wants_none_of_it(store: Store) -> None:
    store.append([stored(number) for number in range(1000)])

    async def body() -> None:
        async with running(store, heartbeat_s=0) as hub:
            client = Client(Subscribe(labels=("negative",)))
            await hub.follow(client, 0)
            assert [message["seq"] for message in client.of("heartbeat")][:5] == [200, 400, 600, 800, 1000]
            assert client.of("expression") == []

    on_a_loop(body)


def test_old_events_are_removed_while_it_runs(tmp_path: Path) -> None:
    async def body() -> None:
        with Store(tmp_path, keep_days=-1) as store:
            store.append([stored(1), stored(2)])
            async with running(store):
                client = Client()
                await client.until(lambda: read(store) == [])

    on_a_loop(body)


def test_messages_say_whether_evidence_is_kept(store: Store) -> None:
    store.append([stored(1), stored(2)])

    async def body() -> None:
        async with running(store, evidence=lambda event: event == "lobby-2") as hub:
            client = Client()
            await hub.follow(client, 0)
            assert [message.get("evidence") for message in client.got] == [None, True]

    on_a_loop(body)


def test_metrics_are_reported(store: Store) -> None:
    store.append([stored(1), stored(2)])
    sent: list[str] = []
    seconds: list[float] = []
    again: list[int] = []

    async def body() -> None:
        async with running(
            store, sent=lambda message: sent.append(message.type), replayed=again.append, store_seconds=seconds.append
        ) as hub:
            client = Client()
            await hub.follow(client, 0)
            hub.post(decided(3))
            await client.until(lambda: client.seqs == [1, 2, 3])

    on_a_loop(body)
    assert (sent, again) == (["expression"], [2])
    assert len(seconds) == 1 and seconds[0] >= 0


def test_each_is_sent_what_it_subscribed_to(store: Store) -> None:
    sent: list[Message] = []

    async def body() -> None:
        hub = Hub(store, sent=sent.append)
        lobby, door = Client(Subscribe(streams=("lobby",))), Client(Subscribe(streams=("door",)))
        for one in (lobby, door):
            hub.join(one)
        hub.post(LIVE)
        hub.leave(lobby)
        hub.leave(lobby)
        hub.post(LIVE)
        assert (len(lobby.got), len(door.got), len(sent), hub.subscribers) == (1, 0, 2, 1)

    on_a_loop(body)


def forwarded(number: int) -> Forwarded:
    return Forwarded({**stored(number), "stream": "desk/lobby", "node": "desk", "node_store": "5a", "node_seq": number})


def test_events_of_other_nodes_are_stored_with_their_position_and_sent_as_they_are(store: Store) -> None:
    async def body() -> None:
        async with running(store) as hub:
            client = Client()
            hub.join(client)
            provisional = {key: value for key, value in forwarded(1).body.items() if key != "node_seq"}
            hub.post(Forwarded({**provisional, "state": "provisional", "kind": None, "offset": None}))
            hub.post(forwarded(1))
            hub.post(forwarded(2))
            await client.until(lambda: len(client.of("expression")) == 3)
            first, *finals = client.of("expression")
            assert "seq" not in first
            assert finals == [{**forwarded(seq).body, "seq": seq} for seq in (1, 2)] == read(store)
            assert store.positions == {("desk", "5a"): 2}

    on_a_loop(body)


def test_reading_waits_while_events_cannot_be_stored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with running(store) as hub:
            release = asyncio.Event()
            write = hub.threads.write

            async def held(work: Any) -> Any:
                await release.wait()
                return await write(work)

            monkeypatch.setattr(hub.threads, "write", held)
            for number in range(1, 4):
                hub.post(forwarded(number))
            waiting = asyncio.create_task(hub.room(2))
            done, _ = await asyncio.wait({waiting}, timeout=0.1)
            assert not done
            release.set()
            await asyncio.wait_for(waiting, 30)
            assert hub.backlog <= 2

    on_a_loop(body)


def test_nodes_and_what_is_wrong_elsewhere_are_told(store: Store) -> None:
    async def body() -> None:
        hub = Hub(store)
        assert "nodes" not in json.loads(hub.hello().encoded)
        client = Client()
        hub.join(client)
        hub.post(NodeStatus("desk", "live"))
        hub.post(NodeStatus("desk", "lost"))
        hub.pass_on(Message({"type": "signal", "v": 1, "stream": "desk/lobby"}))
        hub.report_outside("Redis is away")
        hub.report_outside("Redis is away")
        assert [message["type"] for message in client.got] == ["node", "node", "signal", "heartbeat"]
        hello = json.loads(hub.hello().encoded)
        assert [(one["name"], one["state"]) for one in hello["nodes"]] == [("desk", "lost")]
        assert hello["problem"] == "Redis is away"
        hub.report_outside(None)
        assert client.got[-1]["problem"] is None
        hub.post(NodeStatus("desk", "removed"))
        assert client.of("node")[-1]["state"] == "removed" and json.loads(hub.hello().encoded)["nodes"] == []

    on_a_loop(body)
