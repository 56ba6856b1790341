"""What a fleet's services cost: a real redis-server and a real `apexstream hub`, by their processor time."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from apexstream.bench.live_process import import_environment
from apexstream.bench.timing import timed
from engine.errors import ApexError
from stream.outlets import fleet
from stream.outlets.fleet import NodeInfo, NodeState, StreamState
from stream.outlets.redis_connection import client
from stream.outlets.settings import RedisSettings

if TYPE_CHECKING:
    from stream.outlets.redis_connection import Client

ENTRIES = 20_000
AT_ONCE = 50
STREAMS = (1, 100, 1000)
READS = 500
CAMERAS, SLICES = 10, 100
WARM_S, FLEET_S = 4, 20
LEASE_MS = round(1000 * fleet.LEASE_S)
REPLY_S = 60.0
NODE = NodeInfo(node="measured", store="0123456789abcdef")


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[tuple[RedisSettings, int]]:
    """The system's redis-server with its append-only file in folder: how to reach it, and its process. Raises ApexError."""
    program = shutil.which("redis-server")
    if program is None:
        raise ApexError("redis-server is not installed; on Debian: apt-get install redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "yes"]
    with subprocess.Popen([program, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not any("Ready to accept connections" in line for line in process.stdout):
                raise ApexError("redis-server did not start")
            yield RedisSettings(url=f"redis://127.0.0.1:{port}/0"), process.pid
        finally:
            process.terminate()


def cpu_ms(pid: int, calls: int, work: Callable[[], object]) -> float:
    """Milliseconds of a process' processor time per call that some work makes it do."""
    process = psutil.Process(pid)

    def used() -> float:
        return sum(process.cpu_times()[:2])

    before = used()
    work()
    return round(1000 * (used() - before) / calls, 5)


def redis_costs(folder: Path, body: str, trace: bytes) -> dict[str, Any]:
    """Milliseconds of the server's processor time, bytes of memory and file; body and trace: JSON of an event and a trace."""
    with redis_server(folder) as (settings, pid), contextlib.closing(client(settings, "measure")) as redis:
        empty = int(redis.info("memory")["used_memory"])
        one = cpu_ms(pid, ENTRIES, lambda: _append(redis, "one", body, 1))
        memory = (int(redis.info("memory")["used_memory"]) - empty) / ENTRIES
        many = cpu_ms(pid, ENTRIES, lambda: _append(redis, "many", body, AT_ONCE))
        reads = {}
        for streams in STREAMS:
            keys = _streams(redis, streams, body)
            spent = time.process_time()
            server = cpu_ms(pid, READS, partial(_read, redis, keys))
            reads[str(streams)] = {"server_ms": server, "client_ms": round(1000 * (time.process_time() - spent) / READS, 5)}
        published = cpu_ms(pid, ENTRIES, lambda: _publish(redis, settings, trace))
        trips = [timed(redis.ping, time.perf_counter)[0] for _ in range(1000)]
        written = sum(path.stat().st_size for path in folder.rglob("*.aof"))
        version = str(redis.info("server")["redis_version"])
    return {
        "version": version,
        "xadd_ms": one,
        "xadd_ms_50_at_once": many,
        "xread_by_streams": reads,
        "publish_ms": published,
        "round_trip_ms": round(1000 * float(np.median(trips)), 3),
        "memory_bytes_per_event": round(memory),
        "file_bytes_per_event": round(written / (2 * ENTRIES)),
    }


def hub_costs(folder: Path, body: str, trace: bytes) -> dict[str, Any]:
    """Milliseconds of the hub's processor time of an event, a trace and a node's state, one subscriber. Raises ApexError."""
    with redis_server(folder) as (settings, _), contextlib.closing(client(settings, "measure")) as redis:
        redis.hset(fleet.NODES, fleet.node_field(NODE.node, NODE.store), NODE.model_dump_json())
        with _hub(folder / "hub", settings) as (url, pid), _subscriber(url) as subscriber:
            events = cpu_ms(pid, ENTRIES, lambda: _events_through(redis, subscriber, body))
            traces = cpu_ms(pid, ENTRIES, lambda: _traces_through(redis, subscriber, trace))
    return {"event_ms": events, "signal_ms": traces}


def fleet_costs(folder: Path, nodes: int, rate: float, body: str, trace: bytes) -> dict[str, Any]:
    """A hub with one subscriber, and Redis, while so many made-up nodes with ten cameras each say every second how they are,
    and together append rate events a second: the cores that each keeps busy, and the longest time that the hub took, after
    the states of a second, to read them."""
    made_up = MadeUpNodes(nodes, rate, body)
    with redis_server(folder) as (settings, server), contextlib.closing(client(settings, "measure")) as redis:
        made_up.register(redis)
        with _hub(folder / "hub", settings) as (url, pid), _subscriber(url) as subscriber:
            for _ in range(WARM_S):
                made_up.second(redis, subscriber, trace)
            hub, server_ = psutil.Process(pid), psutil.Process(server)
            began, before = time.monotonic(), [sum(one.cpu_times()[:2]) for one in (hub, server_)]
            late = [made_up.second(redis, subscriber, trace) for _ in range(FLEET_S)]
            took = time.monotonic() - began
            busy = [(sum(one.cpu_times()[:2]) - at) / took for one, at in zip((hub, server_), before, strict=True)]
            _until_received(subscriber, '"type":"expression"', made_up.appended - made_up.received)
    return {
        "nodes": nodes,
        "events_a_second": round(made_up.appended / (WARM_S + FLEET_S), 1),
        "hub_cores": round(busy[0], 4),
        "redis_cores": round(busy[1], 4),
        "late_s": round(max(late), 3),
    }


class MadeUpNodes:
    """What so many nodes publish, together rate events a second: SLICES times a second their share of it. appended and
    received count events."""

    def __init__(self, nodes: int, rate: float, body: str) -> None:
        self._infos = [NODE.model_copy(update={"node": f"node-{number}"}) for number in range(nodes)]
        streams = tuple(
            StreamState(stream=f"camera-{number}", kind="rtsp", state="live", fps=30.0) for number in range(CAMERAS)
        )
        made = (NodeState(**info.model_dump(), instance="measured", streams=streams) for info in self._infos)
        self._states = [(state, state.model_dump_json()) for state in made]
        self._rate, self._body, self._due = rate, body, 0.0
        self.appended = self.received = 0

    def register(self, redis: Client) -> None:
        """Have Redis list them."""
        for info in self._infos:
            redis.hset(fleet.NODES, fleet.node_field(info.node, info.store), info.model_dump_json())

    def second(self, redis: Client, subscriber: ClientConnection, trace: bytes) -> float:
        """Publish what a second has; the seconds until a trace that is sent then has come."""
        began = time.monotonic()
        for part in range(SLICES):
            self._due += self._rate / SLICES
            with redis.pipeline(transaction=False) as commands:
                for state, text in self._states[part::SLICES]:  # as a node does, but for the round trips
                    commands.publish(fleet.live_channel(state.node), text)
                    commands.set(fleet.name_key(state.node), state.instance, nx=True, px=LEASE_MS)
                    commands.get(fleet.name_key(state.node))
                    commands.set(fleet.state_key(state.node, state.store), text, px=LEASE_MS)
                    commands.hset(fleet.NODES, fleet.node_field(state.node, state.store), state.info.model_dump_json())
                    commands.pexpire(fleet.name_key(state.node), LEASE_MS)
                while self.appended + 1 <= self._due:
                    turn, of = divmod(self.appended, len(self._infos))
                    key = fleet.events_key(self._infos[of].node, NODE.store)
                    commands.xadd(key, {fleet.EVENT: self._body}, id=f"{turn + 1}-0")
                    self.appended += 1
                commands.execute()
            time.sleep(max(0.0, began + (part + 1) / SLICES - time.monotonic()))
        redis.publish(fleet.live_channel(self._infos[0].node), trace)
        sent = time.monotonic()
        while '"type":"signal"' not in (message := str(subscriber.recv(timeout=REPLY_S))):
            self.received += '"type":"expression"' in message
        return time.monotonic() - sent


@contextlib.contextmanager
def _hub(folder: Path, settings: RedisSettings) -> Iterator[tuple[str, int]]:
    """`apexstream hub`, once it serves: its websocket's address, and its process."""
    command = [sys.executable, "-m", "apexstream", "hub", "--subscribe", settings.url]
    command += ["--listen", "127.0.0.1:0", "--data", str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=import_environment()
    ) as process:
        try:
            assert process.stdout is not None
            found = next(filter(None, (re.search(r"ws://\S+", line) for line in process.stdout)), None)
            if found is None:
                raise ApexError("the hub did not start")
            yield found[0], process.pid
        finally:
            process.terminate()


@contextlib.contextmanager
def _subscriber(url: str) -> Iterator[ClientConnection]:
    """A redis of the hub that is sent what comes from now on."""
    address = f"{url.rstrip('/')}/?type=expression&type=signal"
    with connect(address, subprotocols=[Subprotocol("apexstream.v1")], max_size=None) as socket_:
        socket_.recv(timeout=REPLY_S)
        yield socket_


def _events_through(redis: Client, subscriber: ClientConnection, body: str) -> None:
    _append(redis, fleet.events_key(NODE.node, NODE.store), body, AT_ONCE)
    _until_received(subscriber, '"type":"expression"', ENTRIES)


def _traces_through(redis: Client, subscriber: ClientConnection, trace: bytes) -> None:
    for _ in range(0, ENTRIES, AT_ONCE):  # no more at once, or the hub would leave out traces, as it may
        with redis.pipeline(transaction=False) as commands:
            for _ in range(AT_ONCE):
                commands.publish(fleet.live_channel(NODE.node), trace)
            commands.execute()
        _until_received(subscriber, '"type":"signal"', AT_ONCE)


def _until_received(subscriber: ClientConnection, kind: str, count: int) -> None:
    left = count
    while left:
        left -= kind in str(subscriber.recv(timeout=REPLY_S))


def _append(redis: Client, key: str, body: str, at_once: int) -> None:
    """As a node does: one transaction a page, the seq as the entry's id."""
    for first in range(1, ENTRIES + 1, at_once):
        with redis.pipeline(transaction=True) as commands:
            for seq in range(first, first + at_once):
                commands.xadd(key, {fleet.EVENT: body}, id=f"{seq}-0", maxlen=100_000)
            commands.execute()


def _streams(redis: Client, count: int, body: str) -> dict[str, str]:
    """Streams of that many nodes, and the position in each before its only event."""
    keys = [fleet.events_key(f"node-{number}", NODE.store) for number in range(count)]
    for key in keys:
        redis.delete(key)
        redis.xadd(key, {fleet.EVENT: body}, id="1-0")
    return {keys[0]: "0-0"} | dict.fromkeys(keys[1:], "1-0")


def _read(redis: Client, positions: dict[str, str]) -> None:
    """As the hub does when an event of one node has come."""
    for _ in range(READS):
        redis.xread(positions, count=1)  # type: ignore[arg-type]


def _publish(redis: Client, settings: RedisSettings, trace: bytes) -> None:
    """Publish to one listener, each when the one before has been heard."""
    listener = client(settings, "listener").pubsub()  # type: ignore[no-untyped-call]
    listener.subscribe("traces")
    listener.get_message(timeout=REPLY_S)
    for _ in range(ENTRIES):
        redis.publish("traces", trace)
        if listener.get_message(timeout=REPLY_S) is None:
            raise ApexError(f"redis-server passed nothing on within {REPLY_S:g} s")
    listener.close()
