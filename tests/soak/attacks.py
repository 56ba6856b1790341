"""Attacks the live service at random while two cameras show it faces and three clients follow, and looks what it loses by that.

    python -m tests.soak.attacks [--minutes 20] [--seed 0] [--attack NAME ...] [--json FILE]

The service is the real one: a process of its own and two for its sources, TLS and a token, `[store] recreate`, 20,000 made-up
events stored before. Its cameras are network cameras (MJPEG) that play rendered faces at 15 pictures a second; a third one is
hostile. Each attack of `tests.soak.hostile` comes once, in a random order, then once again, and so on; from the second round on
two come at once every fourth time or so. Between attacks are 7 to 11 s without.

Judged: no event that was stored is missed by a client, none comes twice or was sent and not stored; in each stretch without an
attack a camera's pictures are analysed at 90 % of the rate before the first attack or more; memory (resident, of all processes,
what they share counted in each) outside attacks has grown by 10 % at most from the two minutes after the first round of all
attacks, which loads code and fills caches, to the last two; no more descriptors than then; /healthz within 5 s always; no
traceback in the log; and what each attack must see.

A clock that is wrong is left to the tests of `stream.events.retention`: the machine's own would have to be set.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import sqlite3
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil
from rich.console import Console
from rich.table import Table

from apexstream.bench.running import LiveProcess, conclude
from stream.events.database import FILE
from stream.events.store import Store
from tests.soak.cameras import Cameras, pictures_of
from tests.soak.hostile import ATTACKS, HERE, STORE, Seen, Target, frames
from tests.soak.subscribers import an_event
from tests.soak.witness import Witness

PHOTOS = ("hopper", "astronaut")
FPS, CLIP_S = 15.0, 20.0
CLIENTS = 3
FILLER = 20_000
BASELINE_S = 30.0
PAUSE_S = (7.0, 11.0)
SAMPLE_S = 1.0
WINDOW_S = 4.0
"""The shortest stretch without an attack whose rate is judged."""
COMPARED_S = 120.0
"""The time over which memory is looked at: after the first round, and at the end."""
TWO_AT_ONCE = 0.25
LEAST_RATE, MOST_GROWTH, MORE_HANDLES, HEALTH_S = 0.9, 0.10, 5, 5.0
START_S = 120.0


@dataclass(frozen=True)
class Sample:
    """The service from outside: seconds since the first attack; MiB, descriptors; frames analysed by camera, None where it did
    not say; seconds /healthz took, None where it did not answer; the machine's load; seconds that the service has used of cores
    so far, and those that its threads have waited for one."""

    at: float
    memory_mib: float
    handles: int
    frames: dict[str, int] | None
    health_s: float | None
    load: float
    cpu_s: float
    waited_s: float


@dataclass(frozen=True)
class Struck:
    """An attack: its name, when it began and ended (seconds since the first one), and what it saw."""

    name: str
    began: float
    ended: float
    seen: Seen


@dataclass
class Run:
    """What came of a run. stored has the id of each event by seq, as often as it is in any file; clients what each was sent."""

    samples: list[Sample] = field(default_factory=list)
    attacks: list[Struck] = field(default_factory=list)
    round_s: float | None = None
    stored: list[tuple[int, str]] = field(default_factory=list)
    clients: list[list[tuple[int, str]]] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    log: str = ""
    ended_s: float = 0.0


# The run


def run(
    minutes: float,
    seed: int,
    tell: Callable[[Struck], None] = lambda struck: None,
    *,
    named: Sequence[str] = (),
    videos: Sequence[Path] = (),
    baseline_s: float = BASELINE_S,
    pause_s: tuple[float, float] = PAUSE_S,
    filler: int = FILLER,
) -> Run:
    """Attack a service for so long, by all attacks or those named; videos of faces, two, are rendered where none are given.

    baseline_s is without attacks at the start, pause_s the shortest and longest time between two; filler events are stored
    before.
    """
    found = Run()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apexstream-soak-")))
        for name in ("data", "filler", "taken"):
            (folder / name).mkdir()
        videos = videos or [_rendered(folder / f"{photo}.mp4", photo) for photo in PHOTOS]
        fill(folder, filler)
        cameras = stack.enter_context(Cameras(videos))
        settings, trust, token = _configured(folder, cameras)
        service = stack.enter_context(LiveProcess([], "--config", str(settings), data=folder / "data"))
        target = Target(
            port=urlsplit(service.url).port or 0,
            tls=trust,
            token=token,
            folder=folder / "data",
            beside=folder / "taken",
            cameras=cameras,
            names=PHOTOS,
            pids=lambda: service.pids,
            filler=filler,
            jpegs=pictures_of(videos[0])[0][:60],
        )
        plan = Plan(60 * minutes, seed, named or tuple(ATTACKS), baseline_s, pause_s)
        asyncio.run(_watched(service, target, found, plan, tell))
        found.stored = list(kept(target))
        found.log = service.log()
    return found


@dataclass(frozen=True)
class Plan:
    """For how many seconds to attack, with what, after how many seconds without and with which pauses."""

    seconds: float
    seed: int
    names: Sequence[str]
    baseline_s: float
    pause_s: tuple[float, float]

    def turns(self) -> Iterator[tuple[str, ...]]:
        """Names of attacks, for ever: those of the first round one by one, then now and then two at once."""
        chance, first = random.Random(self.seed), True
        while True:
            deck = chance.sample(list(self.names), len(self.names))
            while deck:
                both = not first and len(deck) > 1 and chance.random() < TWO_AT_ONCE
                pair = both and not (deck[-1] in STORE and deck[-2] in STORE)
                yield tuple(deck.pop() for _ in range(2 if pair else 1))
            first = False


async def _watched(service: LiveProcess, target: Target, found: Run, plan: Plan, tell: Callable[[Struck], None]) -> None:
    """Follow, sample, attack; then end the service and see that all clients hear of it."""
    options = {"ssl": target.tls, "additional_headers": {"Authorization": f"Bearer {target.token}"}}
    clients = [Witness(since=target.filler, options=options) for _ in range(CLIENTS)]
    following = [asyncio.create_task(client.watch(target.port)) for client in clients]
    try:
        async with asyncio.timeout(START_S):
            await asyncio.gather(*(client.until(target.filler + 1) for client in clients))
        began = time.monotonic() + plan.baseline_s
        sampling = asyncio.create_task(_sample(service, target, found, began))
        await asyncio.sleep(plan.baseline_s)
        await _attack(target, found, plan, began, tell)
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling
        found.ended_s = await asyncio.to_thread(service.end)
    finally:
        target.over.set()
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    found.clients = [[(int(event["seq"]), str(event["id"])) for event in client.seen] for client in clients]
    found.connections = [client.connections for client in clients]


async def _attack(target: Target, found: Run, plan: Plan, began: float, tell: Callable[[Struck], None]) -> None:
    chance, done = random.Random(plan.seed + 1), set[str]()
    for turn in plan.turns():
        if time.monotonic() - began >= plan.seconds:
            return
        for struck in await asyncio.gather(*(_strike(target, name, random.Random(chance.random()), began) for name in turn)):
            found.attacks.append(struck)
            tell(struck)
        done.update(turn)
        await asyncio.sleep(chance.uniform(*plan.pause_s))
        if found.round_s is None and done >= set(plan.names):
            found.round_s = time.monotonic() - began


async def _strike(target: Target, name: str, chance: random.Random, began: float) -> Struck:
    """One attack; one that fails by itself is a problem as well."""
    at = time.monotonic()
    try:
        seen = await asyncio.to_thread(ATTACKS[name], target, chance)
    except (OSError, RuntimeError, sqlite3.Error, psutil.Error, ValueError) as error:
        seen = Seen({}, [f"the attack failed by itself ({type(error).__name__}: {error})"])
    return Struck(name, round(at - began, 2), round(time.monotonic() - began, 2), seen)


async def _sample(service: LiveProcess, target: Target, found: Run, began: float) -> None:
    while True:
        found.samples.append(await asyncio.to_thread(_sampled, service, target, began))
        await asyncio.sleep(SAMPLE_S)


def _sampled(service: LiveProcess, target: Target, began: float) -> Sample:
    asked = time.monotonic()
    code, _ = target.ask("/healthz")
    health = time.monotonic() - asked
    before = time.monotonic()
    status, text = target.ask("/metrics")
    at = (before + time.monotonic()) / 2 - began
    used = service.usage()
    return Sample(
        round(at, 2),
        round(used.memory_mib, 1),
        used.handles,
        frames(text.decode()) if status == 200 else None,
        round(health, 3) if code == 200 else None,
        round(os.getloadavg()[0], 2),
        round(used.cpu_s, 2),
        round(_waited(service.pids), 2),
    )


def _waited(pids: Sequence[int]) -> float:
    """Seconds that the threads of processes were ready to run and had no core, by Linux' count."""
    waited = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, IndexError):  # it has ended meanwhile
                waited += int(task.read_text().split()[1])
    return waited / 1e9


def _rendered(path: Path, photo: str) -> Path:
    from apexstream.clips import preset, write_clip

    write_clip(preset("benchmark", photo, FPS, seed=1, duration_s=CLIP_S, size=(320, 240), eye_px=64.0), path)
    return path


def fill(folder: Path, events: int) -> None:
    """Made-up events in the store that a service in folder/data will open, and a copy beside it."""
    with Store(folder / "data") as store:
        said = {"emitted_at": "2026-01-31T09:00:00.123Z", "latency_ms": 38.2}
        for first in range(0, events, 1000):
            store.append([{**an_event(k).as_dict(), **said} for k in range(first, min(first + 1000, events))])
    shutil.copy(folder / "data" / FILE, folder / "filler" / FILE)


def _configured(folder: Path, cameras: Cameras) -> tuple[Path, ssl.SSLContext, str]:
    """A settings file, what its clients trust, and their token."""
    import trustme

    issuer, token, trust = trustme.CA(), random.SystemRandom().randbytes(16).hex(), ssl.create_default_context()
    issuer.configure_trust(trust)
    mine = issuer.issue_cert(HERE)
    mine.private_key_pem.write_to_path(str(folder / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    (folder / "token").write_text(token, encoding="ascii")
    for name in ("token", "key.pem"):
        (folder / name).chmod(0o600)
    sources = zip((*PHOTOS, "hostile"), (*cameras.urls, cameras.hostile_url), strict=True)
    settings = folder / "live.toml"
    settings.write_text(
        "processes = 2\n"
        + "".join(f'[[sources]]\nname = "{name}"\nurl = "{url}"\n' for name, url in sources)
        + f'[server]\ntoken_file = "{folder / "token"}"\ncertificate = "{folder / "certificate.pem"}"\n'
        + f'key = "{folder / "key.pem"}"\n[store]\nrecreate = true\n',
        encoding="utf-8",
    )
    return settings, trust, token


def kept(target: Target) -> Iterator[tuple[int, str]]:
    """Seq and id of every event in any file of the run's, those made up aside."""
    for path in (target.folder / FILE, *sorted(target.beside.glob(f"*/{FILE}"))):
        with contextlib.closing(sqlite3.connect(path)) as db:
            for seq, body in db.execute("SELECT seq, body FROM events WHERE seq > ? ORDER BY seq", (target.filler,)):
                yield int(seq), target.taken.get(int(seq)) or str(json.loads(body)["id"])


# The judgement


def windows(found: Run) -> list[tuple[float, float]]:
    """The stretches without an attack that are long enough, seconds since the first one."""
    stretches, free = [], 0.0
    for struck in sorted(found.attacks, key=lambda one: one.began):
        stretches.append((free, struck.began))
        free = max(free, struck.ended)
    stretches.append((free, found.samples[-1].at if found.samples else free))
    return [(start, end) for start, end in stretches if end - start >= WINDOW_S]


def rate(found: Run, stream: str, start: float, end: float) -> tuple[int, float]:
    """Frames of a stream analysed from the first sample in a stretch to the last, and the seconds between them."""
    known = [(one.at, one.frames[stream]) for one in found.samples if one.frames is not None and stream in one.frames]
    inside = [one for one in known if start <= one[0] <= end]
    return (inside[-1][1] - inside[0][1], inside[-1][0] - inside[0][0]) if len(inside) > 1 else (0, 0.0)


def figures(found: Run) -> dict[str, Any]:
    """What is judged and recorded."""
    quiet = windows(found)
    free = [one for one in found.samples if any(start <= one.at <= end for start, end in quiet)]
    last = found.samples[-1].at if found.samples else 0.0
    warm = last if found.round_s is None else found.round_s
    early = [one for one in free if warm <= one.at <= warm + COMPARED_S]
    late = [one for one in free if one.at >= last - COMPARED_S]
    health = sorted(one.health_s for one in found.samples if one.health_s is not None)
    return {
        "attacks": {name: sum(one.name == name for one in found.attacks) for name in sorted({a.name for a in found.attacks})},
        "first_round_s": None if found.round_s is None else round(found.round_s, 1),
        "events": _events(found),
        "cameras": {name: _camera(found, name, quiet) for name in PHOTOS},
        "memory_mib": _growth([one.memory_mib for one in early], [one.memory_mib for one in late])
        | {"most": max((one.memory_mib for one in found.samples), default=None)},
        "handles": _growth([one.handles for one in early], [one.handles for one in late])
        | {"most": max((one.handles for one in found.samples), default=None)},
        "healthz": {
            "asked": len(found.samples),
            "unanswered": sum(one.health_s is None for one in found.samples),
            "median_s": round(median(health), 3) if health else None,
            "p99_s": health[int(0.99 * (len(health) - 1))] if health else None,
            "worst_s": health[-1] if health else None,
        },
        "machine_before": _machine(found, -float("inf"), 0.0),
        "load": {
            "median": median(one.load for one in found.samples) if found.samples else None,
            "worst": max((one.load for one in found.samples), default=None),
        },
        "log": {"bytes": len(found.log), "tracebacks": found.log.count("Traceback"), "escapes": found.log.count("\x1b")},
        "end_s": round(found.ended_s, 1),
    }


def _events(found: Run) -> dict[str, Any]:
    stored = Counter(found.stored)
    numbers = sorted(seq for seq, _ in found.stored)
    names = Counter(name for _, name in found.stored)
    return {
        "stored": len(found.stored),
        "stored_twice": sum(times > 1 for times in names.values()) + len(numbers) - len(set(numbers)),
        "numbers_missing": numbers[-1] - numbers[0] + 1 - len(set(numbers)) if numbers else 0,
        "clients": [
            {
                "seen": len(seen),
                "lost": len(stored.keys() - set(seen)),
                "twice": len(seen) - len(set(seen)),
                "not_stored": len(set(seen) - stored.keys()),
                "out_of_order": sum(b <= a for (a, _), (b, _) in pairwise(seen)),
                "connections": connections,
            }
            for seen, connections in zip(found.clients, found.connections, strict=True)
        ],
    }


def _camera(found: Run, name: str, quiet: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Rates are of frames analysed a second."""
    count, seconds = rate(found, name, -float("inf"), 0.0)
    before = count / seconds if seconds else 0.0
    rows = []
    for start, end in quiet:
        count, seconds = rate(found, name, start, end)
        fps = count / seconds if seconds else 0.0
        rows.append({"from": round(start, 1), "to": round(end, 1), "fps": round(fps, 2), **_machine(found, start, end)})
    total = [rate(found, name, start, end) for start, end in quiet]
    seconds = sum(span for _, span in total)
    share = [count / span / before if span and before else 0.0 for count, span in total]
    return {
        "fps_before": round(before, 2),
        "fps_between": round(sum(count for count, _ in total) / seconds, 2) if seconds else None,
        "windows": len(rows),
        "worst": round(min(share), 3) if share else None,
        "below": [row for row, part in zip(rows, share, strict=True) if part < LEAST_RATE],
    }


def _machine(found: Run, start: float, end: float) -> dict[str, Any]:
    """How busy the machine was: its load, and for each second what the service used of cores and what it waited for them."""
    inside = [one for one in found.samples if start <= one.at <= end]
    if len(inside) < 2:
        return {"load": None, "cores": None, "waited": None}
    first, last = inside[0], inside[-1]
    seconds = last.at - first.at
    return {
        "load": max(one.load for one in inside),
        "cores": round((last.cpu_s - first.cpu_s) / seconds, 2),
        "waited": round((last.waited_s - first.waited_s) / seconds, 2),
    }


def _growth(early: Sequence[float], late: Sequence[float]) -> dict[str, Any]:
    if not early or not late:
        return {"start": None, "end": None, "growth": None}
    start, end = median(early), median(late)
    return {"start": start, "end": end, "growth": round(end / start - 1, 4)}


def judged(found: Run) -> list[str]:
    """What is not as it must be, in sentences."""
    of = figures(found)
    problems = [f"{one.name} at {one.began:.0f} s: {problem}" for one in found.attacks for problem in one.seen.problems]
    events, memory, handles = of["events"], of["memory_mib"], of["handles"]
    checks = {
        "no event was stored": events["stored"] > 0,
        f"{events['stored_twice']} events are stored twice": not events["stored_twice"],
        f"{events['numbers_missing']} numbers are in no store": not events["numbers_missing"],
        f"memory grew by {memory['growth'] or 0:.1%}": (memory["growth"] or 0) <= MOST_GROWTH,
        f"descriptors grew from {handles['start']} to {handles['end']}": (handles["end"] or 0)
        <= (handles["start"] or 0) + MORE_HANDLES,
        f"/healthz did not answer {of['healthz']['unanswered']} times": not of["healthz"]["unanswered"],
        f"/healthz took {of['healthz']['worst_s']} s": (of["healthz"]["worst_s"] or 0) <= HEALTH_S,
        f"{of['log']['tracebacks']} tracebacks are in the log": not of["log"]["tracebacks"],
        f"{of['log']['escapes']} escapes of terminals are in the log": not of["log"]["escapes"],
    }
    for number, client in enumerate(events["clients"], 1):
        for what in ("lost", "twice", "not_stored", "out_of_order"):
            checks[f"client {number}: {client[what]} events {what.replace('_', ' ')}"] = not client[what]
    for name, camera in of["cameras"].items():
        checks[f"{name}: nothing was analysed before the first attack"] = camera["fps_before"] > 0
        for row in camera["below"]:
            busy = f"load {row['load']}, {row['cores']} cores used, {row['waited']} s a second waited for them"
            rates = f"{row['fps']} of {camera['fps_before']} frames a second ({busy})"
            checks[f"{name}: from {row['from']:.0f} to {row['to']:.0f} s {rates}"] = False
    return problems + [sentence for sentence, well in checks.items() if not well]


# The command


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.attacks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the attacks' order and details (default 0)")
    parser.add_argument("--attack", action="append", choices=list(ATTACKS), help="only this one; repeatable")
    parser.add_argument("--json", type=Path, help="file for the record")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak that the command line asks for; 0 where all is as it must be, else 1."""
    options, console = _arguments(arguments), Console(stderr=True)

    def tell(struck: Struck) -> None:
        trouble = f"  {'; '.join(struck.seen.problems)}" if struck.seen.problems else ""
        console.print(
            f"{struck.began:6.0f} s  {struck.name}, {struck.ended - struck.began:.1f} s: {struck.seen.facts}{trouble}"
        )

    found = run(options.minutes, options.seed, tell, named=options.attack or ())
    of, problems = figures(found), judged(found)
    console.print(_table(of))
    console.print(of)
    chosen = "".join(f" --attack {name}" for name in options.attack or ())
    record = {
        "command": f"python -m tests.soak.attacks --minutes {options.minutes:g} --seed {options.seed}{chosen}",
        "cores": os.cpu_count(),
        "nice": os.nice(0),
        **of,
        "problems": problems,
        "log_of_attacks": [asdict(one) for one in found.attacks],
        "samples": [asdict(one) for one in found.samples[:: max(1, len(found.samples) // 120)]],
    }
    return conclude(record, problems, options.json)


def _table(of: dict[str, Any]) -> Table:
    table = Table("", "at the start", "at the end", title=f"{sum(of['attacks'].values())} attacks")
    for name in ("memory_mib", "handles"):
        table.add_row(name, str(of[name]["start"]), str(of[name]["end"]))
    for name, camera in of["cameras"].items():
        table.add_row(f"{name}, frames a second", str(camera["fps_before"]), f"{camera['fps_between']} between attacks")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
