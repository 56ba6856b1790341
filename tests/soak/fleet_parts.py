"""The parts of a fleet in processes of their own, which can be killed, and a client of its hub."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from apexstream.bench.live_process import import_environment
from engine.errors import OutputError
from stream.client import Place, Remote, follow
from stream.outlets.settings import RedisSettings
from stream.protocol import Subscribe
from stream.service import Service
from stream.settings import LiveSettings, ServerSettings, StoreSettings
from tests.broker import free_port
from tests.events import decided
from tests.redis_server import RedisServer
from tests.soak import ROOT

PATIENCE_S = 120.0


@dataclass(frozen=True)
class Received:
    """A final event at the client: its node, the node's number and id of it, when it was decided and received (Unix time)."""

    node: str
    seq: int
    id: str
    decided: float
    received: float


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
            elif message["type"] in ("hello", "node"):
                states = message["nodes"] if message["type"] == "hello" else [message]
                self.nodes += [(one["name"], one["state"], now) for one in states]
            self.came.set()

    def has_since(self, node: str, moment: float) -> bool:
        """Whether it has an event of the node that was decided after a moment."""
        return any(event.node == node and event.decided > moment for event in reversed(self.events))

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

    async def start(self, name: str) -> None:
        """Start a node, the hub or redis."""
        if name == "redis":
            await asyncio.to_thread(self.redis.start)
            return
        self._runs += 1
        if name == "hub":
            command = ["apexstream", "hub", "--subscribe", self.redis.url, "--listen", f"127.0.0.1:{self.port}"]
        else:
            made = ["--rate", str(self.rate), "--run", str(self._runs)]
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

    def stop_events(self) -> None:
        """Have the nodes decide no more events, but go on publishing."""
        for name in self.nodes:
            self._processes[name].send_signal(signal.SIGUSR1)

    def cpu_s(self) -> dict[tuple[str, int], float]:
        """The processor seconds of each process, by name and process id."""
        pids = {name: process.pid for name, process in self._processes.items()} | {"redis": self.redis.pid}
        times = {(name, pid): psutil.Process(pid).cpu_times() for name, pid in pids.items()}
        return {key: used.user + used.system for key, used in times.items()}

    async def close(self) -> None:
        """End all of it."""
        for name in [*self._processes, "redis"]:
            await self.kill(name)


async def serve_node(folder: Path, url: str, name: str, rate: float, run: int) -> None:
    """A node with made-up events at an even pace, until SIGUSR1."""
    settings = LiveSettings(
        server=ServerSettings(port=0),
        store=StoreSettings(folder=folder, keep_days=None, keep_bytes=None),
        redis=RedisSettings(url=url, node=name),
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop.set)
    async with Service(settings) as service:
        started, number = time.monotonic(), 0
        while not stop.is_set():
            service.hub.post(decided(number, id=f"{name}-{run}-{number}", stream=f"camera {number % 2 + 1}"))
            number += 1
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
        await asyncio.Event().wait()  # what is left is published
