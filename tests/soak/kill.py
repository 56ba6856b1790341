"""Kills the live service under load at random moments, and checks whether any event was lost or came twice.

    python -m tests.soak.kill [--times 50] [--rate 200 | --source CLIP] [--life 1.5] [--seed 0] [--json FILE]

The service is the real one (store, hub, server) in a process of its own; its events are made up, some hundreds a second, in
bursts. With --source it is `apexstream live CLIP --loop`, whose events are the clip's: fewer, and the whole way (the record's
clip: `python -m lab.make_clip --seconds 20 --events 6 --out killclip.mp4`). A client
follows all the while and resumes with since after each kill (SIGKILL); it keeps everything it is sent. After
each kill, with nothing running, the store is examined; every fifth kill comes while the service is starting.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from apexstream.bench.live_process import import_environment
from engine.errors import OutputError
from stream.messages import Decided
from stream.service import Service
from stream.settings import LiveSettings, ServerSettings, StoreSettings
from tests.events import decided
from tests.soak import ROOT
from tests.soak.command import Record, command_line, finish
from tests.soak.recording_client import PATIENCE_S, RecordingClient, connected, examined, violations

BURST = 20


@dataclass(frozen=True)
class Target:
    """Where a service keeps its events, where it listens, and its events: so many a second, or those of a source."""

    folder: Path
    port: int
    rate: float = 0.0
    source: str | None = None

    def command(self, run: int) -> list[str]:
        """What starts a service here."""
        if self.source is not None:
            options = ["--loop", "--listen", f"127.0.0.1:{self.port}", "--data", str(self.folder)]
            return [sys.executable, "-m", "apexstream", "live", self.source, *options]
        options = ["--serve", str(self.folder), "--port", str(self.port), "--rate", str(self.rate), "--run", str(run)]
        return [sys.executable, "-m", "tests.soak.kill", *options]


@dataclass(frozen=True)
class Kill:
    """One kill: events stored so far, how many of them the client had not seen yet, whether it came at the service's start."""

    events: int
    unseen: int
    starting: bool


def made_up(run: int, number: int) -> list[Decided]:
    """A provisional and a final event that no other run and number have."""
    stream, label = f"stream {number % 3}", ("negative", "positive", "surprise")[number % 3]
    states: tuple[Literal["provisional", "final"], ...] = ("provisional", "final")
    return [decided(number, id=f"{run}-{number}", stream=stream, label=label, state=state) for state in states]


def service_at(target: Target) -> Service:
    """The real service, without sources."""
    store = StoreSettings(folder=target.folder, keep_days=None, keep_bytes=None)
    return Service(LiveSettings(server=ServerSettings(port=target.port), store=store))


async def serve_made_up_events(target: Target, run: int) -> None:
    """The service with made-up events, until it is killed."""
    async with service_at(target) as service:
        number = 0
        while True:
            burst = random.randint(1, BURST)
            for _ in range(burst):
                for event in made_up(run, number):
                    service.hub.post(event)
                number += 1
            await asyncio.sleep(burst / target.rate)


async def soak(
    target: Target, times: int, lives: Iterator[float], progress: Callable[[int, Kill], None]
) -> tuple[list[Kill], list[str], RecordingClient]:
    """Kill a service so many times, after so many seconds: the kills, what was found wrong, and what the client saw."""
    client = RecordingClient()
    watching = asyncio.create_task(client.watch(target.port))
    kills: list[Kill] = []
    problems: list[str] = []
    try:
        for run in range(1, times + 1):
            starting = run % 5 == 0
            await one_life(target, run, None if starting else client, next(lives))
            seen = list(client.seen)
            events, wrong = await asyncio.to_thread(examined, target.folder, seen)
            problems += [f"after kill {run}: {sentence}" for sentence in wrong]
            kills.append(Kill(len(events), len(events) - len(seen), starting))
            progress(run, kills[-1])
        problems += await at_the_end(target, client)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return kills, problems, client


async def one_life(target: Target, run: int, client: RecordingClient | None, life_s: float) -> None:
    """Start a service and kill it life_s after the client received from it, or after its start where there is no client."""
    log = target.folder.parent / "service.log"
    with log.open("ab") as heard:
        service = await asyncio.create_subprocess_exec(
            *target.command(run), cwd=ROOT, env=import_environment(), stdout=heard, stderr=heard
        )
    try:
        if client is not None:
            await until_seen(client, service, log)
        await asyncio.sleep(life_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            service.kill()
        await service.wait()


async def until_seen(client: RecordingClient, service: asyncio.subprocess.Process, log: Path) -> None:
    """Return once the client saw another event. Raises OutputError with the end of the service's log where none comes."""
    seen, gone = asyncio.create_task(client.until(client.seq + 1)), asyncio.create_task(service.wait())
    await asyncio.wait({seen, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not seen.done() or seen.exception() is not None:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise OutputError(f"the service sent no event; the end of its log: {' / '.join(last) or 'nothing'}")
    gone.cancel()


async def at_the_end(target: Target, client: RecordingClient) -> list[str]:
    """Let the client catch up with a last service, and others replay all and a part: what is wrong with what they saw."""
    async with service_at(target) as service:
        last = service.store.last
        await client.until(last)
        events = await service.hub.stored(0, limit=last)
        problems = [f"the client that followed: {sentence}" for sentence in violations(events, client.seen)]
        if len(client.seen) != last:
            problems.append(f"the client that followed saw {len(client.seen)} of {last} events")
        for since in (0, last // 2):
            replayed = []
            async with asyncio.timeout(PATIENCE_S), connected(target.port, since) as received:
                async for event in received:
                    replayed.append(event)
                    if event["seq"] >= last:
                        break
            if replayed != events[since:]:
                problems.append(
                    f"a client with since={since} was sent {len(replayed)} events that are not the {last - since} stored"
                )
    return problems


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(
    *,
    times: Annotated[int, typer.Option(min=1, help="How often the service is killed.")] = 50,
    rate: Annotated[float, typer.Option(help="Final events a second.")] = 200.0,
    source: Annotated[
        str | None, typer.Option(metavar="CLIP", help="Kill `apexstream live CLIP --loop`, instead of made-up events.")
    ] = None,
    life: Annotated[float, typer.Option(help="The longest that a service lives after an event, seconds.")] = 1.5,
    seed: Annotated[int, typer.Option(help="Of the moments at which it is killed.")] = 0,
    json: Record = None,
    serve: Annotated[Path | None, typer.Option(hidden=True)] = None,
    port: Annotated[int, typer.Option(hidden=True)] = 0,
    run: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Kill the service, and compare what was stored with what a client saw; --serve is the service that is killed."""
    if serve is not None:
        asyncio.run(serve_made_up_events(Target(serve, port, rate), run))
    console, started, chance = Console(stderr=True), time.monotonic(), random.Random(seed)

    def progress(number: int, kill: Kill) -> None:
        if number % 5 == 0 or number == times:
            console.print(f"{number} kills, {kill.events} events stored")

    lives = iter(lambda: chance.uniform(0, life), None)
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder) / "events", free_port(), rate, source)
        target.folder.mkdir()
        kills, problems, client = asyncio.run(soak(target, times, lives, progress))
    figures = {
        "kills": len(kills),
        "kills_while_starting": sum(kill.starting for kill in kills),
        "events_stored": kills[-1].events,
        "events_stored_but_unseen_at_a_kill": sum(kill.unseen for kill in kills),
        "events_seen": len(client.seen),
        "connections": client.connections,
        "problems": len(problems),
    }
    table = Table("what", "how many", title="The service killed under load")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    events = f"--rate {rate:g}" if source is None else f"--source {Path(source).name}"
    command = f"python -m tests.soak.kill --times {times} {events} --life {life:g} --seed {seed}"
    minutes = round((time.monotonic() - started) / 60, 1)
    record = {"command": command, "minutes": minutes, **figures, "kills_in_order": [asdict(kill) for kill in kills]}
    finish(record, problems, json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
