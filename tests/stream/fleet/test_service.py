from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.types import Activity, Mark
from stream.backoff import Backoff
from stream.fleet import nodes, reader
from stream.fleet.service import FleetHub
from stream.messages import Acted, FaceTrace, Signal, SourceStatus
from stream.outlets import fleet
from stream.outlets.fleet import NodeInfo
from tests.events import DAMAGED, decided, stored
from tests.fleet import Watcher, hub, node
from tests.redis_server import RedisServer, redis_server
from tests.running_server import run, until
from tests.schema import problems
from tests.serving import fetched


@asynccontextmanager
async def watched(service: FleetHub, since: int | None = 0) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    following = asyncio.create_task(watcher.follow(service, since))
    try:
        await until(lambda: watcher.of("hello"), "the hub's hello")
        yield watcher
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def test_all_nodes_are_followed_by_one_client(tmp_path: Path) -> None:
    async def main() -> None:
        async with node(tmp_path, server.url, page="http://desk:8765/") as desk, hub(tmp_path, server.url) as service:
            desk.hub.post(decided(1))
            async with node(tmp_path, server.url, "door") as door, watched(service) as watcher:
                door.hub.post(SourceStatus("lobby", "webcam", "live", fps=30.0))
                desk.hub.post(SourceStatus("lobby", "webcam", "live", fps=25.0))
                await watcher.until(lambda: watcher.last("status", stream="door/lobby"), "the newer node")
                door.hub.post(decided(7, state="provisional"))
                await watcher.until(lambda: watcher.last("expression", state="provisional"), "the provisional event")
                door.hub.post(decided(7))
                desk.hub.post(decided(2))
                await watcher.until(lambda: len(watcher.finals) == 3, "the events")
                assert sorted(watcher.finals) == [("desk", 1), ("desk", 2), ("door", 1)]
                assert [event["seq"] for event in watcher.of("expression") if "seq" in event] == [1, 2, 3]
                final = watcher.last("expression", stream="door/lobby", state="final")
                assert (final["node"], final["node_store"], final["id"]) == ("door", door.store.identity, "lobby-7")
                assert watcher.last("expression", state="provisional")["stream"] == "door/lobby"
                trace = FaceTrace(0, (1.0, 1.04), (0.1, 0.5), (0.01, 0.02), {"speech": 0.5})
                desk.hub.post(Signal("lobby", 1.04, 2.0, (trace,)))
                desk.hub.post(Acted("lobby", Activity(0, "blink", Mark(1, 0.1), Mark(3, 0.2))))
                await watcher.until(lambda: watcher.of("signal") and watcher.of("activity"), "what is not stored")
                assert {message["stream"] for message in watcher.of("signal") + watcher.of("activity")} == {"desk/lobby"}
                desk.hub.remove("lobby")
                await watcher.until(lambda: watcher.last("removed", stream="desk/lobby"), "the removal")
                status = watcher.last("status", stream="door/lobby")
                assert (status["state"], status["fps"], status["node"]) == ("live", 30.0, "door")
                listed = json.loads(await fetched(f"{service.url}api/streams"))["nodes"]
                assert [(one["name"], one["state"], one["page"]) for one in listed] == [
                    ("desk", "live", "http://desk:8765/"),
                    ("door", "live", None),
                ]
                assert 'apexstream_node_live{node="door"} 1.0' in (await fetched(f"{service.url}metrics")).decode()
            async with watched(service, since=1) as later:
                await later.until(lambda: len(later.finals) == 2, "the replay")
                await later.until(lambda: later.last("node", name="door", state="ended") or ended(later), "the ended node")
                assert [problems(message) for message in watcher.got + later.got if problems(message)] == []

    def ended(watcher: Watcher) -> bool:
        return {one["name"]: one["state"] for one in watcher.of("hello")[0]["nodes"]} == {"desk": "live", "door": "ended"}

    with redis_server(tmp_path) as server:
        run(main)


def test_a_hub_that_was_away_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with node(tmp_path, server.url) as desk:
            for _ in range(2):
                desk.hub.post(decided(1))
            async with hub(tmp_path, server.url) as first, watched(first) as watcher:
                await watcher.until(lambda: len(watcher.finals) == 2, "the first two")
            for _ in range(40):
                desk.hub.post(decided(2))
            async with hub(tmp_path, server.url) as again, watched(again) as watcher:
                await watcher.until(lambda: len(watcher.finals) == 42, "the others")
                assert watcher.finals == [("desk", number) for number in range(1, 43)]
                assert again.store.positions == {("desk", desk.store.identity): 42}

    with redis_server(tmp_path) as server:
        run(main)


def test_redis_is_away_and_comes_back_empty(tmp_path: Path) -> None:
    async def main() -> None:
        async with node(tmp_path, server.url) as desk, hub(tmp_path, server.url) as service, watched(service) as watcher:
            assert "cannot be reached: connection refused" in await problem(watcher)
            ready = await asyncio.to_thread(lambda: service.hub.problem)
            assert ready is not None and ready.endswith("; the events of all nodes wait until it works again")
            desk.hub.post(decided(1))
            server.start()
            await watcher.until(lambda: watcher.finals == [("desk", 1)], "the event")
            assert watcher.last("heartbeat")["problem"] is None
            server.kill()
            server.forget()
            desk.hub.post(decided(2))
            assert await problem(watcher)
            server.start()
            await watcher.until(lambda: len(watcher.finals) == 2, "the second event")
            assert watcher.finals == [("desk", 1), ("desk", 2)]

    async def problem(watcher: Watcher) -> str:
        await watcher.until(lambda: any(problems(watcher)), "the problem")
        return str(next(filter(None, problems(watcher))))

    def problems(watcher: Watcher) -> list[Any]:
        return [message["problem"] for message in watcher.got[::-1] if message["type"] in ("hello", "heartbeat")][:1]

    server = RedisServer(tmp_path)
    try:
        run(main)
    finally:
        server.kill()


def test_a_node_that_is_killed_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with hub(tmp_path, server.url) as service, watched(service) as watcher, node(tmp_path, server.url) as desk:
            desk.hub.post(SourceStatus("lobby", "webcam", "live", fps=30.0))
            await watcher.until(lambda: watcher.last("status", stream="desk/lobby", state="live"), "the node")
            monkeypatch.setattr("stream.outlets.redis_publisher.RedisPublisher._beat", lambda *_, **__: None)
            lost = "nothing was heard of it for 0.5 s"
            await watcher.until(lambda: watcher.last("node", name="desk", state="lost", detail=lost), "the loss")
            status = watcher.last("status", stream="desk/lobby")
            assert (status["state"], status["detail"], status["fps"]) == ("stalled", "the node desk is lost", 0.0)
            monkeypatch.undo()
            await watcher.until(lambda: watcher.got[-1].get("state") == "live", "its return")

    lease = 0.5
    monkeypatch.setattr(nodes.Nodes.__init__, "__kwdefaults__", {**nodes.Nodes.__init__.__kwdefaults__, "lease_s": lease})
    monkeypatch.setattr(fleet, "BEAT_S", 0.1)
    with redis_server(tmp_path) as server:
        run(main)


def test_a_node_that_is_gone_for_good_is_removed_as_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "fleet.md").read_text(encoding="utf-8")
    commands = [line.partition("redis-cli ")[2] for line in text.splitlines() if line.startswith("redis-cli ")]

    async def main() -> None:
        async with hub(tmp_path, server.url) as service, watched(service) as watcher, node(tmp_path, server.url) as desk:
            async with node(tmp_path, server.url, "attic") as attic:
                for each in (attic, desk):
                    each.hub.post(SourceStatus("lobby", "webcam", "live", fps=30.0))
                    each.hub.post(decided(1))
                await until(lambda: len(watcher.finals) == len(service.hub.streams) == 2, "the nodes")
                gone = f"attic:{attic.store.identity}"
            await until(lambda: watcher.last("node", name="attic", state="ended"), "the end of one")
            for command in commands:
                server.client().execute_command(*command.replace("NAME:STORE", gone).partition(" #")[0].split())
            await until(lambda: watcher.last("node", name="attic", state="removed"), "its removal")
            await until(lambda: watcher.last("removed", stream="attic/lobby"), "that of its stream")
            assert list(service.hub.nodes or {}) == ["desk"] and list(service.hub.streams) == ["desk/lobby"]
            assert 'apexstream_node_live{node="attic"}' not in (await fetched(f"{service.url}metrics")).decode()
            assert [problems(message) for message in watcher.got if problems(message)] == []
            desk.hub.post(decided(2))
            await until(lambda: watcher.finals[2:] == [("desk", 2)], "the other's events")

    assert [command.split()[0] for command in commands] == ["HKEYS", "HDEL", "DEL"]
    monkeypatch.setattr(reader, "REGISTRY_S", 0.05)
    with redis_server(tmp_path) as server:
        run(main)


def test_a_redis_that_is_emptied_gets_everything_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with node(tmp_path, server.url) as desk:
            async with hub(tmp_path, server.url) as service, watched(service) as watcher:
                for number in range(1, 4):
                    desk.hub.post(decided(number))
                await until(lambda: len(watcher.finals) == 3, "the events")
                server.client().flushall()
                desk.hub.post(decided(4))
                await until(lambda: len(watcher.finals) == 4, "the next event")
            server.client().flushall()
            desk.hub.post(decided(5))
            key = fleet.events_key("desk", desk.store.identity)
            await until(lambda: server.client().xlen(key) == 5, "all of them at Redis")
            async with hub(tmp_path, server.url) as service, watched(service) as watcher:
                await until(lambda: len(watcher.finals) == 5, "what the hub has not read before")
                assert watcher.finals == [("desk", number) for number in range(1, 6)]
                assert [one.name for one in (service.hub.nodes or {}).values()] == ["desk"]
        assert "are not at Redis any more" not in caplog.text

    monkeypatch.setattr(reader, "REGISTRY_S", 0.05)
    with redis_server(tmp_path) as server:
        run(main)


def test_a_node_of_another_version_is_shown_and_the_others_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        other = {"type": "state", "protocol": 2, "node": "attic", "store": "0" * 32, "version": "9.0"}
        server.client().hset(fleet.NODES, f"attic:{'0' * 32}", json.dumps(other))
        async with hub(tmp_path, server.url) as service, node(tmp_path, server.url) as desk, watched(service) as watcher:
            server.client().publish(fleet.live_channel("attic"), json.dumps(other))
            server.client().publish(fleet.live_channel("attic"), b"\xff{")
            desk.hub.post(decided(1))
            await watcher.until(lambda: watcher.finals == [("desk", 1)], "the others' event")
            (attic,) = [one for one in (service.hub.nodes or {}).values() if one.name == "attic"]
            sentence = (
                "node attic speaks protocol 2 (apexstream 9.0) and this hub protocol 1: its events are not read; "
                "run the same version on both"
            )
            assert (attic.state, attic.detail) == ("incompatible", sentence)
            assert caplog.text.count(f"{sentence}") == 2, "once for the node, once for its state"

    with caplog.at_level(logging.INFO), redis_server(tmp_path) as server:
        run(main)


def test_events_that_another_program_wrote_do_not_end_the_hub(tmp_path: Path) -> None:
    async def main() -> None:
        other = server.client()
        other.hset(fleet.NODES, "desk:5a", NodeInfo(node="desk", store="5a").model_dump_json())
        short = {name: value for name, value in stored(1).items() if name != "latency_ms"}
        for seq, body in enumerate([json.dumps(short).encode(), *DAMAGED, json.dumps(stored(2)).encode()], start=1):
            other.xadd(fleet.events_key("desk", "5a"), {"event": body}, id=f"{seq}-0")
        async with hub(tmp_path, server.url) as service, watched(service) as watcher:
            await watcher.until(lambda: len(watcher.finals) == 2, "the events")
            assert watcher.finals == [("desk", 1), ("desk", len(DAMAGED) + 2)]

    with redis_server(tmp_path) as server:
        run(main)


def test_the_documented_rights_suffice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "fleet.md").read_text(encoding="utf-8")
    rights = [line.removeprefix("ACL SETUSER ").split() for line in text.splitlines() if line.startswith("ACL SETUSER ")]

    async def main() -> None:
        for name, *rules in rights:
            server.client().execute_command("ACL", "SETUSER", name, *rules)
        users: list[dict[str, Any]] = [{"username": name, "password": "PASSWORD"} for name in ("node", "hub")]
        async with node(tmp_path, server.url, **users[0]) as desk, hub(tmp_path, server.url, **users[1]) as service:
            desk.hub.post(SourceStatus("lobby", "webcam", "live", fps=30.0))
            desk.hub.post(decided(1))
            await until(lambda: "desk/lobby" in service.hub.streams and service.hub.seq == 1, "the event")
            async with watched(service) as watcher:
                await until(lambda: watcher.of("status"), "the client to be sent everything")
                desk.hub.post(decided(2, state="provisional"))
                await until(lambda: len(watcher.of("expression")) == 2, "what is not stored")

    assert [name for name, *_ in rights] == ["node", "hub"]
    with redis_server(tmp_path) as server:
        run(main)
    assert "do not allow it" not in caplog.text


@pytest.mark.parametrize("missing", ["xread", "psubscribe"])
def test_a_right_that_is_missing_is_said_and_tried_ever_less_often(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []

    class Recorded(Backoff):
        def next(self) -> float:
            waits.append(super().next())
            return waits[-1]

    monkeypatch.setattr(reader, "Backoff", Recorded)

    async def main() -> None:
        async with hub(tmp_path, server.url, username="hub", password="PASSWORD") as service:
            await until(lambda: len(waits) >= 4, "some attempts")
            assert "do not allow it" in str(service.hub.problem)

    with redis_server(tmp_path) as server, caplog.at_level(logging.INFO):
        server.client().hset(fleet.NODES, "desk:5a", NodeInfo(node="desk", store="5a").model_dump_json())
        server.client().execute_command(
            "ACL", "SETUSER", "hub", "on", ">PASSWORD", "allkeys", "allchannels", "+@all", f"-{missing}"
        )
        run(main)
    assert waits[3] > 2 * waits[0]
    assert caplog.text.count("do not allow it") == 1 and "connected to" not in caplog.text


@pytest.mark.parametrize("tls", [False, True])
def test_wrong_credentials_and_encryption_are_the_hubs_problem(tmp_path: Path, tls: bool) -> None:
    async def main() -> None:
        url = server.url.replace("rediss", "redis")
        async with hub(tmp_path, url, **({} if tls else {"password": "wrong"})) as service:
            await until(lambda: service.hub.problem, "the problem")
            expected = "demands TLS; use rediss://" if tls else "refuses the user name or password"
            assert expected in str(service.hub.problem) and "wrong" not in str(service.hub.problem)

    with redis_server(tmp_path, *(() if tls else ("--requirepass", "right")), tls=tls) as server:
        run(main)
