"""A fleet whose Redis, nodes and hub are killed at random moments: is every event at a client of the hub, once and in order?

    python -m tests.soak.fleet [--seconds 600] [--rate 20] [--redis-kills 10] [--node-kills 10] [--hub-kills 5] [--json FILE]

Nodes are the real live service with its outlet, each in a process of its own; their events are made up. Redis is the real
server (appendonly, written to disk each second), the hub `apexstream hub`; a client follows it with since. Every kill is
SIGKILL. At the end the client's events are compared with the stores of the nodes.

While all is up means: an event counts for the delays if nothing was down between its decision and its receipt. What was killed
is down until the client has from every node an event that was decided after the restart; so is the fleet at its start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from apexstream.bench.live_process import import_environment
from engine.errors import OutputError
from stream.client import Place, Remote, follow
from stream.events.query import Reader
from stream.outlets.fleet import NODES, events_key
from stream.outlets.settings import RedisSettings
from stream.protocol import Subscribe
from stream.service import Service, stop_event
from stream.settings import LiveSettings, ServerSettings, StoreSettings
from tests.broker import free_port
from tests.events import decided
from tests.redis_server import RedisServer
from tests.soak import ROOT
from tests.soak.command import Record, command_line, finish, spread, unmet

P95_MS = 100.0
LOSS_S = 5.0
PATIENCE_S = 120.0
DOWN_S = (0.2, 3.0)
"""How long something that was killed stays down."""


@dataclass(frozen=True)
class Received:
    """A final event at the client: its node, the node's number and id of it, when it was decided and received (Unix time)."""

    node: str
    seq: int
    id: str
    decided: float
    received: float


@dataclass(frozen=True)
class Kill:
    """What was killed and when, and when it was started again (Unix time)."""

    what: str
    at: float
    again: float


@dataclass
class Client:
    """Follows the hub, and keeps the final events and what it hears of nodes, with the time of receipt."""

    events: list[Received] = field(default_factory=list)
    nodes: list[tuple[str, str, float]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    losses: int = 0

    async def follow(self, port: int) -> None:
        """Keep what comes, over as many connections as needed."""
        remote = Remote(f"ws://127.0.0.1:{port}")
        async for message in follow(remote, Place(0), subscription=Subscribe(types=("expression",)), report=self._lost):
            now = time.time()
            if message["type"] == "expression" and message["state"] == "final":
                decided_at = datetime.fromisoformat(message["emitted_at"]).timestamp() - message["latency_ms"] / 1000
                self.events.append(Received(message["node"], message["node_seq"], message["id"], decided_at, now))
            elif message["type"] == "node":
                self.nodes.append((message["name"], message["state"], now))
            self.came.set()

    def _lost(self, _: str) -> None:
        self.losses += 1

    async def until(self, true: Any, what: str) -> None:
        """Return once something is true of it. Raises OutputError after PATIENCE_S."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not true():
                    self.came.clear()
                    await self.came.wait()
        except TimeoutError as error:
            raise OutputError(f"waited {PATIENCE_S:.0f} s for {what}; {len(self.events)} events came") from error


class Fleet:
    """The processes of a fleet, in a folder."""

    def __init__(self, folder: Path, nodes: int, rate: float) -> None:
        self.folder, self.rate, self.port = folder, rate, free_port()
        self.nodes = [f"node-{number + 1}" for number in range(nodes)]
        (folder / "redis").mkdir()
        self.redis = RedisServer(folder / "redis", ("--appendfsync", "everysec"))
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._runs = 0

    def data(self, name: str) -> Path:
        """Where a node or the hub stores its events."""
        return self.folder / name

    async def start(self, name: str, *, rate: float | None = None) -> None:
        """Start a node, the hub or redis."""
        if name == "redis":
            await asyncio.to_thread(self.redis.start)
            return
        self._runs += 1
        if name == "hub":
            command = ["apexstream", "hub", "--subscribe", self.redis.url, "--listen", f"127.0.0.1:{self.port}"]
        else:
            made = ["--rate", str(self.rate if rate is None else rate), "--run", str(self._runs)]
            command = ["tests.soak.fleet", "--node", name, "--redis", self.redis.url, *made]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *command, "--data", str(self.data(name))),
                cwd=ROOT,
                env=import_environment(),
                stdout=log,
                stderr=log,
            )

    async def kill(self, name: str) -> None:
        """End it at once."""
        if name == "redis":
            await asyncio.to_thread(self.redis.kill)
        elif (process := self._processes.pop(name, None)) is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def end(self, name: str) -> None:
        """End a node in order."""
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()

    async def close(self) -> None:
        """End all of it."""
        for name in [*self._processes, "redis"]:
            await self.kill(name)


async def serve_node(folder: Path, url: str, name: str, rate: float, run: int) -> None:
    """A node with made-up events at an even pace, until a signal."""
    settings = LiveSettings(
        server=ServerSettings(port=0),
        store=StoreSettings(folder=folder, keep_days=None, keep_bytes=None),
        redis=RedisSettings(url=url, node=name),
    )
    with stop_event() as stop:
        async with Service(settings) as service:
            started, number = time.monotonic(), 0
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(started + number / rate - time.monotonic() if rate else None):
                        await stop.wait()
                        break
                service.hub.post(decided(number, id=f"{name}-{run}-{number}", stream=f"camera {number % 2 + 1}"))
                number += 1


def schedule(seconds: float, counts: dict[str, int], nodes: Sequence[str], chance: random.Random) -> list[tuple[float, str]]:
    """What is killed after how many seconds: at even steps, in random order."""
    victims = [name for name, count in counts.items() for _ in range(count)]
    chance.shuffle(victims)
    step, turn = seconds / (len(victims) + 1), 0
    planned = []
    for number, victim in enumerate(victims):
        turn += victim == "node"
        name = nodes[turn % len(nodes)] if victim == "node" else victim
        planned.append((step * (number + chance.uniform(0.6, 1.4)), name))
    return sorted(planned)


async def disturb(fleet: Fleet, planned: Sequence[tuple[float, str]], seconds: float) -> list[Kill]:
    """Kill and start again what is planned, for so many seconds."""
    started, kills, chance = time.monotonic(), [], random.Random(0)
    for at, name in planned:
        await asyncio.sleep(max(0.0, started + at - time.monotonic()))
        killed = time.time()
        await fleet.kill(name)
        await asyncio.sleep(chance.uniform(*DOWN_S))
        await fleet.start(name)
        kills.append(Kill("node" if name in fleet.nodes else name, killed, time.time()))
    await asyncio.sleep(max(0.0, started + seconds - time.monotonic()))
    return kills


def outages(kills: Sequence[Kill], events: Sequence[Received], nodes: Sequence[str]) -> list[tuple[float, float]]:
    """From when to when something was down, for each kill."""
    found = []
    for kill in kills:
        back = [
            min((event.received for event in events if event.node == node and event.decided > kill.again), default=float("inf"))
            for node in nodes
        ]
        found.append((kill.at, max(back)))
    return found


def undisturbed(events: Sequence[Received], down: Sequence[tuple[float, float]]) -> list[Received]:
    """The events during whose way nothing was down."""
    return [event for event in events if all(event.received < begin or event.decided > end for begin, end in down)]


def differences(events: Sequence[Received], stored: dict[str, list[str]]) -> dict[str, int]:
    """What is wrong with the client's events; stored: by node the ids in its store, in order of their numbers."""
    lost = twice = disordered = wrong = 0
    for node, ids in stored.items():
        seqs = [event.seq for event in events if event.node == node]
        lost += len(set(range(1, len(ids) + 1)) - set(seqs))
        twice += len(seqs) - len(set(seqs))
        disordered += sum(after <= before for before, after in pairwise(seqs))
        wrong += sum(not 1 <= event.seq <= len(ids) or ids[event.seq - 1] != event.id for event in events if event.node == node)
    return {"lost": lost, "twice": twice, "out_of_order": disordered, "others_than_stored": wrong}


@dataclass(frozen=True)
class Plan:
    """A run: nodes, final events a second of each, its length, how often redis, a node and the hub are killed, and the seed."""

    nodes: int
    rate: float
    seconds: float
    kills: dict[str, int]
    seed: int = 0


async def soak(folder: Path, plan: Plan) -> dict[str, Any]:
    """One run: its figures. Raises OutputError where the fleet does not come up, or events never arrive."""
    fleet, client, began = Fleet(folder, plan.nodes, plan.rate), Client(), time.time()
    following = asyncio.create_task(client.follow(fleet.port))
    try:
        for name in ("redis", *fleet.nodes, "hub"):
            await fleet.start(name)
        kills = [Kill("nothing", began, time.time())]
        await client.until(lambda: {event.node for event in client.events} == set(fleet.nodes), "events of every node")
        planned = schedule(plan.seconds, plan.kills, fleet.nodes, random.Random(plan.seed))
        kills += await disturb(fleet, planned, plan.seconds)
        calm_until = time.time()
        for name in fleet.nodes:
            await fleet.end(name)
            await fleet.start(name, rate=0.0)  # publishes what is left
        stored = {name: ids_stored(fleet.data(name)) for name in fleet.nodes}
        total = sum(map(len, stored.values()))
        await client.until(lambda: len(client.events) >= total, f"all {total} events")
        loss_s = await loss_shown(fleet, client)
        redis = await asyncio.to_thread(redis_figures, fleet.redis)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await fleet.close()
    down = [*outages(kills, client.events, fleet.nodes), (calm_until, float("inf"))]
    delays = [1000 * (event.received - event.decided) for event in client.events]
    calm = [1000 * (event.received - event.decided) for event in undisturbed(client.events, down)]
    return {
        "events_stored": total,
        "events_received": len(client.events),
        **differences(client.events, stored),
        "kills": {what: sum(kill.what == what for kill in kills) for what in ("redis", "node", "hub")},
        "connections_lost_by_the_client": client.losses,
        "delay_ms_while_all_is_up": spread(calm, 1),
        "delay_ms_of_all": spread(delays, 1),
        "down_s": spread([end - begin for begin, end in down if end < float("inf")], 1),
        "loss_of_a_node_shown_after_s": round(loss_s, 2),
        "redis": redis,
    }


def ids_stored(folder: Path) -> list[str]:
    """The ids of a node's events, in order of their numbers."""
    with Reader(folder) as reader:
        return [event["id"] for event in reader.since(0, limit=sys.maxsize)]


async def loss_shown(fleet: Fleet, client: Client) -> float:
    """Seconds from the kill of a node until the client was told."""
    name = fleet.nodes[0]
    await client.until(lambda: [state for node, state, _ in client.nodes if node == name][-1:] == ["live"], "a live node")
    killed = time.time()
    await fleet.kill(name)

    def told() -> list[float]:
        return [at for node, state, at in client.nodes if node == name and state == "lost" and at > killed]

    await client.until(told, "the loss")
    return told()[0] - killed


def redis_figures(server: RedisServer) -> dict[str, Any]:
    """What an event costs at Redis: bytes of memory, and the time of the commands since its last start."""
    client = server.client()
    fields: Any = client.hkeys(NODES)
    keys = [events_key(*field.split(":")) for field in fields]
    memory = sum(int(client.memory_usage(key, samples=0) or 0) for key in keys)
    entries = sum(int(client.xlen(key)) for key in keys)
    calls: Any = client.info("commandstats")
    took = {name: calls.get(f"cmdstat_{name}", {}).get("usec_per_call") for name in ("xadd", "xread", "publish")}
    return {"entries": entries, "bytes_per_event": round(memory / max(1, entries), 1), "us_per_call": took}


def violations(found: dict[str, Any], counts: dict[str, int]) -> list[str]:
    """What is not within the limits, in sentences."""
    p95 = found["delay_ms_while_all_is_up"].get("p95", float("inf"))
    checks = {
        f"{found['lost']} events are missing at the client": not found["lost"],
        f"{found['twice']} events came twice": not found["twice"],
        f"{found['out_of_order']} events came out of order": not found["out_of_order"],
        f"{found['others_than_stored']} events are others than were stored": not found["others_than_stored"],
        f"{found['events_received']} of {found['events_stored']} events came": found["events_received"]
        == found["events_stored"],
        f"95 of 100 events took up to {p95:g} ms while all was up": p95 < P95_MS,
        f"the kills were {found['kills']}, not {counts}": found["kills"] == counts,
        f"the loss of a node was shown after {found['loss_of_a_node_shown_after_s']} s": found["loss_of_a_node_shown_after_s"]
        < LOSS_S,
    }
    return unmet(checks)


def main(
    *,
    seconds: Annotated[float, typer.Option(help="Length of the run.")] = 600.0,
    rate: Annotated[float, typer.Option(help="Final events a second of each node.")] = 20.0,
    nodes: Annotated[int, typer.Option(min=1, help="Live nodes.")] = 3,
    redis_kills: Annotated[int, typer.Option(help="How often Redis is killed.")] = 10,
    node_kills: Annotated[int, typer.Option(help="How often a node is killed.")] = 10,
    hub_kills: Annotated[int, typer.Option(help="How often the hub is killed.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the moments of the kills.")] = 0,
    json: Record = None,
    node: Annotated[str | None, typer.Option(hidden=True)] = None,
    redis: Annotated[str, typer.Option(hidden=True)] = "",
    data: Annotated[Path, typer.Option(hidden=True)] = Path(),
    run: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run a fleet and kill its parts; --node is one of its nodes."""
    if node is not None:
        asyncio.run(serve_node(data, redis, node, rate, run))
        return
    console, load = Console(stderr=True), os.getloadavg()[0]
    counts = {"redis": redis_kills, "node": node_kills, "hub": hub_kills}
    plan = Plan(nodes, rate, seconds, counts, seed)
    with tempfile.TemporaryDirectory(prefix="apexstream-soak-") as folder:
        found = asyncio.run(soak(Path(folder), plan))
    console.print(found)
    command = (
        f"python -m tests.soak.fleet --seconds {seconds:g} --rate {rate:g} --nodes {nodes} --redis-kills {redis_kills} "
        f"--node-kills {node_kills} --hub-kills {hub_kills} --seed {seed}"
    )
    machine = {"cores": os.cpu_count(), "load": [round(load, 1), round(os.getloadavg()[0], 1)]}
    finish({"command": command, **machine, **found}, violations(found, counts), json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
