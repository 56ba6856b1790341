from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from stream.events.hub import Hub
from stream.events.store import Store
from stream.fleet import reader
from stream.fleet.nodes import Nodes
from stream.fleet.reader import FleetReader
from stream.outlets import fleet
from stream.outlets.fleet import NodeInfo, NodeState
from stream.outlets.settings import RedisSettings
from tests.events import read, stored
from tests.proxy import Proxy, proxied
from tests.redis_server import RedisServer, redis_server
from tests.running_server import run, until
from tests.subscribing import Client, on_a_loop, running

STORE = "5a" * 16


def add(server: RedisServer, *numbers: int, node: str = "desk", text: str | None = None) -> None:
    """Entries as a node writes them; text is written in place of the event."""
    client = server.client()
    for number in numbers:
        entry: Any = {"event": text or json.dumps({**stored(number), "seq": number})}
        client.xadd(fleet.events_key(node, STORE), entry, id=f"{number}-0")


def register(server: RedisServer, *nodes: str) -> None:
    for node in nodes:
        info = NodeInfo(node=node, store=STORE).model_dump_json()
        server.client().hset(fleet.NODES, fleet.node_field(node, STORE), info)


@asynccontextmanager
async def reader_of(
    hub: Hub, url: str, positions: dict[tuple[str, str], int] | None = None, **options: Any
) -> AsyncIterator[None]:
    """A reader that feeds a hub; options are those of its nodes."""
    nodes = Nodes(hub, on_status=lambda status: None, **options)
    task = asyncio.create_task(FleetReader(RedisSettings(url=url), hub, nodes, positions or {}).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def states(client: Client) -> list[tuple[str, str]]:
    """The nodes that the client was told of, and how they were."""
    return [(one["name"], one["state"]) for one in client.of("node")]


def reading(store: Store, server: RedisServer, test: Any, positions: dict[tuple[str, str], int] | None = None) -> None:
    """Run the test with a hub that is fed by a reader, and a client of it."""

    async def body() -> None:
        async with running(store) as hub, reader_of(hub, server.url, positions):
            client = Client()
            hub.join(client)
            await test(client)

    on_a_loop(body)


def test_many_nodes_and_a_long_backlog_are_read_in_order(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(client: Client) -> None:
        await until(lambda: len(client.of("expression")) == 360, "the events")

    monkeypatch.setattr(reader, "BACKLOG", 20)
    monkeypatch.setattr(reader, "COUNT", 60)
    with redis_server(tmp_path) as server:
        names = [f"node-{number}" for number in range(12)]
        register(server, *names)
        for name in names:
            add(server, *range(1, 31), node=name)
        reading(store, server, test)
    for name in names:
        assert [event["node_seq"] for event in read(store, limit=5000) if event["node"] == name] == list(range(1, 31))
    assert store.positions == {(name, STORE): 30 for name in names}


def test_what_cannot_be_read_is_left_out_and_said_once(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(client: Client) -> None:
        publish = server.client().publish
        for text in ("no JSON", "[]", '{"type":"state"}', '{"type":"signal"}', '{"type":"expression"}', "[" * 100_000):
            publish(fleet.live_channel("desk"), text)
        publish(fleet.live_channel("desk"), NodeState(node="another", store=STORE, instance="1").model_dump_json())
        await until(lambda: len(client.of("expression")) == 3, "the events")
        assert [event["node_seq"] for event in client.of("expression")] == [1, 4, 7]
        assert {name for name, _ in states(client)} == {"desk"}

    with redis_server(tmp_path) as server:
        register(server, "desk")
        server.client().hset(fleet.NODES, "broken", "{")
        server.client().hset(fleet.NODES, "cellar:1", NodeInfo(node="attic", store="1").model_dump_json())
        add(server, 1)
        add(server, 2, text="{")
        server.client().xadd(fleet.events_key("desk", STORE), {"other": "field"}, id="3-0")
        add(server, 4)
        add(server, 5, text=json.dumps({**stored(5), "extra": "x" * reader.LARGEST}))
        add(server, 6, text=json.dumps(stored(6, state="provisional")))
        add(server, 7)
        reading(store, server, test)
    assert caplog.text.count("what node desk sends cannot be read") == 1


def test_a_node_of_another_version_with_another_kind_of_name_ends_nothing(store: Store, tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        await until(lambda: client.of("expression"), "the event")

    with redis_server(tmp_path) as server:
        for field in ("Büro 1:5a", "desk", "desk:5a 5b"):
            server.client().hset(fleet.NODES, field, '{"protocol":2}')
        register(server, "attic")
        add(server, 1, node="attic")
        reading(store, server, test)


def test_what_a_node_of_another_version_sends_is_not_sent_on(store: Store, tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        await until(lambda: client.of("node"), "the node")
        for node in ("desk", "attic"):
            server.client().publish(fleet.live_channel(node), json.dumps({"type": "signal", "stream": "lobby"}))
        await until(lambda: client.of("signal"), "a signal")
        assert [signal["stream"] for signal in client.of("signal")] == ["attic/lobby"]

    with redis_server(tmp_path) as server:
        server.client().hset(fleet.NODES, fleet.node_field("desk", STORE), '{"protocol":2}')
        reading(store, server, test)


def test_entries_with_ids_that_no_node_writes_come_once_or_not_at_all(store: Store, tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        await until(lambda: len(client.of("expression")) == 2, "the events")
        add(server, 3)
        await until(lambda: len(client.of("expression")) == 3, "the next event")
        entry: Any = {"event": json.dumps(stored(4))}
        server.client().xadd(fleet.events_key("desk", STORE), entry, id=f"{2**64 - 1}-0")
        add(server, 1, node="attic")
        await until(lambda: len(client.of("expression")) == 4, "an event of another node")

    with redis_server(tmp_path) as server:
        register(server, "desk", "attic")
        add(server, 1)
        server.client().xadd(fleet.events_key("desk", STORE), {"event": json.dumps(stored(9))}, id="1-1")
        add(server, 2)
        reading(store, server, test)
    got = [(event["node"], event["node_seq"]) for event in read(store)]
    assert got == [("desk", 1), ("desk", 2), ("desk", 3), ("attic", 1)]


def test_a_store_that_ends_before_what_was_read_of_it_is_an_old_copy(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(client: Client) -> None:
        def details(seq: int) -> list[str]:
            state = NodeState(node="desk", store=STORE, instance="1", seq=seq)
            server.client().publish(fleet.live_channel("desk"), state.model_dump_json())
            return [one["detail"] for one in client.of("node")]

        await until(lambda: details(7) == [""], "the node")
        await until(lambda: details(3)[1:], "the sentence")
        await until(lambda: details(7)[2:], "its end")
        assert [one["detail"] for one in client.of("node")] == ["", sentence, ""]

    sentence = (
        "this hub has event 7 of the node's store, which ends with 3: the store is an old copy, and no event up to 7 is read; "
        "give the node another name with --node"
    )
    monkeypatch.setattr(fleet, "LEASE_S", 0.05)
    with redis_server(tmp_path) as server:
        reading(store, server, test, {("desk", STORE): 7})


def test_messages_that_cannot_be_sent_on_are_left_out(store: Store, tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        await until(lambda: client.of("expression"), "the final event")
        publish = server.client().publish
        for damage in ({"extra": "\ud800"}, {"extra": float("nan")}, {"extra": "x" * reader.LARGEST}):
            publish(fleet.live_channel("desk"), json.dumps({**stored(2, state="provisional"), **damage}))
            publish(fleet.live_channel("desk"), json.dumps({"type": "signal", "stream": "lobby", **damage}))
        state = NodeState(node="desk", store=STORE, instance="1").model_dump()
        publish(fleet.live_channel("desk"), json.dumps({**state, "problem": "\ud800"}))
        publish(fleet.live_channel("desk"), json.dumps({"type": "signal", "stream": "lobby"}))
        await until(lambda: client.of("signal"), "the signal")
        assert len(client.of("signal")) == len(client.of("expression")) == 1
        assert "live" not in [one["state"] for one in client.of("node")]

    with redis_server(tmp_path) as server:
        register(server, "desk")
        add(server, 1)
        reading(store, server, test)


def test_only_the_hub_numbers_what_it_sends(store: Store, tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        await until(lambda: client.of("expression"), "the final event")
        numbers = {"seq": 500, "node_seq": 7, "node_store": 8}
        server.client().publish(fleet.live_channel("desk"), json.dumps({**stored(2, state="provisional"), **numbers}))
        await until(lambda: len(client.of("expression")) == 2, "the provisional event")
        assert not numbers.keys() & client.of("expression")[1].keys()

    with redis_server(tmp_path) as server:
        register(server, "desk")
        add(server, 1)
        reading(store, server, test)


def test_events_that_redis_has_removed_are_named(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(client: Client) -> None:
        await until(lambda: client.of("expression"), "the event")

    with redis_server(tmp_path) as server:
        register(server, "desk")
        add(server, 9)
        reading(store, server, test, {("desk", STORE): 4})
    assert "events 5 to 8 of node desk are not at Redis any more" in caplog.text


def test_a_provisional_event_that_comes_late_is_left_out(store: Store, tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        await until(lambda: client.of("expression"), "the final event")
        for number in (1, 2):
            event = {**stored(number, state="provisional")}
            server.client().publish(fleet.live_channel("desk"), json.dumps(event))
        await until(lambda: len(client.of("expression")) == 2, "the other one")
        assert [(event["id"], event["state"]) for event in client.of("expression")] == [
            ("lobby-1", "final"),
            ("lobby-2", "provisional"),
        ]

    with redis_server(tmp_path) as server:
        register(server, "desk")
        add(server, 1)
        reading(store, server, test)


def test_a_connection_that_the_network_forgot_is_replaced(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        forgetting = False
        proxy = Proxy(server.port, lambda first: not (forgetting and b"PSUBSCRIBE" in first))
        async with running(store) as hub, proxied(proxy), reader_of(hub, f"redis://127.0.0.1:{proxy.port}/0"):
            client = Client()
            hub.join(client)
            publish = server.client().publish
            text = NodeState(node="desk", store=STORE, instance="1").model_dump_json()
            await until(lambda: publish(fleet.live_channel("desk"), text) and client.of("node"), "the node")
            forgetting = True
            await until(lambda: hub.problem, "the loss of the connection")
            forgetting = False
            text = NodeState(node="attic", store=STORE, instance="2").model_dump_json()
            live = ("attic", "live")
            await until(
                lambda: publish(fleet.live_channel("attic"), text) and live in states(client), "a node that came meanwhile"
            )

    monkeypatch.setattr(reader, "ANSWER_S", 0.2)
    with redis_server(tmp_path) as server:
        run(main)


def test_a_connection_on_which_nothing_happens_is_kept(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(client: Client) -> None:
        await until(lambda: server.client().info("commandstats").get("cmdstat_ping", {}).get("calls", 0) > 3, "some questions")
        assert client.got == []

    monkeypatch.setattr(reader, "ANSWER_S", 0.1)
    with redis_server(tmp_path) as server:
        reading(store, server, test)


@pytest.mark.parametrize("away", ["killed", "frozen", "the hub"])
def test_nobody_is_lost_because_redis_or_the_hub_was_away(
    store: Store, tmp_path: Path, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgiven: list[float] = []
    now = 0.0
    forgive = Nodes.forgive
    monkeypatch.setattr(Nodes, "forgive", lambda self: (forgiven.append(now), forgive(self)))

    async def main() -> None:
        nonlocal now
        async with running(store) as hub, reader_of(hub, server.url, clock=lambda: now):
            client = Client()
            hub.join(client)
            publish = server.client().publish
            text = NodeState(node="desk", store=STORE, instance="1").model_dump_json()
            await until(lambda: publish(fleet.live_channel("desk"), text) and client.of("node"), "the node")
            await until(lambda: client.of("expression"), "the event")
            forgiven.clear()
            if away == "killed":
                server.kill()
                await until(lambda: hub.problem, "the hub to notice")
                now = 60.0
                server.start()
            elif away == "frozen":
                server.freeze(True)
                await until(lambda: forgiven, "the hub to notice")
                now = 60.0
                await until(lambda: now in forgiven, "the leases to begin again")
                server.freeze(False)
            else:
                time.sleep(2 * reader.HANGS_S)  # the whole process
                now = 60.0
            await until(lambda: now in forgiven, "the leases to begin again")
            add(server, 2)
            await until(lambda: len(client.of("expression")) == 2, "the next event")
            assert states(client) == [("desk", "live")]

    monkeypatch.setattr(reader, "HANGS_S", 0.5)
    with redis_server(tmp_path) as server:
        add(server, 1)
        run(main)


def test_a_backlog_passes_a_slow_connection(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        network = Proxy(server.port, bytes_per_s=500_000)
        async with running(store) as hub, proxied(network), reader_of(hub, f"redis://127.0.0.1:{network.port}/0"):
            await until(lambda: hub.seq == 100, "the events")

    monkeypatch.setattr(reader, "COUNT", 60)
    monkeypatch.setattr("stream.outlets.redis_connection.ANSWER_S", 0.2)
    monkeypatch.setattr("stream.outlets.redis_connection.PROBE_S", 0.1)
    monkeypatch.setattr(reader, "BLOCK_MS", 100)
    with redis_server(tmp_path) as server:
        register(server, "desk")
        for number in range(1, 101):
            add(server, number, text=json.dumps({**stored(number), "later": "x" * 5000}))
        run(main)
    assert store.positions == {("desk", STORE): 100}


def test_credentials_that_cannot_be_read_are_an_error_at_once(store: Store) -> None:
    async def body() -> None:
        async with running(store) as hub:
            settings = RedisSettings(url="redis://a", password_env="NOT_SET_HERE")
            with pytest.raises(ConfigError, match="NOT_SET_HERE is not set"):
                FleetReader(settings, hub, Nodes(hub, on_status=lambda status: None), {})

    on_a_loop(body)
