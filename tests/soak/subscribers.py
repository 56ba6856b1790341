"""A thousand clients follow one service: how long each event takes from decision to receipt, and whether any is missing.

The service (store, hub, server) runs in a process of its own; a thread of it decides events at the given rate, as an analysis
would. The clients share a second process. Two rounds: all of them read; then some of them never do, and must be dropped while
the others go on as before.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import platform
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from engine.errors import ApexError
from stream.messages import Decided
from stream.service import Service
from stream.settings import LiveSettings, ServerSettings, StoreSettings
from tests.events import an_event
from tests.soak.command import Record, command_line, finish, unmet
from tests.soak.crowd import Crowd

P99_MS = 150.0
"""From decision to receipt, for 99 in 100 receipts."""
WORSE = 1.25
"""With clients that never read, p99 of the others may be so much of what it was."""
JOIN_S = 60.0
LAST_S = 30.0
STREAMS = ("lobby", "desk", "studio", "door")


def measure(readers: int, stuck: int, *, rate: float, events: int, buffer_bytes: int = 1 << 20) -> dict[str, Any]:
    """One round with a fresh service; times in milliseconds from decision to receipt, over all receipts. Raises ApexError where
    it does not come up, or a client is refused."""
    with tempfile.TemporaryDirectory() as folder, _ServiceProcess(Path(folder), rate, events, buffer_bytes) as service:
        crowd = Crowd(service.port, readers=readers, stuck=stuck, events=events)
        try:
            return _measured(service, crowd, readers, stuck, rate=rate, events=events)
        finally:
            crowd.close()


def _measured(service: _ServiceProcess, crowd: Crowd, readers: int, stuck: int, *, rate: float, events: int) -> dict[str, Any]:
    service.until_joined(readers + stuck, crowd)
    cpu, started = time.process_time(), time.monotonic()
    service.pipe.send("go")
    crowd.watch(service.pipe.poll)
    decided, service_cpu, memory_mib = service.receive()
    passed, cpu = time.monotonic() - started, time.process_time() - cpu
    until = time.monotonic() + LAST_S
    crowd.watch(lambda: time.monotonic() > until or (crowd.complete(events) and len(crowd.dropped_at) == stuck))
    took = 1000 * (crowd.came - np.array(decided))
    delays = took[~np.isnan(took)]
    p50, p99, most = (float(value) for value in np.percentile(delays, [50, 99, 100])) if delays.size else (np.nan,) * 3
    dropped = [round(at - started, 1) for at in crowd.dropped_at]
    return {
        "readers": readers,
        "stuck": stuck,
        "events": events,
        "rate": rate,
        "receipts": int(delays.size),
        "lost": int(np.isnan(took).sum()),
        "twice": crowd.twice,
        "readers_gone": crowd.gone,
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "max_ms": round(most, 2),
        "stuck_dropped": len(dropped),
        "last_dropped_after_s": max(dropped, default=None),
        "service_cpu": round(service_cpu / passed, 3),
        "clients_cpu": round(cpu / passed, 3),
        "service_memory_mib": round(memory_mib, 1),
    }


def violations(rounds: Sequence[dict[str, Any]]) -> list[str]:
    """What is not within the limits, in sentences."""
    checks = {}
    for one in rounds:
        name = f"with {one['stuck']} that never read" if one["stuck"] else "with all reading"
        checks[f"{name}: p99 is {one['p99_ms']} ms, not under {P99_MS:.0f}"] = one["p99_ms"] < P99_MS
        checks[f"{name}: {one['lost']} receipts are missing"] = not one["lost"]
        checks[f"{name}: {one['twice']} events came twice"] = not one["twice"]
        checks[f"{name}: {one['readers_gone']} that read were cut off"] = not one["readers_gone"]
        checks[f"{name}: {one['stuck_dropped']} of {one['stuck']} were dropped"] = one["stuck_dropped"] == one["stuck"]
    first, last = rounds[0]["p99_ms"], rounds[-1]["p99_ms"]
    checks[f"p99 of the others went from {first} to {last} ms, more than a quarter"] = len(rounds) < 2 or last <= WORSE * first
    return unmet(checks)


class _ServiceProcess:
    """The service's process, from outside; pipe is the connection to it."""

    def __init__(self, folder: Path, rate: float, events: int, buffer_bytes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, self._there = context.Pipe()
        arguments = (self._there, folder, rate, events, buffer_bytes)
        self._process = context.Process(target=_run_service, args=arguments, daemon=True)

    def __enter__(self) -> _ServiceProcess:
        self._process.start()
        self._there.close()
        self.port = int(self.receive())
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self.pipe.send("end")
        self._process.join(10)
        self._process.kill()

    def receive(self) -> Any:
        """What it sends next. Raises ApexError where it has ended."""
        try:
            return self.pipe.recv()
        except EOFError as error:
            raise ApexError("the service ended early") from error

    def until_joined(self, clients: int, crowd: Crowd) -> None:
        """Wait until all clients get what is sent. Raises ApexError."""
        until = time.monotonic() + JOIN_S

        def joined() -> bool:
            if time.monotonic() > until:
                raise ApexError(f"after {JOIN_S:.0f} s not all {clients} clients have joined")
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=JOIN_S) as answer:
                return f"apexstream_subscribers {float(clients)}" in answer.read().decode()

        crowd.watch(joined)


def _run_service(pipe: Connection, folder: Path, rate: float, events: int, buffer_bytes: int) -> None:
    asyncio.run(_serve(pipe, folder, rate, events, buffer_bytes))


async def _serve(pipe: Connection, folder: Path, rate: float, events: int, buffer_bytes: int) -> None:
    """The process of the service: its port, then at "go" the events, then what they took, until "end"."""
    settings = LiveSettings(server=ServerSettings(port=0, buffer_bytes=buffer_bytes), store=StoreSettings(folder=folder))
    loop = asyncio.get_running_loop()
    async with Service(settings) as service:
        pipe.send(service.server.port)
        if await loop.run_in_executor(None, pipe.recv) == "end":
            return
        before = time.process_time()
        decided: list[float] = []
        source = threading.Thread(target=_decide, args=(loop, service, rate, events, decided), name="source")
        source.start()
        await loop.run_in_executor(None, source.join)
        while service.hub.seq < events:
            await asyncio.sleep(0.01)
        pipe.send((decided, time.process_time() - before, _most_memory_mib()))
        await loop.run_in_executor(None, pipe.recv)


def _decide(loop: asyncio.AbstractEventLoop, service: Service, rate: float, events: int, decided: list[float]) -> None:
    """Final events at an even pace, handed to the loop as an analysis' thread does."""
    never, started = threading.Event(), time.monotonic()
    for k in range(events):
        never.wait(max(0.0, started + k / rate - time.monotonic()))
        now = time.monotonic()
        decided.append(now)
        event = an_event(k, stream=STREAMS[k % len(STREAMS)])
        loop.call_soon_threadsafe(service.hub.post, Decided(event, now))


def _most_memory_mib() -> float:
    """This program's own; getrusage would count what its parent held when it was started."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _table(rounds: Sequence[dict[str, Any]]) -> Table:
    table = Table("", *(f"{one['readers']} read, {one['stuck']} never" for one in rounds))
    for name in rounds[0]:
        table.add_row(name.replace("_", " "), *(str(one[name]) for one in rounds))
    return table


def main(
    *,
    subscribers: Annotated[int, typer.Option(help="Clients at once.")] = 1000,
    rate: Annotated[float, typer.Option(help="Final events a second.")] = 20.0,
    minutes: Annotated[float, typer.Option(help="Length of a round.")] = 5.0,
    stuck: Annotated[int, typer.Option(help="Clients that never read in the second round; 0: no second round.")] = 50,
    json: Record = None,
) -> None:
    """Run both rounds and compare their delays with the limits."""
    load, nice = round(os.getloadavg()[0], 2), os.nice(0)
    events = round(rate * minutes * 60)
    rounds = [measure(subscribers, 0, rate=rate, events=events)]
    if stuck:
        rounds.append(measure(subscribers - stuck, stuck, rate=rate, events=events))
    Console().print(_table(rounds))
    options = f"--subscribers {subscribers} --rate {rate:g} --minutes {minutes:g} --stuck {stuck}"
    record = {
        "command": f"nice -n {nice} " * bool(nice) + f"python -m tests.soak.subscribers {options}",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load_before": load},
        "rounds": rounds,
    }
    finish(record, violations(rounds), json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
