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
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from engine.errors import OutputError
from stream.events.query import Reader
from stream.outlets.fleet import events_key
from tests.redis_server import RedisServer
from tests.soak.command import Record, command_line, finish, spread
from tests.soak.fleet_figures import Kill, differences, outages, redis_figures, undisturbed, violations
from tests.soak.fleet_parts import PATIENCE_S, Client, Fleet, serve_node

SETTLED_S = 0.5
DOWN_S = (0.2, 3.0)
"""How long something that was killed stays down."""


@dataclass(frozen=True)
class Plan:
    """A run: nodes, final events a second of each, its length, how often redis, a node and the hub are killed, and the seed."""

    nodes: int
    rate: float
    seconds: float
    kills: dict[str, int]
    seed: int = 0
    catch_up: bool = False


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
        before = fleet.cpu_s()
        kills += await disturb(fleet, planned, plan.seconds)
        calm_until, used = time.time(), {name: cpu - before[name] for name, cpu in fleet.cpu_s().items() if name in before}
        await client.until(lambda: all(client.has_since(node, kills[-1].again) for node in fleet.nodes), "all nodes' return")
        fleet.stop_events()
        stored = await settled(fleet)
        total = sum(map(len, stored.values()))
        await client.until(lambda: len(client.events) >= total, f"all {total} events")
        loss_s = await loss_shown(fleet, client)
        redis = await asyncio.to_thread(redis_figures, fleet.redis)
        following.cancel()
        rates = await catch_up_rates(fleet, stored) if plan.catch_up else {}
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
        "cpu_of_those_never_killed": {name: round(cpu / plan.seconds, 3) for (name, _), cpu in used.items()},
        "redis": redis,
        **rates,
    }


async def settled(fleet: Fleet) -> dict[str, list[str]]:
    """The ids of each node's events, once they have not changed for a while: the last ones may still have been stored."""
    stored: dict[str, list[str]] = {}
    while stored != (now := {name: ids_stored(fleet.data(name)) for name in fleet.nodes}):
        stored = now
        await asyncio.sleep(SETTLED_S)
    return stored


def ids_stored(folder: Path) -> list[str]:
    """The ids of a node's events, in order of their numbers."""
    with Reader(folder) as reader:
        return [event["id"] for event in reader.since(0, limit=sys.maxsize)]


async def loss_shown(fleet: Fleet, client: Client) -> float:
    """Seconds from the kill of a node until the client hears of it."""
    name = fleet.nodes[0]
    await client.until(lambda: [state for node, state, _ in client.nodes if node == name][-1:] == ["live"], "a live node")
    killed = time.time()
    await fleet.kill(name)

    def losses() -> list[float]:
        return [at for node, state, at in client.nodes if node == name and state == "lost" and at > killed]

    await client.until(losses, "the loss")
    return losses()[0] - killed


async def catch_up_rates(fleet: Fleet, stored: dict[str, list[str]]) -> dict[str, float]:
    """How many events a second a hub reads that has none yet, and a node publishes to a Redis that came back empty."""
    total = sum(map(len, stored.values()))
    await fleet.kill("hub")
    shutil.rmtree(fleet.data("hub"))
    await fleet.start("hub")
    client = Client()
    following = asyncio.create_task(client.follow(fleet.port))
    try:
        await client.until(lambda: len(client.events) >= total, "all events at a new hub")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    reading_s = client.events[-1].received - client.events[0].received
    await fleet.kill("hub")
    await fleet.kill("redis")
    fleet.redis.forget()
    await fleet.start("redis")
    name = fleet.nodes[-1]
    publishing = await asyncio.to_thread(publishing_rate, fleet.redis, name, len(stored[name]))
    return {
        "hub_catches_up_per_s": round(total / max(reading_s, 1e-3)),
        "node_catches_up_per_s": round(publishing),
    }


def publishing_rate(server: RedisServer, node: str, events: int) -> float:
    """Events a second that a node appends, from the first that Redis has of it until it has so many."""
    client, until, began, first = server.client(), time.monotonic() + PATIENCE_S, 0.0, 0
    while time.monotonic() < until:
        keys: Any = client.keys(events_key(node, "*"))
        there = sum(int(client.xlen(key)) for key in keys)
        if there and not began:
            began, first = time.monotonic(), there
        if there >= events:
            return (there - first) / max(time.monotonic() - began, 1e-3)
        time.sleep(0.002)
    raise OutputError(f"after {PATIENCE_S:.0f} s Redis has not all {events} events of a node")


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
    console, load, nice = Console(stderr=True), os.getloadavg()[0], os.nice(0)
    counts = {"redis": redis_kills, "node": node_kills, "hub": hub_kills}
    plan = Plan(nodes, rate, seconds, counts, seed, catch_up=True)
    with tempfile.TemporaryDirectory(prefix="apexstream-soak-") as folder:
        found = asyncio.run(soak(Path(folder), plan))
    console.print(found)
    command = (
        f"nice -n {nice} "
        * bool(nice)
        + f"python -m tests.soak.fleet --seconds {seconds:g} --rate {rate:g} --nodes {nodes} --redis-kills {redis_kills} "
        f"--node-kills {node_kills} --hub-kills {hub_kills} --seed {seed}"
    )
    machine = {"cores": os.cpu_count(), "load": [round(load, 1), round(os.getloadavg()[0], 1)]}
    finish({"command": command, **machine, **found}, violations(found, counts), json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
