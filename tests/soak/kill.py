"""Kills the live service under load at random moments, and looks whether any event was lost or came twice.

    python -m tests.soak.kill [--times 50] [--rate 200 | --source CLIP] [--life 1.5] [--seed 0] [--json FILE]

The service is the real one (store, hub, server) in a process of its own; its events are made up, some hundreds a second, in
bursts. With --source it is `apexstream live CLIP --loop`, whose events are the clip's: fewer, and the whole way (the record's
clip: `python -m lab.make_clip --seconds 20 --events 6 --out killclip.mp4`). A client
follows all the while and resumes with since after each kill (SIGKILL); it forgives nothing: it keeps whatever it is sent. After
each kill, with nothing running, the store is examined; every fifth kill comes while the service is starting.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from engine.errors import OutputError
from engine.types import Event, Mark
from stream.messages import Decided
from stream.service import Service
from stream.settings import LiveSettings, ServerSettings, StoreSettings
from tests.soak.witness import PATIENCE_S, Witness, connected, examined, judged

ROOT = Path(__file__).resolve().parents[2]
BURST = 20


@dataclass(frozen=True)
class Place:
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
class Death:
    """One kill: events stored so far, how many of them the client had not seen yet, whether it came at the service's start."""

    events: int
    unseen: int
    starting: bool


def made_up(run: int, number: int) -> list[Decided]:
    """A provisional and a final event that no other run and number have."""
    onset, now = float(number), time.monotonic()
    event = Event(
        id=f"{run}-{number}",
        stream=f"stream {number % 3}",
        face=0,
        state="final",
        kind="micro",
        onset=Mark(30 * number, onset),
        apex=Mark(30 * number + 6, onset + 0.2),
        offset=Mark(30 * number + 12, onset + 0.4),
        label=("negative", "positive", "surprise")[number % 3],
        probabilities={"negative": 0.2, "positive": 0.3, "surprise": 0.5},
        confidence=0.5,
        intensity=1.0,
        model="made up",
    )
    provisional = Event(**{**vars(event), "state": "provisional", "kind": None, "offset": None})
    return [Decided(provisional, now), Decided(event, now)]


def service_at(place: Place) -> Service:
    """The real service, without sources."""
    store = StoreSettings(folder=place.folder, keep_days=None, keep_bytes=None)
    return Service(LiveSettings(server=ServerSettings(port=place.port), store=store))


async def serve(place: Place, run: int) -> None:
    """The service with made-up events, until it is killed."""
    async with service_at(place) as service:
        number = 0
        while True:
            burst = random.randint(1, BURST)
            for _ in range(burst):
                for decided in made_up(run, number):
                    service.hub.post(decided)
                number += 1
            await asyncio.sleep(burst / place.rate)


async def soak(
    place: Place, times: int, lives: Iterator[float], tell: Callable[[int, Death], None]
) -> tuple[list[Death], list[str], Witness]:
    """Kill a service so many times, after so many seconds: the deaths, what was found wrong, and what the client saw."""
    witness = Witness()
    watching = asyncio.create_task(witness.watch(place.port))
    deaths: list[Death] = []
    problems: list[str] = []
    try:
        for run in range(1, times + 1):
            starting = run % 5 == 0
            await one_life(place, run, None if starting else witness, next(lives))
            seen = list(witness.seen)
            events, wrong = await asyncio.to_thread(examined, place.folder, seen)
            problems += [f"after kill {run}: {sentence}" for sentence in wrong]
            deaths.append(Death(len(events), len(events) - len(seen), starting))
            tell(run, deaths[-1])
        problems += await at_the_end(place, witness)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return deaths, problems, witness


async def one_life(place: Place, run: int, witness: Witness | None, life_s: float) -> None:
    """Start a service and kill it life_s after the witness heard of it, or after its start where there is no witness."""
    log = place.folder.parent / "service.log"
    with log.open("ab") as heard:
        service = await asyncio.create_subprocess_exec(*place.command(run), cwd=ROOT, stdout=heard, stderr=heard)
    try:
        if witness is not None:
            await until_seen(witness, service, log)
        await asyncio.sleep(life_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            service.kill()
        await service.wait()


async def until_seen(witness: Witness, service: asyncio.subprocess.Process, log: Path) -> None:
    """Return once the witness saw another event. Raises OutputError with the service's last words where none comes."""
    seen, gone = asyncio.create_task(witness.until(witness.seq + 1)), asyncio.create_task(service.wait())
    await asyncio.wait({seen, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not seen.done() or seen.exception() is not None:
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise OutputError(f"the service sent no event; the last it said: {' / '.join(words) or 'nothing'}")
    gone.cancel()


async def at_the_end(place: Place, witness: Witness) -> list[str]:
    """Let the client catch up with a last service, and others replay all and a part: what is wrong with what they saw."""
    async with service_at(place) as service:
        last = service.store.last
        await witness.until(last)
        events = service.store.since(0, limit=last)
        problems = [f"the client that followed: {sentence}" for sentence in judged(events, witness.seen)]
        if len(witness.seen) != last:
            problems.append(f"the client that followed saw {len(witness.seen)} of {last} events")
        for since in (0, last // 2):
            replayed = []
            async with asyncio.timeout(PATIENCE_S), connected(place.port, since) as received:
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


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.kill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=50, help="how often the service is killed (default 50)")
    parser.add_argument("--rate", type=float, default=200.0, help="final events a second (default 200)")
    parser.add_argument("--source", metavar="CLIP", help="kill `apexstream live CLIP --loop`, instead of made-up events")
    parser.add_argument("--life", type=float, default=1.5, help="the longest that a service lives after an event, seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed (default 0)")
    parser.add_argument("--json", type=Path, help="file for the record")
    for name, kind in (("--serve", Path), ("--port", int), ("--run", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak that the command line asks for; 0 where all is as it must be, else 1."""
    options = _arguments(arguments)
    if options.serve is not None:
        asyncio.run(serve(Place(options.serve, options.port, options.rate), options.run))
    console, began, chance = Console(stderr=True), time.monotonic(), random.Random(options.seed)

    def tell(number: int, death: Death) -> None:
        if number % 5 == 0 or number == options.times:
            console.print(f"{number} kills, {death.events} events stored")

    lives = iter(lambda: chance.uniform(0, options.life), None)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder) / "events", free_port(), options.rate, options.source)
        place.folder.mkdir()
        deaths, problems, witness = asyncio.run(soak(place, max(1, options.times), lives, tell))
    figures = {
        "kills": len(deaths),
        "kills_while_starting": sum(death.starting for death in deaths),
        "events_stored": deaths[-1].events,
        "events_stored_but_unseen_at_a_kill": sum(death.unseen for death in deaths),
        "events_seen": len(witness.seen),
        "connections": witness.connections,
        "problems": len(problems),
    }
    table = Table("what", "how many", title="The service killed under load")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    if options.json is not None:
        events = f"--rate {options.rate:g}" if options.source is None else f"--source {Path(options.source).name}"
        command = f"python -m tests.soak.kill --times {options.times} {events} --life {options.life:g} --seed {options.seed}"
        record = {"command": command, "minutes": round((time.monotonic() - began) / 60, 1), **figures, "problems": problems}
        options.json.write_text(
            json.dumps(record | {"deaths": [asdict(death) for death in deaths]}, indent=2) + "\n", encoding="utf-8"
        )
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
